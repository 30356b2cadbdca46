"""Which version this is."""

import tomllib
from functools import cache
from pathlib import Path
from typing import Final

_PROJECT_FILE: Final = Path(__file__).parents[1] / "pyproject.toml"


@cache
def project_version() -> str:
    """pyproject.toml's: the one place where it stands."""
    version: str = tomllib.loads(_PROJECT_FILE.read_text(encoding="utf-8"))["project"]["version"]
    return version
