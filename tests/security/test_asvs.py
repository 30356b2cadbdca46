"""docs/security.md: what it names is there, and no requirement of level 1 or 2 is left out."""

import csv
import re
from collections import Counter
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_PAGE = (_ROOT / "docs/security.md").read_text(encoding="utf-8")
_FILE = r"[A-Z]\w+\.md|[\w.-]+\.(?:toml|lock|example|yml)|\.dockerignore|Dockerfile"
_PATH = rf"(?:service|tests|scripts|seed|docs)/[\w./-]*|{_FILE}"
_NAMED = sorted(set(re.findall(rf"`({_PATH})(?:::(\w+))?`", _PAGE)))
_ROW = re.compile(
    r"\| (?P<id>\d+\.\d+\.\d+) \| (?P<level>[123]) \| [^|]+ "
    r"\| (?P<state>met|stated|partly|open|operator|not applicable)\b(?P<said>[^|]*) "
    r"\|(?P<where>[^|]*)\|(?P<test>[^|]*)\|"
)
_ROWS = [found for line in _PAGE.splitlines() if (found := _ROW.fullmatch(line))]


def _requirements() -> dict[str, str]:
    """OWASP's own list: the level of each requirement of ASVS 5.0.0."""
    lines = (_ROOT / "tests/security/asvs_5_0_0.csv").read_text(encoding="utf-8").splitlines()
    return {row["requirement"]: row["level"] for row in csv.DictReader(one for one in lines if not one.startswith("#"))}


@pytest.mark.parametrize(("path", "test"), _NAMED, ids=["::".join(filter(None, named)) for named in _NAMED])
def test_what_the_page_names_is_there(path: str, test: str) -> None:
    named = _ROOT / path
    assert named.exists(), path
    if test:
        assert re.search(rf"def {test}\b", named.read_text(encoding="utf-8")), f"{path} has no {test}"


def test_every_row_says_what_is_so() -> None:
    rows = [line for line in _PAGE.splitlines() if re.match(r"\| \d+\.\d+\.\d+ ", line)]
    assert [row for row in rows if not _ROW.fullmatch(row)] == []
    # OWASP's figures for the three levels.
    assert Counter(_requirements().values()) == {"1": 70, "2": 183, "3": 92}


def test_every_requirement_of_levels_1_and_2_has_one_row_in_its_place() -> None:
    wanted = _requirements()
    found = [(row["id"], row["level"]) for row in _ROWS]
    assert [one for one in found if one not in wanted.items()] == []
    assert [name for name, level in found if level != "3"] == [name for name in wanted if wanted[name] != "3"]
    assert len(found) == len(set(found))


def test_nothing_is_met_without_a_test_and_nothing_else_goes_unexplained() -> None:
    for row in _ROWS:
        match row["state"]:
            case "met":
                assert "`tests/" in row["test"], row[0]
            case "stated":
                assert row["said"].startswith(": "), row[0]
            case "not applicable" | "partly":
                assert len(row["said"]) > len(": no X"), row[0]
