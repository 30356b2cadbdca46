"""The report on mutants counts what was killed, and says how sure a sample is."""

import json
from pathlib import Path

import pytest

from scripts import mutants


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    codes = {"service.ledger.holds.x__a__mutmut_1": 1, "service.ledger.holds.x__a__mutmut_2": 0}
    (tmp_path / "holds.py.meta").write_text(json.dumps({"exit_code_by_key": codes}))
    more = {f"service.ledger.rules.x__b__mutmut_{number}": 1 for number in range(18)} | {"service.ledger.rules.c": None}
    (tmp_path / "rules.py.meta").write_text(json.dumps({"exit_code_by_key": more}))
    return tmp_path


def test_counts_by_module_and_names_those_that_live(folder: Path) -> None:
    codes = mutants.exit_codes(folder)
    ran = {name: code for name, code in codes.items() if code is not None}
    report = mutants.report(ran, len(codes))
    assert "service.ledger.holds                            2        1   50.0%" in report
    assert "20 of 21 mutants, 95.0% killed (± 9.7%), target 95%" in report
    assert report.endswith("  service.ledger.holds.x__a__mutmut_2")


def test_leaves_nothing_to_chance_where_all_were_run(folder: Path) -> None:
    codes = {name: code for name, code in mutants.exit_codes(folder).items() if code is not None}
    assert "(± 0.0%)" in mutants.report(codes, len(codes))


def test_says_that_nothing_was_run() -> None:
    assert mutants.report({}, 5) == "No mutant was run"
