"""Ends the open transactions of processes that died, so that others need not wait until MongoDB does.

MongoDB keeps a dead client's transaction, and with it the locks on its documents, for transactionLifetimeLimitSeconds.
So every ledger publishes the session of its transactions, with a heartbeat. A ledger that loses to a lock looks for
dead owners and ends their sessions. That loses nothing: an open transaction is rolled back whole, an owner that is
alive after all begins it anew, and a committed one can no longer be ended.

A process that lives may leave one behind as well, where an outage keeps the server from hearing of its end. So a ledger
ends the sessions that it has dropped in the same way, as soon as the server answers again.
"""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from enum import Enum
from pathlib import Path
from time import monotonic
from uuid import uuid4

import pymongo
import structlog
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import PyMongoError

from service.background import end
from service.database import Client
from service.domain.ledger_processes import LedgerProcess
from service.repositories import ledger_processes as process_repository
from service.transaction_lifetime import TRANSACTION_LIFETIME_S, LifetimeWatch

log = structlog.get_logger()

_BEAT_S = 0.5
# Three beats may be late, on a busy machine or behind a slow commit.
_SILENT_S = 2.0
# On an overloaded machine every heartbeat is late. After this time the server has aborted the transaction, and the pid
# may have been reused.
_SILENT_AND_RUNNING_S = 2.0 * TRANSACTION_LIFETIME_S
# Conflicts come by the hundred; who is dead is the same for all of them.
_LOOK_EVERY_S = 0.2
_CALL_S = 2.0
# A server that is there answers something small in milliseconds, on a busy machine in some hundred. A heartbeat that is
# lost ends after as long: the next one still comes before `_SILENT_S`.
_ANSWER_S = 1.0
# An election may make a member primary that nobody has set up.
_LIFETIME_EVERY_S = 30.0
# The server itself has ended by then what a dropped session had open: it looks every second. Bounds the list too.
_DROPPED_KEPT_S = TRANSACTION_LIFETIME_S + 5.0


