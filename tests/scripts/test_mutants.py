"""The report on mutants counts what was killed, says how sure a sample is, and agrees with the page in docs/."""

import json
import re
from pathlib import Path

import pytest

from scripts import mutants
from scripts.mutants import Change, End, Explanation

_PAGE = Path(__file__).parents[2] / "docs/mutants.md"
_TIMED_OUT = -24
_MESSAGE = Explanation("service.ledger.*", "^assert", "XX", "A message")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    codes = {"service.ledger.holds.x__a__mutmut_1": 1, "service.ledger.holds.x__a__mutmut_2": 0}
    (tmp_path / "holds.py.meta").write_text(json.dumps({"exit_code_by_key": codes}))
    more = {f"service.ledger.rules.x__b__mutmut_{number}": 1 for number in range(18)} | {"service.ledger.rules.c": None}
    (tmp_path / "rules.py.meta").write_text(json.dumps({"exit_code_by_key": more}))
    return tmp_path


def _ran(folder: Path) -> dict[str, int | None]:
    return {name: code for name, code in mutants.exit_codes(folder).items() if code is not None}


class TestTheReport:
    def test_counts_by_module_and_names_those_that_live(self, folder: Path) -> None:
        name = "service.ledger.holds.x__a__mutmut_2"
        changes = {name: Change("service.ledger.holds._a", "return 1", "return 2")}
        report = mutants.report(_ran(folder), 21, changes, [])
        assert re.search(r"^service\.ledger\.holds +2 +1 +1 +0 +0 +50\.0%$", report, re.MULTILINE)
        assert re.search(r"^total +20 +19 +1 +0 +0 +95\.0%$", report, re.MULTILINE)
        assert "20 of 21 mutants, 95.0% killed (± 9.7%), target 95%" in report
        assert report.endswith(f"  {name}: return 1 → return 2")

    def test_leaves_nothing_to_chance_where_all_were_run(self, folder: Path) -> None:
        codes = _ran(folder)
        assert "(± 0.0%)" in mutants.report(codes, len(codes), {}, [])

    def test_names_no_explained_one(self, folder: Path) -> None:
        change = Change("service.ledger.holds._a", 'assert it, "why"', 'assert it, "XXwhyXX"')
        report = mutants.report(_ran(folder), 20, {"service.ledger.holds.x__a__mutmut_2": change}, [_MESSAGE])
        assert "Alive" not in report

    def test_says_that_nothing_was_run(self) -> None:
        assert mutants.report({}, 5, {}, []) == "No mutant was run"

    def test_neither_time_nor_the_lack_of_a_test_kills(self) -> None:
        codes = {"a.b.x_c__mutmut_1": _TIMED_OUT, "a.b.x_c__mutmut_2": 33, "a.b.x_c__mutmut_3": 1}
        ((_, ends), (_, total)) = mutants.rows(codes)
        assert ends == total == {End.TIMED_OUT: 1, End.NOT_REACHED: 1, End.KILLED: 1}
        assert "33.3% killed" in mutants.report(codes, 3, {}, [])

    def test_counts_no_end_that_it_does_not_know(self) -> None:
        assert mutants.end_of(-9) is mutants.end_of(None) is End.OTHER


class TestAnExplanation:
    @pytest.mark.parametrize(
        ("change", "is_covered"),
        [
            (Change("service.ledger.holds.a", 'assert it, "why"', 'assert it, "XXwhyXX"'), True),
            (Change("service.ledger.holds.a", 'assert it, "why"', 'assert not it, "why"'), False),
            (Change("service.ledger.holds.a", 'x = "why"', 'x = "XXwhyXX"'), False),
            (Change("service.domain.holds.a", 'assert it, "why"', 'assert it, "XXwhyXX"'), False),
        ],
    )
    def test_is_of_one_kind_of_change_only(self, change: Change, *, is_covered: bool) -> None:
        assert _MESSAGE.covers(change) is is_covered

    def test_all_of_them_can_be_read(self) -> None:
        for one in mutants.explanations():
            assert one.why
            assert re.compile(one.was)
            assert re.compile(one.becomes)


def test_a_function_is_named_as_people_name_it() -> None:
    assert mutants.function_of("service.ledger.holds.xǁOnHoldǁdecide__mutmut_4") == "service.ledger.holds.OnHold.decide"
    assert mutants.function_of("service.ledger.holds.x__give_back__mutmut_12") == "service.ledger.holds._give_back"


class TestThePage:
    def test_is_written_around_what_people_wrote(self, folder: Path) -> None:
        page = folder / "mutants.md"
        page.write_text(f"Before\n{mutants._BEGIN}\nOf yesterday\n{mutants._END}\nAfter\n")
        name = "service.ledger.holds.x__a__mutmut_2"
        changes = {name: Change("service.ledger.holds._a", 'assert it, "why"', 'assert it, "XXwhyXX"')}
        for _ in range(2):
            mutants.write_page(page, _ran(folder), 20, changes, [_MESSAGE])
        text = page.read_text()
        assert text.startswith("Before\n")
        assert text.endswith("\nAfter\n")
        assert "Of yesterday" not in text
        assert "| `service.ledger.holds` | 2 | 1 | 1 | 0 | 0 | 50.0% |" in text
        assert '**A message** (1):\n\n- `service.ledger.holds._a`: `assert it, "why"` → `assert it, "XXwhyXX"`' in text

    def test_adds_up_to_its_total_and_reaches_the_target(self) -> None:
        count = r" ([\d,]+) \|"
        found = re.findall(rf"^\| (.+?) \|{count * 5}", _PAGE.read_text(), re.MULTILINE)
        *modules, total = [[int(cell.replace(",", "")) for cell in cells] for _, *cells in found]
        assert [sum(column) for column in zip(*modules, strict=True)] == total
        assert all(count == sum(ends) for count, *ends in modules)
        assert total[1] / total[0] >= mutants.TARGET
