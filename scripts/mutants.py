"""Break each line of the rules in turn and see whether a test notices: python -m scripts.mutants.

Runs mutmut (its settings stand in pyproject.toml) over the ledger and the domain that it decides on, and prints by
module how many of its mutants were killed, survived, ran out of time or are reached by no test. Only the first count
as killed. Exits with 1 where they are fewer than TARGET, or where a mutant ended in no way that can be counted.

mutmut stops a test after 15 times its usual time and 15 s. So that a busy machine kills no mutant, those are run once
more, one at a time, and those that are stopped again are shown and count as alive.

A whole run writes docs/mutants.md. `--only "service.ledger.holds.*"` runs one module, `--sample 400` a random part,
and says what margin of error that leaves; `--report` writes the page from what earlier runs left in mutants/.
"""

import argparse
import json
import math
import os
import random
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from fnmatch import fnmatch
from pathlib import Path
from typing import Final, NamedTuple

TARGET: Final = 0.95
_MUTANTS = Path("mutants")
# Names the commit that the results are of.
_COMMIT = _MUTANTS / "commit"
_PAGE = Path("docs/mutants.md")
# Marks the part of the page that is written anew.
_BEGIN, _END = "<!-- Written by scripts/mutants.py: begin -->", "<!-- Written by scripts/mutants.py: end -->"
_EXPLAINED = Path(__file__).parent / "mutants_explained.json"
# Two standard errors of a share.
_SIGMAS = 2.0


class End(StrEnum):
    KILLED = "killed"
    SURVIVED = "survived"
    TIMED_OUT = "timed out"
    NOT_REACHED = "not reached"
    OTHER = "other"


# Maps pytest's exit, as mutmut notes it; 3 is a test run that broke.
_ENDS = {1: End.KILLED, 3: End.KILLED, 0: End.SURVIVED, 5: End.NOT_REACHED, 33: End.NOT_REACHED} | dict.fromkeys(
    (24, 36, 152, 255, -24), End.TIMED_OUT
)


class Explanation(NamedTuple):
    """Why no test can notice a change, or why none has to.

    `function` is a pattern as in a shell. `was` and `becomes` are regular expressions, of which something has to be
    found in the lines before and after the change.
    """

    function: str
    was: str
    becomes: str
    why: str

    def covers(self, change: "Change") -> bool:
        is_there = re.search(self.was, change.was) and re.search(self.becomes, change.becomes)
        return bool(is_there) and fnmatch(change.function, self.function)


class Change(NamedTuple):
    """Shows what a mutant changes; several lines are joined by spaces."""

    function: str
    was: str
    becomes: str


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="*", default=[], metavar="PATTERN", help="names, with * as in a shell")
    parser.add_argument("--sample", type=int, metavar="N", help="this many of them, chosen at random")
    parser.add_argument("--seed", type=int, default=1, help="of the choice")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--report", action="store_true", help="run nothing: write the page from what was run before")
    options = parser.parse_args(arguments)
    names: list[str] = options.only
    if options.sample is not None:
        # Mutants have to be there before some of them can be chosen.
        _run_mutmut(1, ["none.of.them"], is_checked=False)
        known = sorted(exit_codes())
        names = random.Random(options.seed).sample(known, min(options.sample, len(known)))  # noqa: S311 no secret
    if not options.report:
        _run_mutmut(options.processes, names)
        _run_again_alone(names)
        _COMMIT.write_text(_commit_now())
    codes = exit_codes()
    chosen = {name: code for name, code in codes.items() if code is not None and _is_named(name, names)}
    alive = [name for name, code in chosen.items() if end_of(code) is not End.KILLED]
    changes = {name: change_of(name) for name in sorted(alive)}
    print(report(chosen, len(codes), changes, explanations()))
    if not names:
        write_page(_PAGE, chosen, len(codes), changes, explanations())
    is_counted = all(end_of(code) is not End.OTHER for code in chosen.values())
    return 0 if chosen and is_counted and _killed(chosen) >= TARGET else 1


