"""Write docs/openapi.json, or with --check say whether it is what the code has: python -m scripts.export_openapi.

The document depends on the code alone: settings of this machine are not read.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any, Final

from scripts.stack_environment import PREFIX
from service.main import create_app
from service.settings import Settings

DOCUMENT: Final = Path(__file__).parents[1] / "docs" / "openapi.json"


def document() -> dict[str, Any]:
    kept = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(PREFIX)}
    try:
        return create_app(Settings(_env_file=None)).openapi()
    finally:
        os.environ.update(kept)


def rendered() -> str:
    """The document as it is committed: in the order that it is generated in, so that a diff shows what changed."""
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description="Write docs/openapi.json.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where the file is out of date")
    if not parser.parse_args().check:
        DOCUMENT.parent.mkdir(exist_ok=True)
        DOCUMENT.write_text(rendered(), encoding="utf-8")
        print(f"Written: docs/{DOCUMENT.name}")
        return 0
    if DOCUMENT.is_file() and DOCUMENT.read_text(encoding="utf-8") == rendered():
        print("docs/openapi.json is up to date")
        return 0
    print(
        "docs/openapi.json is not what the routes say. Run `make openapi`, read the diff, and commit it.",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
