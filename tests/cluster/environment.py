"""A whole cluster as real processes: a replica set of three, Redis, two APIs and two workers, to be broken at will."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Self

import httpx

from scripts.embedded import free_port
from scripts.server_process import LOOPBACK
from scripts.service_stack import API, READY_ATTEMPT_S, WORKER, Stack, api_options
from tests.cluster.replica_set import ReplicaSet
from tests.stack_fixtures import QUICK_BANK

APIS: Final = (API, "api-2")
WORKERS: Final = (WORKER, "worker-2")
_READY_LIMIT_S: Final = 90.0
_POLL_S: Final = 0.05

_SETTINGS = QUICK_BANK | {
    # A fault must not use up the patience of operations that only have to wait.
    "WALLET_BANK_ATTEMPT_LIMIT": "15",
    # On a busy machine too, a bank that is up answers within it.
    "WALLET_BANK_TIMEOUT_S": "3",
    "WALLET_BANK_RECHECK_S": "4",
}


class _Programs(Stack):
    """Each program may have something in its environment that the others have not."""

    own_environment: Mapping[str, Mapping[str, str]] = {}

    def environment_of(self, name: str, command: Sequence[str]) -> dict[str, str]:
        return {**super().environment_of(name, command), **self.own_environment.get(name, {})}


class Cluster:
    """Starts whole; whatever a fault has done to it, `stop` ends every process of it."""

    def __init__(
        self,
        folder: Path,
        replica_set: ReplicaSet,
        *,
        settings: Mapping[str, str] | None = None,
        own_environment: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self.replica_set = replica_set
        urls = {"WALLET_MONGO_URL": replica_set.url, "WALLET_MONGO_ADMIN_URL": replica_set.admin_url}
        self.stack = _Programs(folder, settings={**_SETTINGS, **urls, **(settings or {})})
        self.stack.own_environment = own_environment or {}
        self._ports = {API: self.stack.api_port, "api-2": free_port()}

    @property
    def base_urls(self) -> list[str]:
        return [f"http://{LOOPBACK}:{port}" for port in self._ports.values()]

    async def start(self) -> Self:
        await asyncio.to_thread(self.replica_set.start)
        self.stack.start_servers()
        await asyncio.to_thread(self.stack.migrate)
        for name in (*APIS, *WORKERS):
            self.start_program(name)
        await self.wait_until_ready()
        return self

    def start_program(self, name: str) -> None:
        if name in APIS:
            options = api_options(host=LOOPBACK, port=self._ports[name])
            self.stack.start(name, [sys.executable, "-m", "uvicorn", *options])
        else:
            self.stack.start_worker(name)

    def kill(self, name: str) -> None:
        self.stack.kill(name)

    def freeze(self, name: str) -> None:
        os.killpg(self.stack.children[name].pid, signal.SIGSTOP)

    def resume(self, name: str) -> None:
        os.killpg(self.stack.children[name].pid, signal.SIGCONT)

    async def restart(self, name: str) -> None:
        """As a deployment does: it is asked to end, and a new one takes its place."""
        await asyncio.to_thread(self.stack.stop, name)
        self.start_program(name)
        await self.wait_until_ready()

    async def wait_until_ready(self) -> None:
        """Until every API says that it is."""
        deadline = time.monotonic() + _READY_LIMIT_S
        async with httpx.AsyncClient(timeout=READY_ATTEMPT_S) as http:
            for url in self.base_urls:
                while not await _is_ready(http, url):
                    assert time.monotonic() < deadline, f"{url} is not ready after {_READY_LIMIT_S:.0f} s"
                    await asyncio.sleep(_POLL_S)

    def cut_power(self) -> None:
        """SIGKILL to every process at once, and nothing is said to any before."""
        redis = self.stack.redis
        assert redis is not None
        servers = [redis, *self.replica_set.members]
        for pid in [child.pid for child in self.stack.children.values()]:
            os.killpg(pid, signal.SIGKILL)
        for server in servers:
            assert server.process is not None
            server.process.kill()
        for server in servers:
            server.kill()
        for name in self.stack.children:
            self.stack.kill(name)

    async def restore_power(self) -> None:
        """All servers and programs at once, as a machine starts them."""
        redis = self.stack.redis
        assert redis is not None
        members = asyncio.to_thread(self.replica_set.start_members, self.replica_set.members)
        await asyncio.gather(members, asyncio.to_thread(redis.start))
        for name in (*APIS, *WORKERS):
            self.start_program(name)
        await self.wait_until_ready()

    def stop(self) -> None:
        for name in list(self.stack.children):
            if self.stack.is_running(name):
                # A frozen process does not hear that it should end.
                self.resume(name)
        self.stack.stop_all()
        self.replica_set.stop()


async def _is_ready(http: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await http.get(f"{url}/readyz")).is_success
    except httpx.TransportError:
        return False