def _run_mutmut(processes: int, names: Sequence[str], *, is_checked: bool = True) -> None:
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", str(processes), *names]
    # It draws a line for each mutant: of use to somebody who watches, and to nobody else.
    output = None if sys.stdout.isatty() and is_checked else subprocess.DEVNULL
    subprocess.run(command, check=is_checked, stdout=output)


def _run_again_alone(names: Sequence[str]) -> None:
    stopped = [name for name, code in exit_codes().items() if end_of(code) is End.TIMED_OUT and _is_named(name, names)]
    if stopped:
        _run_mutmut(1, stopped)


def _is_named(name: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatch(name, pattern) for pattern in patterns)


def exit_codes(folder: Path = _MUTANTS) -> dict[str, int | None]:
    """By mutant; None where it was not run."""
    found: dict[str, int | None] = {}
    for path in sorted(folder.rglob("*.py.meta")):
        found |= json.loads(path.read_text())["exit_code_by_key"]
    return found


def end_of(code: int | None) -> End:
    return End.OTHER if code is None else _ENDS.get(code, End.OTHER)


def explanations(path: Path = _EXPLAINED) -> list[Explanation]:
    return [Explanation(**one) for one in json.loads(path.read_text())]


def change_of(name: str) -> Change:
    from mutmut.mutation.diff_apply import get_diff_for_mutant  # noqa: PLC0415 a report alone needs no mutmut

    module = name.rpartition(".")[0]
    lines = get_diff_for_mutant(name, path=Path(*module.split(".")).with_suffix(".py")).splitlines()[2:]
    was, becomes = (" ".join(line[1:].strip() for line in lines if line.startswith(mark)) for mark in "-+")
    return Change(function_of(name), was, becomes)


def function_of(name: str) -> str:
    """'service.ledger.holds.xǁOnHoldǁdecide__mutmut_4' → 'service.ledger.holds.OnHold.decide'."""
    module, _, mangled = name.rpartition("__mutmut_")[0].rpartition(".")
    return f"{module}.{mangled.removeprefix('x_').removeprefix('xǁ').replace('ǁ', '.')}"


def _killed(codes: Mapping[str, int | None]) -> float:
    return sum(end_of(code) is End.KILLED for code in codes.values()) / len(codes)


def report(
    codes: Mapping[str, int | None],
    known: int,
    changes: Mapping[str, Change],
    explained: Sequence[Explanation],
) -> str:
    """A line for each module, the whole with its margin of error, and those that live and are not explained."""
    if not codes:
        return "No mutant was run"
    lines = [f"{'module':<38}" + "".join(f"{title:>13}" for title in ("mutants", *_COLUMNS, "share"))]
    for module, ends in rows(codes):
        lines.append(f"{module:<38}" + "".join(f"{cell:>13}" for cell in _cells(ends)))
    lines.append(_summary(codes, known))
    unexplained = _unexplained(changes, explained)
    if unexplained:
        lines += ["", "Alive and not explained (mutmut show NAME prints the change):"]
        lines += [f"  {name}: {changes[name].was} → {changes[name].becomes}" for name in unexplained]
    return "\n".join(lines)


_COLUMNS = (End.KILLED, End.SURVIVED, End.TIMED_OUT, End.NOT_REACHED)


def rows(codes: Mapping[str, int | None]) -> list[tuple[str, Counter[End]]]:
    """By module, and the total at the end."""
    modules: dict[str, Counter[End]] = defaultdict(Counter)
    total: Counter[End] = Counter()
    for name, code in codes.items():
        modules[name.rpartition(".")[0]][end_of(code)] += 1
        total[end_of(code)] += 1
    return [*sorted(modules.items()), ("total", total)]


def _cells(ends: Counter[End]) -> list[str]:
    counts = [ends.total(), *(ends[column] for column in _COLUMNS)]
    return [*(f"{count:,}" for count in counts), f"{ends[End.KILLED] / ends.total():.1%}"]


