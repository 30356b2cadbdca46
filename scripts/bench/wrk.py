"""Runs wrk, the load generator, and reads what its script prints."""

import json
import resource
import secrets
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

SCRIPT: Final = Path(__file__).with_name("load.lua")
_MARK: Final = "BENCH "
# Longer than any request lasts, the plain design's on one wallet included: what is slow is slow, and no error.
_TIMEOUT_S: Final = 60
# One thread sends more than 50,000 requests a second with this script; the service is far from that.
_THREADS: Final = 1


class WrkError(RuntimeError):
    """wrk is not there or did not work; the message says what to do."""


class Target(NamedTuple):
    """What requests go to, and the one status that is no error."""

    method: str
    url: str
    expected_status: int


class Measurement(NamedTuple):
    """One run of wrk. `requests` had the expected status; whatever else came of a request is one of `errors`."""

    seconds: float
    requests: int
    errors: int
    p50_ms: float
    p99_ms: float
    statuses: Mapping[int, int]
    wrk_cpu_s: float

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds


def find_wrk() -> str:
    path = shutil.which("wrk")
    if path is None:
        raise WrkError(
            "The bench needs the load generator wrk, which is not on PATH. On Debian and Ubuntu: apt-get install wrk; "
            "elsewhere: brew install wrk, or https://github.com/wg/wrk"
        )
    return path


def run_wrk(target: Target, requests: Path, connections: int, seconds: int) -> Measurement:
    """`requests`: a token, a tab and a body (or nothing) on each line."""
    # fmt: off
    command = [
        find_wrk(), "--threads", str(_THREADS), "--connections", str(connections), "--duration", f"{seconds}s",
        "--timeout", f"{_TIMEOUT_S}s", "--script", str(SCRIPT), target.url,
        # Keys are new in each run, and so is the order of users.
        "--", target.method, secrets.token_hex(6), str(requests), str(secrets.randbelow(2**31)),
    ]
    # fmt: on
    used_before_s = _children_cpu_s()
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise WrkError(f"wrk ended with status {ended.returncode}:\n{ended.stdout}{ended.stderr}")
    return parse(ended.stdout, target.expected_status, _children_cpu_s() - used_before_s)


def parse(output: str, expected_status: int, wrk_cpu_s: float = 0.0) -> Measurement:
    lines = [line.removeprefix(_MARK) for line in output.splitlines() if line.startswith(_MARK)]
    if len(lines) != 1:
        raise WrkError(f"wrk's script did not report; what wrk said:\n{output}")
    found: dict[str, Any] = json.loads(lines[0])
    statuses = {int(status): count for status, count in found["statuses"].items()}
    requests = statuses.get(expected_status, 0)
    broken = sum(found[kind] for kind in ("connect_errors", "read_errors", "write_errors", "timeouts"))
    return Measurement(
        seconds=found["duration_us"] / 1e6,
        requests=requests,
        errors=sum(statuses.values()) - requests + broken,
        p50_ms=found["p50_us"] / 1e3,
        p99_ms=found["p99_us"] / 1e3,
        statuses=statuses,
        wrk_cpu_s=wrk_cpu_s,
    )


def _children_cpu_s() -> float:
    """Of children that have ended and were waited for: between two looks, that is one wrk."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
