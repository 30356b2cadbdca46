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
