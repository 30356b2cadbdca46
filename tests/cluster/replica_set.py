"""A replica set of three real members, from the same mongod and with the same settings as the embedded stack's one.

Members are killed, frozen and brought back one by one::

    with ReplicaSet(folder) as replica_set:
        dead = replica_set.primary()
        dead.kill()
        dead.start()
"""

import os
import secrets
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote

import pymongo
from pymongo.errors import OperationFailure, PyMongoError

from scripts.embedded import KEY_FILE_BYTES, REPLICA_SET, ROOT_USER, MongoServer
from scripts.server_process import LOOPBACK, free_port, private_value
from service.database import ELECTION_SETTINGS

MEMBERS: Final = 3
SERVICE_USER: Final = "wallet_service"
_SERVICE_PASSWORD: Final = "wallet-service-password"
_CACHE_GB: Final = 0.25
_ANSWER_LIMIT_MS: Final = 1_000
_LIMIT_S: Final = 90.0
_POLL_S: Final = 0.1

Admin = pymongo.MongoClient[dict[str, Any]]


class Member(MongoServer):
    """One mongod of the set. Ready when it answers: who is primary is for all of them to say."""

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)

    def client(self) -> Admin:
        """Root's, to this very member, whatever it is."""
        return self._client(root=True)

    def hello(self) -> dict[str, Any] | None:
        """None where it does not answer."""
        with self._client() as client:
            try:
                answer: dict[str, Any] = client.admin.command("hello")
            except PyMongoError:
                return None
            return answer

    def _wait_until_ready(self) -> None:
        self._wait_for("reachable", lambda: self.hello() is not None)


class ReplicaSet:
    """`addresses` are the ports at which members are known to each other and to clients: their own, or proxies'.

    `environments` has more for the environment of each member, in order.
    """

    def __init__(
        self,
        folder: Path,
        *,
        settings: Mapping[str, int] = ELECTION_SETTINGS,
        proxies: Callable[[Sequence[int]], Sequence[int]] | None = None,
        environments: Sequence[Mapping[str, str]] = ({},) * MEMBERS,
    ) -> None:
        self._settings = dict(settings)
        self.members = [Member(folder / f"member-{n}", free_port(), cache_gb=_CACHE_GB) for n in range(MEMBERS)]
        for member, environment in zip(self.members, environments, strict=True):
            member.own_environment = environment
        ports = [member.port for member in self.members]
        self.addresses = list(ports if proxies is None else proxies(ports))
        key, password = secrets.token_hex(KEY_FILE_BYTES // 2), secrets.token_urlsafe(24)
        for member in self.members:
            private_value(member.data_dir / "keyfile", lambda: key)
            private_value(member.data_dir / "root-password", lambda: password)
        self.root_password = password

    @property
    def url(self) -> str:
        """The service's."""
        return self._url_for(SERVICE_USER, _SERVICE_PASSWORD)

    @property
    def admin_url(self) -> str:
        return self._url_for(ROOT_USER, self.root_password)

    def _url_for(self, user: str, password: str) -> str:
        hosts = ",".join(f"{LOOPBACK}:{port}" for port in self.addresses)
        credentials = f"{quote(user, safe='')}:{quote(password, safe='')}"
        return f"mongodb://{credentials}@{hosts}/?authSource=admin&replicaSet={REPLICA_SET}"

    def start(self) -> Self:
        """All of them, the first time as a new set."""
        self.start_members(self.members)
        with self.members[0]._client() as client:
            try:
                client.admin.command("replSetInitiate", self._config())
            except OperationFailure:  # initiated already: it asks for a login
                return self
        primary = self.primary()
        with primary._client() as client:
            client.admin.command("createUser", ROOT_USER, pwd=self.root_password, roles=["root"])
        return self

    def start_members(self, members: Sequence[Member]) -> None:
        """At once: each waits for the others when it is primary."""
        with ThreadPoolExecutor(len(members)) as threads:
            list(threads.map(Member.start, members))

    def _config(self) -> dict[str, Any]:
        members = [{"_id": number, "host": f"{LOOPBACK}:{port}"} for number, port in enumerate(self.addresses)]
        return {"_id": REPLICA_SET, "members": members, "settings": self._settings}

    def primary(self, limit_s: float = _LIMIT_S) -> Member:
        """The one that takes writes and that a majority follows; waits for it."""
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            found = [(hello["electionId"], member) for member in self.members if (hello := _primary_hello(member))]
            if found:
                return max(found, key=lambda one: one[0])[1]
            time.sleep(_POLL_S)
        raise TimeoutError(f"no primary within {limit_s:.0f} s")

    def secondaries(self) -> list[Member]:
        primary = self.primary()
        return [member for member in self.members if member is not primary]

    def wait_until_whole(self, limit_s: float = _LIMIT_S) -> None:
        """Every member is primary or secondary again."""
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            hellos = [member.hello() for member in self.members if member.is_running]
            states = [hello is not None and (hello["isWritablePrimary"] or hello["secondary"]) for hello in hellos]
            if len(states) == MEMBERS and all(states):
                return
            time.sleep(_POLL_S)
        raise TimeoutError(f"the set is not whole after {limit_s:.0f} s")

    def stop(self) -> None:
        """Whatever state they are in. A frozen process is told to go on first: it could not end."""
        for member in self.members:
            if member.is_running:
                member.resume()
                member.kill()
            else:
                member.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def _primary_hello(member: Member) -> dict[str, Any] | None:
    if not member.is_running:
        return None
    hello = member.hello()
    return hello if hello is not None and hello["isWritablePrimary"] else None
