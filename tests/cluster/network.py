"""A network to and between the members of a replica set, in which any way can be cut without anybody being told.

One process (`python -m tests.cluster.network`) forwards every connection. A way that is cut carries nothing, not even
the end of a connection, and closes nothing: both ends go on believing in it, as they do when a cable is pulled. When
it is mended, what was on the way arrives late. The process reads orders from its standard input, one JSON a line, and
answers each with a line.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from scripts.embedded import free_port
from scripts.server_process import LOOPBACK

# Whoever is no member: APIs, workers and tests.
OUTSIDE: Final = -1
_CHUNK: Final = 65_536
_TCP: Final = Path("/proc/net/tcp")

_Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Way(NamedTuple):
    """From whom to which member, by number; `OUTSIDE` for who is none."""

    source: int
    target: int


class Network:
    """The end of tests. `addresses` has a port for each member, in order; known after `open`."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._pids: dict[int, int] = {}

    def open(self, targets: Sequence[int]) -> list[int]:
        """Starts to forward to these ports; where to connect to instead of each."""
        addresses = [free_port() for _ in targets]
        self._process = subprocess.Popen(  # noqa: S603 this very module
            [sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._order(listen=[[address, target] for address, target in zip(addresses, targets, strict=True)])
        return addresses

    def know_members(self, pids: Sequence[int]) -> None:
        """Whose connections are whose: they all come from one address."""
        self._pids = dict(enumerate(pids))

    def cut(self, ways: Sequence[Way]) -> None:
        self._order(cut=ways, pids=list(self._pids.values()))

    def isolate(self, member: int) -> None:
        """Neither members nor anybody else reach it, nor it them."""
        others = [OUTSIDE, *(other for other in self._pids if other != member)]
        self.cut([Way(other, member) for other in others] + [Way(member, other) for other in others[1:]])

    def mend(self) -> None:
        self._order(cut=[], pids=[])

    def close(self) -> None:
        if self._process is not None:
            # Its input's end is its own.
            self._process.communicate()

    def _order(self, **order: Any) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Connection:
    """Both halves of one. `is_open` is not set while its way is cut."""

    def __init__(self, peer_port: int, address: int, target: int) -> None:
        self.peer_port, self.address, self.target = peer_port, address, target
        self.is_open = asyncio.Event()
        self.is_open.set()


def _owners(pids: Sequence[int]) -> dict[tuple[int, int], int]:
    """Which member has the socket between two ports of this machine, its own first; by number.

    Of all of them at once, proc(5): one look for each connection would hold the network up for longer than an
    election waits.
    """
    inodes = {inode: number for number, pid in enumerate(pids) for inode in _sockets(pid)}
    owners = {}
    for line in _TCP.read_text().splitlines()[1:]:
        fields = line.split()
        if (number := inodes.get(fields[9])) is not None:
            local, remote = (int(field.split(":")[1], 16) for field in fields[1:3])
            owners[local, remote] = number
    return owners


def _sockets(pid: int) -> list[str]:
    found = []
    for entry in os.scandir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(entry.path)  # noqa: PTH115 some thousand of them
        except FileNotFoundError:  # closed meanwhile
            continue
        if target.startswith("socket:["):
            found.append(target[8:-1])
    return found


class _Forwarder:
    def __init__(self) -> None:
        self._connections: set[_Connection] = set()
        self._cut: frozenset[Way] = frozenset()
        self._pids: list[int] = []

    async def obey(self, order: dict[str, Any]) -> None:
        for number, (address, target) in enumerate(order.get("listen", ())):
            await asyncio.start_server(self._serving(number, address, target), LOOPBACK, address)
        if "cut" in order:
            self._cut, self._pids = frozenset(Way(*way) for way in order["cut"]), order["pids"]
            owners = _owners(self._pids)
            for connection in self._connections:
                self._set(connection, owners)

    def _serving(self, number: int, address: int, target: int) -> _Serve:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = _Connection(writer.get_extra_info("peername")[1], address, number)
            self._connections.add(connection)
            if any(way.target == number for way in self._cut):
                self._set(connection, _owners(self._pids))
            try:
                await connection.is_open.wait()
                there, back = await asyncio.open_connection(LOOPBACK, target)
                await asyncio.gather(_pump(connection, reader, back), _pump(connection, there, writer))
            except OSError:
                writer.close()
            finally:
                self._connections.discard(connection)

        return serve

    def _set(self, connection: _Connection, owners: Mapping[tuple[int, int], int]) -> None:
        source = owners.get((connection.peer_port, connection.address), OUTSIDE)
        if Way(source, connection.target) in self._cut:
            connection.is_open.clear()
        else:
            connection.is_open.set()


async def _pump(connection: _Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(_CHUNK):
            await connection.is_open.wait()
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    # The end of a connection is no more heard through a cut than anything else.
    await connection.is_open.wait()
    writer.close()


async def _main() -> None:
    forwarder = _Forwarder()
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    while line := await orders.readline():
        await forwarder.obey(json.loads(line))
        print("done", flush=True)  # noqa: T201 its way to speak
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(_main())
