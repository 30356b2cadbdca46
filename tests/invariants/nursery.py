"""Real APIs and workers that start in a blink: forked from a process that has imported all they need.

`python -m tests.invariants.nursery` reads one order a line from its standard input, `{"number": 1, "program": "api" |
"worker", "environment": {…}, "log": path}`, and prints the number with the id of the process; that with its exit code
when it ends. A child that is told to die dies alone, as it would anywhere; all of them die with their parent.
"""

import asyncio
import ctypes
import itertools
import json
import os
import select
import signal
import sys
import threading
from pathlib import Path
from typing import Any, Self, cast

from scripts.server_process import LOOPBACK, tail
from scripts.service_stack import api_options
from service.settings import get_settings

_PR_SET_PDEATHSIG = 1
_STARTED, _ENDED = "started", "ended"
_LOOK_S = 0.01


class Nursery:
    """The other end, for tests."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count(1)
        self._starts: dict[int, asyncio.Future[int]] = {}
        self._exits: dict[int, asyncio.Future[int]] = {}

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", __name__, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._process.kill()
        await self._process.wait()
        await self._reader

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            event, *numbers = line.decode().split()
            if event == _STARTED:
                number, pid = map(int, numbers)
                self._exits[pid] = asyncio.get_running_loop().create_future()
                self._starts.pop(number).set_result(pid)
            else:
                pid, code = map(int, numbers)
                self._exits[pid].set_result(code)

    async def start(self, program: str, environment: dict[str, str]) -> int:
        """The id of the process."""
        assert self._process.stdin is not None
        number = next(self._numbers)
        log = str(self._folder / f"{program}.log")
        order = {"number": number, "program": program, "environment": environment, "log": log}
        self._starts[number] = asyncio.get_running_loop().create_future()
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        # By its number: whoever comes while another is being told would else get that one's process.
        return await self._starts[number]

    def log(self, program: str) -> str:
        return tail(self._folder / f"{program}.log")

    def has_ended(self, pid: int) -> bool:
        return self._exits[pid].done()

    async def ended(self, pid: int, limit_s: float) -> int:
        """Its exit code; negative where a signal ended it. Raises TimeoutError."""
        return await asyncio.wait_for(asyncio.shield(self._exits[pid]), limit_s)

    async def stop(self, pid: int, limit_s: float) -> None:
        if not self.has_ended(pid):
            os.kill(pid, signal.SIGTERM)
        await self.ended(pid, limit_s)


def _import_everything() -> None:
    """None of it opens a connection or starts a thread: what is forked has to be one quiet thread."""
    import uvicorn  # noqa: F401, PLC0415
    import uvloop  # noqa: F401, PLC0415

    import workers.main  # noqa: F401, PLC0415

    assert threading.active_count() == 1


def _run(order: dict[str, Any]) -> None:
    """In the child; never returns."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ |= order["environment"]
    # They were read when the modules were imported, in another environment.
    get_settings.cache_clear()
    try:
        (_run_api if order["program"] == "api" else _run_worker)()
    except SystemExit as stop:
        os._exit(stop.code if isinstance(stop.code, int) else 1)
    except BaseException:  # noqa: BLE001 nobody is above this
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    os._exit(0)


def _run_api() -> None:
    import uvicorn  # noqa: PLC0415

    options = api_options(host=LOOPBACK, port=int(os.environ["WALLET_PORT"]))
    uvicorn.main(options, prog_name="uvicorn")


def _run_worker() -> None:
    from arq.worker import run_worker  # noqa: PLC0415

    from service.gateways.job_queue import redis_settings  # noqa: PLC0415
    from workers.main import WorkerSettings  # noqa: PLC0415

    WorkerSettings.redis_settings = redis_settings(get_settings(), retries=600)
    run_worker(cast(Any, WorkerSettings))


def main() -> None:
    """One thread, since a fork takes only one along."""
    _import_everything()
    orders = b""
    running: set[int] = set()
    while True:
        if select.select([0], [], [], _LOOK_S)[0]:
            read = os.read(0, 65_536)
            if not read:
                return
            orders += read
        while b"\n" in orders:
            line, _, orders = orders.partition(b"\n")
            order = json.loads(line)
            pid = os.fork()
            if pid == 0:
                _run(order)
            running.add(pid)
            print(_STARTED, order["number"], pid, flush=True)  # noqa: T201 its way to speak
        for pid in list(running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                running.remove(pid)
                print(_ENDED, pid, os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