def _summary(codes: Mapping[str, int | None], known: int) -> str:
    share = _killed(codes)
    # Of a whole run nothing is left to chance.
    margin = 0.0 if len(codes) == known else _SIGMAS * math.sqrt(share * (1 - share) / len(codes))
    return f"{len(codes):,} of {known:,} mutants, {share:.1%} killed (± {margin:.1%}), target {TARGET:.0%}"


def _unexplained(changes: Mapping[str, Change], explained: Sequence[Explanation]) -> list[str]:
    return [name for name, change in changes.items() if not any(one.covers(change) for one in explained)]


def write_page(
    path: Path,
    codes: Mapping[str, int | None],
    known: int,
    changes: Mapping[str, Change],
    explained: Sequence[Explanation],
) -> None:
    """Writes the table and those that live into the page; what people wrote around them stays."""
    page = path.read_text(encoding="utf-8")
    before, after = page.partition(_BEGIN)[0], page.partition(_END)[2]
    parts = [_stamp(codes, known), _table(codes), _explained_as_text(changes, explained)]
    unexplained = _unexplained(changes, explained)
    parts.append(_list_of("Alive, and not explained", (changes[name] for name in unexplained)))
    text = "\n\n".join(part for part in parts if part)
    path.write_text(f"{before}{_BEGIN}\n\n{text}\n\n{_END}{after}", encoding="utf-8")


def _stamp(codes: Mapping[str, int | None], known: int) -> str:
    commit = _COMMIT.read_text() if _COMMIT.exists() else "unknown"
    python = ".".join(map(str, sys.version_info[:3]))
    when = f"{datetime.now(UTC):%Y-%m-%d}"
    return f"{_summary(codes, known)}. {when}, commit {commit}, Python {python}, {os.cpu_count()} cores."


def _commit_now() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def _table(codes: Mapping[str, int | None]) -> str:
    titles = ("module", "mutants", *_COLUMNS, "share killed")
    lines = [_row(titles), _row(["---", *["---:"] * (len(titles) - 1)])]
    for module, ends in rows(codes):
        lines.append(_row([module if module == "total" else f"`{module}`", *_cells(ends)]))
    return "\n".join(lines)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _explained_as_text(changes: Mapping[str, Change], explained: Sequence[Explanation]) -> str:
    by_reason: dict[str, list[Change]] = defaultdict(list)
    for change in changes.values():
        reason = next((one.why for one in explained if one.covers(change)), None)
        if reason is not None:
            by_reason[reason].append(change)
    return "\n\n".join(_list_of(reason, found) for reason, found in by_reason.items())


def _list_of(title: str, changes: Iterable[Change]) -> str:
    """A heading with how many they are, and a line for each; the same change of one line is said once."""
    found = list(changes)
    if not found:
        return ""
    lines = [f"- `{one.function}`: `{was}` → `{becomes}`" for one in found for was, becomes in [_short(one)]]
    return "\n".join([f"**{title}** ({len(found)}):", "", *dict.fromkeys(lines)])


_SHOWN = 120
_BEFORE = 40


def _short(change: Change) -> tuple[str, str]:
    """For a line of the page. Of long ones what is alike is left out, but for some of it before the difference."""
    was, becomes = change.was.replace("`", "'"), change.becomes.replace("`", "'")
    start = 0
    if max(len(was), len(becomes)) > _SHOWN:
        differing = (place for place, pair in enumerate(zip(was, becomes, strict=False)) if pair[0] != pair[1])
        start = max(0, next(differing, 0) - _BEFORE)
    return _cut(was, start), _cut(becomes, start)


def _cut(text: str, start: int) -> str:
    end = start + _SHOWN
    return f"{'… ' * bool(start)}{text[start:end]}{' …' * (len(text) > end)}" or "nothing"


if __name__ == "__main__":
    sys.exit(main())
