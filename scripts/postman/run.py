"""`make postman`: run the Postman collection with Newman against the running stack.

BASE_URL names another one; what stands behind `ARGS=` goes to Newman.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import httpx

from scripts.postman.export import COLLECTION, POSTMAN_ENVIRONMENT
from scripts.stack import RunningStack
from scripts.stack_environment import DEFAULT_API_PORT, ROOT, data_dir_of, settings_around_us

NEWMAN: Final = Path(__file__).with_name("newman") / "node_modules" / ".bin" / "newman"
OLDEST_NODE: Final = 16  # Newman 6's
READY_LIMIT_S: Final = 5.0
# A run takes about half a minute; the bank's 10 s for each of six orders, with patience.
RUN_LIMIT_S: Final = 300


class CannotRunError(Exception):
    """Something is missing; the message says what to do about it."""


def main() -> int:
    try:
        base_url, webhook_secret = find_service()
        require_node()
        require_ready(base_url)
    except CannotRunError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    print(f"Running {COLLECTION.name} against {base_url}")
    with tempfile.TemporaryDirectory() as folder:
        # A file of our own: what stands on a command line can be read by everybody on the machine.
        environment = Path(folder) / POSTMAN_ENVIRONMENT.name
        environment.touch(mode=0o600)
        environment.write_text(filled_environment({"base_url": base_url, "bank_webhook_secret": webhook_secret}))
        command = [
            str(NEWMAN),
            "run",
            str(COLLECTION),
            "--environment",
            str(environment),
            "--timeout",
            str(RUN_LIMIT_S * 1000),
            "--reporter-cli-no-success-assertions",
            "--reporter-cli-no-banner",
            *sys.argv[1:],
        ]
        return subprocess.run(command, check=False, cwd=ROOT).returncode


def find_service() -> tuple[str, str]:
    """Where the service is, and the secret of its bank where that is ours to know."""
    if asked := os.environ.get("BASE_URL"):
        return asked.rstrip("/"), ""
    settings = settings_around_us()
    if state := RunningStack(data_dir_of(settings)).state():
        base_url, settings = state["base_url"], state["settings"]
    else:
        base_url = f"http://127.0.0.1:{settings.get('WALLET_PORT', DEFAULT_API_PORT)}"
    return base_url, settings.get("WALLET_BANK_WEBHOOK_SECRET", "")


def require_node() -> None:
    node = shutil.which("node")
    version = subprocess.run([node, "--version"], check=True, capture_output=True, text=True).stdout if node else ""
    major = re.match(r"v(\d+)", version)
    if major is None or int(major[1]) < OLDEST_NODE:
        raise CannotRunError(
            f"Newman needs Node.js {OLDEST_NODE} or newer, and {version.strip() or 'there is none'} here. "
            "Install it: https://nodejs.org"
        )
    if not NEWMAN.exists():
        raise CannotRunError("Newman is not installed: make postman does it.")


def require_ready(base_url: str) -> None:
    try:
        httpx.get(f"{base_url}/readyz", timeout=READY_LIMIT_S).raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise CannotRunError(
            f"The wallet service is not ready at {base_url} ({error}). Start it with make run or make up, "
            "or say where it is: make postman BASE_URL=http://127.0.0.1:8000"
        ) from error


def filled_environment(values: dict[str, str]) -> str:
    """The environment's file, with these in place of what stands there."""
    environment = json.loads(POSTMAN_ENVIRONMENT.read_text())
    for one in environment["values"]:
        one["value"] = values.get(one["key"], one["value"])
    return json.dumps(environment)


if __name__ == "__main__":
    sys.exit(main())
