"""Fuzz the API with schemathesis on a stack of its own: `make fuzz`, or `python -m scripts.fuzz --help`.

Every check and every phase that schemathesis has, as a user beside whom there is another one, and as an admin; with
limits off and a bank that is quick and pays.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from scripts.fuzz.run import CASES, IDENTITIES, Run, fuzz
from scripts.service_stack import NO_LIMITS, Stack

# What the issue of a public API owes its users; both identities together make about 9,000 with 20 a round.
CASES_LIMIT: Final = 2_000
# Calls that follow from one another come to an end early, since what they do stays done: so they are begun anew until
# the time is over.
_STATEFUL_S: Final = 60
_STACK_SETTINGS: Final = {
    "WALLET_ENV": "development",
    "WALLET_LOG_JSON": "true",
    "WALLET_BANK_DELAY_MIN_S": "0.02",
    "WALLET_BANK_DELAY_MAX_S": "0.2",
    "WALLET_BANK_SUCCESS_RATE": "1",
    "WALLET_BANK_TIMEOUT_RATE": "0",
    "WALLET_BANK_ERROR_RATE": "0",
    # Where webhook endpoints are (hooks.py): nothing else is asked for an address or sent anything.
    "WALLET_WEBHOOK_ALLOW_LOOPBACK": "true",
    # Fuzzing is what limits are there against.
    **NO_LIMITS,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=CASES, help=f"random ones per operation ({CASES})")
    parser.add_argument(
        "--stateful", type=int, default=_STATEFUL_S, help=f"seconds of the stateful phase ({_STATEFUL_S})"
    )
    parser.add_argument("--seed", type=int, help="the same cases again")
    parser.add_argument("--keep", type=Path, help="keep reports, logs and data in this folder")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wallet-fuzz-") as temporary:
        folder = chosen.keep or Path(temporary)
        with Stack(folder / "stack", settings=_STACK_SETTINGS) as stack:
            stack.start_servers()
            stack.migrate()
            stack.start_api()
            stack.start_worker()
            stack.seed()
            secret = stack.settings["WALLET_BANK_WEBHOOK_SECRET"]
            runs = []
            for identity in IDENTITIES:
                print(f"Fuzzing as {identity.name}, who is a demo user", flush=True)
                for phases in (("examples,coverage,fuzzing",), ("stateful", "--max-time", str(chosen.stateful))):
                    run = fuzz(
                        stack.base_url,
                        secret,
                        identity,
                        folder / f"{identity.name}-{phases[0]}",
                        cases=chosen.cases,
                        seed=chosen.seed,
                        options=["--phases", *phases],
                    )
                    print(run.output, flush=True)
                    runs.append(run)
    return _conclude(runs)


def _conclude(runs: Sequence[Run]) -> int:
    cases = sum(run.cases for run in runs)
    for run in runs:
        verdict = "nothing found" if run.is_clean else "FOUND SOMETHING, see above"
        print(f"{run.identity.name:6} {run.cases:7,} cases, {run.operations} operations: {verdict}")
    if cases < CASES_LIMIT:
        print(f"Only {cases:,} cases in all: {CASES_LIMIT:,} are the least.", file=sys.stderr)
    return int(cases < CASES_LIMIT or not all(run.is_clean for run in runs))


if __name__ == "__main__":
    sys.exit(main())