class LedgerSession:
    """The session that a ledger's transactions run in, one after the other, and what is known of other ledgers'."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.id = uuid4().hex
        self._pid_space = _pid_space()
        self._session: AsyncClientSession | None = None
        # With when each was dropped. Until they are ended the driver cannot use their ids for anything else.
        self._dropped: list[tuple[float, AsyncClientSession]] = []
        # Set when the heartbeat has other sessions to publish.
        self._changed = asyncio.Event()
        self._has_dropped = asyncio.Event()
        self._tasks: tuple[asyncio.Task[None], ...] = ()
        self._failed_steps: set[str] = set()
        self._looked_at_s = -_LOOK_EVERY_S
        # Rows already logged.
        self._unreadable: frozenset[str] = frozenset()
        self._lifetimes = LifetimeWatch(client)

    def start(self) -> None:
        """Starts one task for each kind of upkeep: a slow call of another kind must not delay the heartbeat."""
        self._tasks = (
            asyncio.create_task(self._beat_for_ever(), name="ledger heartbeat"),
            asyncio.create_task(self._end_left_open(), name="ledger sessions left open"),
            asyncio.create_task(self._watch_lifetime(), name="ledger transaction lifetime"),
        )

    async def close(self) -> None:
        """Ends the session and removes the heartbeat, so that nobody takes this process for dead."""
        if self._tasks:
            await end(*self._tasks)
        self.drop()
        with suppress(PyMongoError), pymongo.timeout(_CALL_S):
            await self._end_dropped()
            await process_repository.remove(self.id)

    def open(self) -> AsyncClientSession:
        """The current session, or a new one after `drop`. The heartbeat publishes a new one at once."""
        if self._session is None:
            # What a transaction reads is decided by its own snapshot.
            self._session = self._client.start_session(causal_consistency=False)
            self._changed.set()
        return self._session

    def drop(self) -> None:
        """Gives the session up after an outage: another server may be the primary now, and not know it.

        The server may not have heard that its transaction has ended, so it is ended there at the next contact.
        """
        session, self._session = self._session, None
        if session is not None:
            self._dropped.append((monotonic(), session))
            self._changed.set()
            self._has_dropped.set()

    async def is_answered(self) -> bool:
        """Tells whether the server answers a small read at once."""
        try:
            with pymongo.timeout(_ANSWER_S):
                await process_repository.touch()
        except PyMongoError:
            return False
        return True

    async def _end_dropped(self) -> None:
        """Ends at the server what dropped sessions may have left open there. Raises PyMongoError in an outage."""
        kept_since_s = monotonic() - _DROPPED_KEPT_S
        self._dropped = [(at_s, session) for at_s, session in self._dropped if at_s > kept_since_s]
        dropped = list(self._dropped)
        if not dropped:
            return
        await process_repository.end_transactions(self._client, [_id_of(session) for _, session in dropped])
        self._dropped = [one for one in self._dropped if one not in dropped]
        for _, session in dropped:
            await session.end_session()
        self._changed.set()

    async def _beat_for_ever(self) -> None:
        while True:
            self._changed.clear()
            due_s = monotonic() + _BEAT_S
            await self._take_step("beat", self._beat, _ANSWER_S)
            await _wait(self._changed, due_s - monotonic())

    async def _beat(self) -> None:
        sessions = [session for _, session in self._dropped] + ([self._session] if self._session else [])
        known = [_id_of(session) for session in sessions]
        await process_repository.beat(self.id, socket.gethostname(), os.getpid(), self._pid_space, known)

    async def _end_left_open(self) -> None:
        # The process that this one replaces may have left a transaction open.
        await self.end_the_dead()
        while True:
            await _wait(self._has_dropped, _BEAT_S)
            self._has_dropped.clear()
            await self._take_step("end dropped sessions", self._end_dropped)

    async def _watch_lifetime(self) -> None:
        """Checks the server's transaction lifetime every 30 s."""
        while True:
            await self._take_step("watch the lifetime of transactions", self._lifetimes.look)
            await asyncio.sleep(_LIFETIME_EVERY_S)

    async def _take_step(self, name: str, step: Callable[[], Awaitable[None]], limit_s: float = _CALL_S) -> None:
        """Ignores outages: whatever has work to do logs them. Logs any other error once for each name."""
        try:
            with pymongo.timeout(limit_s):
                await step()
        except PyMongoError:
            return
        except Exception as error:  # noqa: BLE001 the next step must come, or the others take this process for dead
            if name not in self._failed_steps:
                self._failed_steps.add(name)
                log.warning("ledger.upkeep_failed", step=name, error=repr(error))

    async def end_the_dead(self) -> None:
        """Ends what dead processes and this one's dropped sessions have open. Every 0.2 s at most; ignores outages."""
        if monotonic() - self._looked_at_s < _LOOK_EVERY_S:
            return
        self._looked_at_s = monotonic()
        try:
            with pymongo.timeout(_CALL_S):
                await self._end_dropped()
                await self._end_those_found()
        except PyMongoError:
            return
        except Exception as error:  # noqa: BLE001 a row that cannot be read must not stop the ledger
            log.warning("ledger.dead_owners_unknown", error=repr(error))

    async def _end_those_found(self) -> None:
        others = await process_repository.find_others(self.id)
        for row_id in others.unreadable.keys() - self._unreadable:
            log.warning("ledger.process_unreadable", process_id=row_id, error=others.unreadable[row_id])
        self._unreadable = frozenset(others.unreadable)
        for process, silent_s in others.silent_s:
            if not self._is_dead(process, silent_s):
                continue
            if process.session_ids:
                await process_repository.end_transactions(self._client, process.session_ids)
            await process_repository.remove(process.id)
            log.warning(
                "ledger.dead_owner_ended", host=process.host, pid=process.pid, silent_s=round(max(0.0, silent_s), 1)
            )

    def _is_dead(self, process: LedgerProcess, silent_s: float) -> bool:
        """Tells whether the process is dead: by pid on the same boot and container, otherwise by its heartbeat.

        A process that is stopped is as good as dead once it is silent. One that runs is alive, however slow it is.
        """
        if self._pid_space is None or process.pid_space != self._pid_space:
            return silent_s > _SILENT_S
        match _state_of(process.pid):
            case ProcessState.GONE:
                return True
            case ProcessState.STOPPED:
                return silent_s > _SILENT_S
            case ProcessState.MAY_RUN:
                return silent_s > _SILENT_AND_RUNNING_S


class ProcessState(Enum):
    GONE = "gone"
    STOPPED = "stopped"
    MAY_RUN = "may run"


async def _wait(event: asyncio.Event, limit_s: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), max(0.0, limit_s))


def _id_of(session: AsyncClientSession) -> bytes:
    return bytes(session.session_id["id"])


def _pid_space() -> str | None:
    """Names this boot and this container, within which a pid is unique; None where this is not Linux."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def _state_of(pid: int) -> ProcessState:
    """A zombie, for which its parent has not waited yet, is gone. SIGSTOP and a debugger stop a process.

    /proc may hide what other users run (`hidepid`, systemd's ProtectProc): what it does not show may run.
    """
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return ProcessState.GONE
    except PermissionError:
        pass  # Another user's.
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ProcessState.MAY_RUN
    # 'pid (name) state …'; a name may hold anything.
    state = status.rpartition(")")[2].split()[0]
    if state in ("Z", "X"):
        return ProcessState.GONE
    return ProcessState.STOPPED if state in ("T", "t") else ProcessState.MAY_RUN
