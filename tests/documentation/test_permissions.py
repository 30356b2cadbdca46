"""The README's words on access, held against the code."""

import re
from pathlib import Path

import pytest

from service.domain.permissions import Permission

_README = (Path(__file__).parents[2] / "README.md").read_text()
_PERMISSION = re.compile(r"`([a-z-]+:[a-z]+)`")


@pytest.mark.parametrize("title", ["Roles and permissions", "API keys"])
def test_names_permissions_that_there_are(title: str) -> None:
    section = re.split(r"^### ", _README.partition(f"\n### {title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    named = set(_PERMISSION.findall(section))
    assert named, "the section names permissions"
    assert named <= set(Permission)
