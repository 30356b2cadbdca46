"""Break each line of the rules in turn and see whether a test notices: python -m scripts.mutants.

Runs mutmut (its settings stand in pyproject.toml) over the ledger and the domain that it decides on, and prints what
was killed by module. Exits with 1 where fewer than TARGET were, or where a mutant ended in no way that can be counted.
`--sample 400` takes a random part, and says what margin of error that leaves; `--only "service.ledger.holds.*"` takes
one module.
"""

import argparse
import json
import math
import random
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

TARGET: Final = 0.95
_MUTANTS = Path("mutants")
# What mutmut notes of pytest's exit: a test failed or broke, and a mutant that hangs is noticed as well.
_KILLED = frozenset({1, 3, 24, 36, 152, 255, -24})
_SURVIVED = frozenset({0})
_UNTESTED = frozenset({5, 33})
# Two standard errors of a share.
_SIGMAS = 2.0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="*", default=[], metavar="PATTERN", help="names, with * as in a shell")
    parser.add_argument("--sample", type=int, metavar="N", help="this many of them, chosen at random")
    parser.add_argument("--seed", type=int, default=1, help="of the choice")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args(arguments)
    names: list[str] = options.only
    if options.sample is not None:
        # Mutants have to be there before some of them can be chosen.
        subprocess.run([*_mutmut(options.processes), "none.of.them"], check=False, stdout=subprocess.DEVNULL)
        known = sorted(exit_codes())
        names = random.Random(options.seed).sample(known, min(options.sample, len(known)))  # noqa: S311 no secret
    subprocess.run([*_mutmut(options.processes), *names], check=True)
    codes = exit_codes()
    chosen = {name: code for name, code in codes.items() if code is not None and (not names or _is_named(name, names))}
    print(report(chosen, len(codes)))
    return 0 if chosen and _killed(chosen) >= TARGET and not _uncounted(chosen) else 1


def _mutmut(processes: int) -> list[str]:
    return [sys.executable, "-m", "mutmut", "run", "--max-children", str(processes)]


def _is_named(name: str, patterns: Sequence[str]) -> bool:
    return any(Path(name).match(pattern) for pattern in patterns)


def exit_codes(folder: Path = _MUTANTS) -> dict[str, int | None]:
    """By mutant; None where it was not run."""
    found: dict[str, int | None] = {}
    for path in sorted(folder.rglob("*.py.meta")):
        found |= json.loads(path.read_text())["exit_code_by_key"]
    return found


def _killed(codes: Mapping[str, int | None]) -> float:
    return sum(code in _KILLED for code in codes.values()) / len(codes)


def _uncounted(codes: Mapping[str, int | None]) -> list[str]:
    return [name for name, code in codes.items() if code not in _KILLED | _SURVIVED | _UNTESTED]


def report(codes: Mapping[str, int | None], known: int) -> str:
    """A line for each module, the whole with its margin of error, and the names of those that live."""
    if not codes:
        return "No mutant was run"
    modules: dict[str, Counter[bool]] = defaultdict(Counter)
    for name, code in codes.items():
        modules[name.rpartition(".")[0]][code in _KILLED] += 1
    lines = [f"{'module':<40}{'mutants':>9}{'killed':>9}{'share':>8}"]
    for module, ends in sorted(modules.items()):
        lines.append(f"{module:<40}{ends.total():>9}{ends[True]:>9}{ends[True] / ends.total():>8.1%}")
    share = _killed(codes)
    # Of a whole run nothing is left to chance.
    margin = 0.0 if len(codes) == known else _SIGMAS * math.sqrt(share * (1 - share) / len(codes))
    lines.append(f"{len(codes)} of {known} mutants, {share:.1%} killed (± {margin:.1%}), target {TARGET:.0%}")
    alive = sorted(name for name, code in codes.items() if code not in _KILLED)
    if alive:
        lines += ["", "Alive (mutmut show NAME prints the change):", *(f"  {name}" for name in alive)]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
