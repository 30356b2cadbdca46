"""docs/security.md: what it names is there, and no requirement of level 1 is left out."""

import re
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_PAGE = (_ROOT / "docs/security.md").read_text(encoding="utf-8")
_FILE = r"[A-Z]\w+\.md|[\w.-]+\.(?:toml|lock|example)|\.dockerignore|Dockerfile"
_PATH = rf"(?:service|tests|scripts|seed|docs)/[\w./-]*|{_FILE}"
_NAMED = sorted(set(re.findall(rf"`({_PATH})(?:::(\w+))?`", _PAGE)))
_ROW = re.compile(
    r"\| (\d+\.\d+\.\d+) \| ([123]) \| [^|]+ "
    r"\| (met|partly|open|operator|not applicable)\b[^|]* \|[^|]*\|[^|]*\|"
)
# All requirements of level 1 in OWASP ASVS 5.0.0, by chapter and section.
_LEVEL_1 = re.findall(
    r"\S+",
    """
    1.2.1 1.2.2 1.2.3 1.2.4 1.2.5 1.3.1 1.3.2 1.5.1 2.1.1 2.2.1 2.2.2 2.3.1 3.2.1 3.2.2 3.3.1 3.4.1 3.4.2 3.5.1 3.5.2
    3.5.3 4.1.1 4.4.1 5.2.1 5.2.2 5.3.1 5.3.2 6.1.1 6.2.1 6.2.2 6.2.3 6.2.4 6.2.5 6.2.6 6.2.7 6.2.8 6.3.1 6.3.2 6.4.1
    6.4.2 7.2.1 7.2.2 7.2.3 7.2.4 7.4.1 7.4.2 8.1.1 8.2.1 8.2.2 8.3.1 9.1.1 9.1.2 9.1.3 9.2.1 10.4.1 10.4.2 10.4.3
    10.4.4 10.4.5 11.3.1 11.3.2 11.4.1 12.1.1 12.2.1 12.2.2 13.4.1 14.2.1 14.3.1 15.1.1 15.2.1 15.3.1
    """,
)


@pytest.mark.parametrize(("path", "test"), _NAMED, ids=["::".join(filter(None, named)) for named in _NAMED])
def test_what_the_page_names_is_there(path: str, test: str) -> None:
    named = _ROOT / path
    assert named.exists(), path
    if test:
        assert re.search(rf"def {test}\b", named.read_text(encoding="utf-8")), f"{path} has no {test}"


def test_every_row_says_what_is_so() -> None:
    rows = [line for line in _PAGE.splitlines() if re.match(r"\| \d+\.\d+\.\d+ ", line)]
    assert len(rows) > 150
    assert [row for row in rows if not _ROW.fullmatch(row)] == []


def test_every_requirement_of_level_1_has_one_row() -> None:
    found = _ROW.findall(_PAGE)
    assert len(_LEVEL_1) == 70
    assert [requirement for requirement, level, _ in found if level == "1"] == _LEVEL_1
    assert len({requirement for requirement, *_ in found}) == len(found)
