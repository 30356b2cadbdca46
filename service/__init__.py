"""The wallet service."""

import sys

if "rich" not in sys.modules:
    # structlog takes rich along wherever it finds it: 3 MB in each process, for tracebacks that log.py turns off. For
    # whoever imports rich itself it is there as ever.
    sys.modules["rich"] = None  # type: ignore[assignment]  # import's own way of saying that there is none
    try:
        import structlog as structlog
    finally:
        del sys.modules["rich"]

# FastAPI looks for models of pydantic's first version, and would load all of it to find that there are none: 2 MB in
# each process. Where it can't be imported, it takes that for the answer.
sys.modules.setdefault("pydantic.v1", None)  # type: ignore[arg-type]  # import's own way of saying that there is none
