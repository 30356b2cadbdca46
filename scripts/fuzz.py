"""Fuzz the API with schemathesis on a stack of its own: `make fuzz`, or `python -m scripts.fuzz --help`.

Every check and every phase that schemathesis has, as a user beside whom there is another one, and as an admin; with
limits off and a bank that is quick and pays. What the document promises is all that schemathesis goes by.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx

from scripts.fuzz_hooks import IDS, WEBHOOK_SECRET
from scripts.service_stack import Stack
from seed.demo_users import DEMO_USERS

_CONFIG: Final = Path(__file__).with_name("schemathesis.toml")
_ROOT: Final = _CONFIG.parents[1]
# What the issue of a public API owes its users; both identities together make about 9,000 with 20 a round.
CASES_LIMIT: Final = 2_000
_CASES: Final = 20
# Calls that follow from one another come to an end early, since what they do stays done: so they are begun anew until
# the time is over.
_STATEFUL_S: Final = 60
# One: of several threads that parse Python at once, CPython 3.11 fails one now and then ("AST constructor recursion
# depth mismatch"), and generating is work that threads share anyway.
_WORKERS: Final = 1
_STACK_SETTINGS: Final = {
    "WALLET_ENV": "development",
    "WALLET_LOG_JSON": "true",
    "WALLET_BANK_DELAY_MIN_S": "0.02",
    "WALLET_BANK_DELAY_MAX_S": "0.2",
    "WALLET_BANK_SUCCESS_RATE": "1",
    "WALLET_BANK_TIMEOUT_RATE": "0",
    "WALLET_BANK_ERROR_RATE": "0",
    # Fuzzing is what limits are there against.
    "WALLET_RATE_LIMIT_GLOBAL": "0",
    "WALLET_RATE_LIMIT_USER": "0",
    "WALLET_RATE_LIMIT_ADDRESS": "0",
    "WALLET_RATE_LIMIT_LOGIN": "0",
    "WALLET_RATE_LIMIT_BALANCE": "0",
    "WALLET_RATE_LIMIT_TRANSACTIONS": "0",
    "WALLET_LOGIN_TRIES": "0",
}


class Identity(NamedTuple):
    """Who fuzzes, and which others must not see what is theirs; by first name, from the demo users."""

    name: str
    peers: tuple[str, ...] = ()


# Who gets what they transfer: none of the peers, who would be right to see it.
_RECIPIENT: Final = "dina"
_TIMEOUT_S: Final = 30
# Not Asha: her password is the one of the document's examples, and one of them changes it.
IDENTITIES: Final = (Identity("bo", ("bo", "chen")), Identity("ines"))


class Run(NamedTuple):
    identity: Identity
    is_clean: bool
    cases: int
    operations: int
    output: str


def fuzz(
    base_url: str,
    webhook_secret: str,
    identity: Identity,
    folder: Path,
    *,
    cases: int = _CASES,
    seed: int | None = None,
    document: Path | None = None,
    options: Sequence[str] = (),
) -> Run:
    """One run of schemathesis against an API with the demo users in it; `folder` gets its report and its files.

    By the API's own document, unless another one is given.
    """
    folder.mkdir(parents=True, exist_ok=True)
    report = folder / "report.json"
    config = folder / "schemathesis.toml"
    config.write_text(_CONFIG.read_text(encoding="utf-8") + _auth_section(identity, folder), encoding="utf-8")
    # fmt: off
    command = [
        sys.executable, "-m", "schemathesis.cli", "--no-color", "--config-file", str(config),
        "run", str(document or f"{base_url}/openapi.json"), "--url", base_url,
        "--workers", str(_WORKERS),
        "--max-examples", str(cases),
        "--report", "json", "--report-json-path", str(report),
        *options,
    ]
    # fmt: on
    if seed is not None:
        command += ["--seed", str(seed)]
    python_path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
    secrets = {WEBHOOK_SECRET: webhook_secret, IDS: json.dumps(_ids(base_url, identity))}
    environment = {**os.environ, **secrets, "PYTHONPATH": python_path}
    done = subprocess.run(  # its files go where nobody looks for them
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if not report.exists():
        # It did not come as far as fuzzing.
        return Run(identity, is_clean=False, cases=0, operations=0, output=done.stdout)
    told = json.loads(report.read_text(encoding="utf-8"))
    cases_made, operations = told["test_cases"]["generated"], told["operations"]["tested"]
    return Run(identity, done.returncode == 0, cases_made, operations, done.stdout)


def _ids(base_url: str, identity: Identity) -> dict[str, str]:
    """What is there, by the names that parameters and fields have."""
    with httpx.Client(base_url=f"{base_url}/api/v1", timeout=_TIMEOUT_S) as api:
        own, other = _account(api, identity.name), _account(api, _RECIPIENT)
        return {
            "email": own.email,
            "password": own.password,
            "user_id": own.user_id,
            "other_user_id": other.user_id,
            "wallet_id": own.wallet_id,
            "from_wallet_id": own.wallet_id,
            "to_wallet_id": other.wallet_id,
        }


class _Account(NamedTuple):
    email: str
    password: str
    user_id: str
    wallet_id: str


def _account(api: httpx.Client, name: str) -> _Account:
    (user,) = [user.registration for user in DEMO_USERS if user.registration.email.startswith(f"{name}@")]
    login = api.post("/auth/login", json={"email": user.email, "password": user.password}).raise_for_status().json()
    headers = {"Authorization": f"Bearer {login['access_token']}"}
    wallets = api.get("/wallets", headers=headers).raise_for_status().json()["data"]
    wallet_id = next(one["id"] for one in wallets if one["currency"] == "INR")
    return _Account(user.email, user.password, login["user"]["id"], wallet_id)


def _auth_section(identity: Identity, folder: Path) -> str:
    """The demo users in the format of Web Fuzzing Commons: schemathesis logs in, and again when a token has ended."""
    entries = [_login(user.registration.email, user.registration.password) for user in DEMO_USERS]
    users = folder / "users.json"
    users.write_text(json.dumps({"auth": entries}), encoding="utf-8")
    peers = f"peers = {json.dumps(identity.peers)}\n" if identity.peers else ""
    return f'\n[auth.wfc]\npath = "{users}"\nuser = "{identity.name}"\n{peers}'


def _login(email: str, password: str) -> dict[str, Any]:
    return {
        "name": email.partition("@")[0],
        "loginEndpointAuth": {
            "endpoint": "/api/v1/auth/login",
            "verb": "POST",
            "contentType": "application/json",
            "payloadRaw": json.dumps({"email": email, "password": password}),
            "token": {
                "extractFrom": "body",
                "extractSelector": "/access_token",
                "sendIn": "header",
                "sendName": "Authorization",
                "sendTemplate": "Bearer {token}",
            },
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=_CASES, help=f"random ones per operation ({_CASES})")
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
