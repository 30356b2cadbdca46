"""Each gap between two steps that are not one: the real API or worker dies in it, and all ends as if it had not.

For each outcome of an operation, one process after the other is told to die at a point that such an operation passes;
the next one has to make good what it left. In the end nothing tells that anybody died.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import uuid4

import httpx
import pytest
from pymongo.asynchronous.collection import AsyncCollection

from scripts.check_ledger import check_ledger
from scripts.embedded import free_port
from scripts.server_process import LOOPBACK
from scripts.service_stack import Stack
from scripts.stack_environment import environment_for
from service.crash_points import EXIT_CODE, CrashPoint
from service.database import Databases
from service.domain.clock import utc_now
from tests.invariants.nursery import Nursery
from tests.person import Person
from tests.receivers import Receiver, running_receiver
from tests.stack_fixtures import QUICK_BANK, databases_of

# A person has to look at nothing here, however often processes die.
_SETTINGS = QUICK_BANK | {
    "WALLET_BANK_ATTEMPT_LIMIT": "100",
    "WALLET_BANK_DELAY_MAX_S": "0.05",
    "WALLET_BANK_TIMEOUT_S": "0.3",
    "WALLET_BANK_RECHECK_S": "1",
    "WALLET_BANK_IN_FLIGHT_S": "1",
    "WALLET_BANK_LATE_S": "0.2",
    "WALLET_BANK_RETURN_AFTER_S": "0.5",
    "WALLET_BANK_BREAKER_FAILURES": "0",
    "WALLET_WEBHOOK_ALLOW_LOOPBACK": "true",
    "WALLET_WEBHOOK_RETRY_DELAYS_S": json.dumps([1] * 30),
    # The replay goes on all the time.
    "WALLET_INTEGRITY_ROUND_S": "0",
}
_AMOUNT = 100
_FUNDS = 1_000_000
_DEATH_LIMIT_S = 60.0
_OTHERS, _NEXT_AFTER_S = 3, 6.0
_END_LIMIT_S = 120.0
_POLL_S = 0.05


class Outcome(NamedTuple):
    """What becomes of an operation at the bank, and where it passes on its way: through the API, through the worker.

    `paid` and `returned`: how often that happened to it at the bank.
    """

    name: str
    kind: str
    account: str
    status: str
    paid: int
    returned: int
    api_points: frozenset[CrashPoint]
    worker_points: frozenset[CrashPoint]


_REQUEST = frozenset({CrashPoint.LEDGER_WRITTEN, CrashPoint.LEDGER_COMMITTED})
_KEPT = frozenset({CrashPoint.CALLBACK_KEPT})
# Nothing of what the bank will say is known yet, or it does not matter any more.
_ALIKE = frozenset(
    {
        CrashPoint.OUTBOX_CLAIMED,
        CrashPoint.BANK_EXECUTED,
        CrashPoint.BANK_REPORTED,
        CrashPoint.EVENT_CLAIMED,
        CrashPoint.EVENT_PUBLISHED,
        CrashPoint.DELIVERY_CLAIMED,
        CrashPoint.DELIVERY_ANSWERED,
    }
)
_SUBMITTED = frozenset({CrashPoint.SUBMIT_BEGUN})
_REPORTED = _SUBMITTED | {CrashPoint.CALLBACK_CLAIMED, CrashPoint.CALLBACK_APPLIED}
_ANSWERED = _REPORTED | {CrashPoint.SUBMIT_ANSWERED}
_SETTLED = frozenset({CrashPoint.SETTLE_REPORTED, CrashPoint.SETTLE_COMMITTED})
_REFUNDED = frozenset({CrashPoint.REFUND_REPORTED, CrashPoint.REFUND_COMMITTED})
_RETURNED = frozenset({CrashPoint.RETURN_REPORTED, CrashPoint.RETURN_COMMITTED})
_REPLAYED = frozenset({CrashPoint.REPLAY_READ, CrashPoint.REPLAY_CHECKED})
_NEVER_AT_THE_BANK = frozenset({CrashPoint.BANK_EXECUTED, CrashPoint.BANK_REPORTED})

OUTCOMES = (
    Outcome("paid", "withdrawal", "x-success", "success", 1, 0, _KEPT, _ANSWERED | _SETTLED),
    Outcome("refused", "withdrawal", "x-decline", "failed", 0, 0, _KEPT, _ANSWERED | _REFUNDED),
    Outcome("rejected", "withdrawal", "x-invalid-account", "failed", 0, 0, frozenset(), _SUBMITTED | _REFUNDED),
    Outcome("unanswered", "withdrawal", "x-timeout-after", "success", 1, 0, _KEPT, _REPORTED | _SETTLED),
    Outcome("sent_back", "withdrawal", "x-returned", "success", 1, 1, _KEPT, _ANSWERED | _SETTLED | _RETURNED),
    Outcome("collected", "deposit", "x-success", "success", 1, 0, _KEPT, _ANSWERED | _SETTLED),
    Outcome("not_collected", "deposit", "x-decline", "failed", 0, 0, _KEPT, _ANSWERED | _REFUNDED),
    Outcome("charged_back", "deposit", "x-returned", "success", 1, 1, _KEPT, _ANSWERED | _SETTLED | _RETURNED),
)
_REPLAY = Outcome("replayed", "deposit", "x-success", "success", 1, 0, frozenset(), _REPLAYED)


def _everywhere(outcome: Outcome) -> Outcome:
    """Also where all outcomes pass alike."""
    alike = _ALIKE if outcome.account != "x-invalid-account" else _ALIKE - _NEVER_AT_THE_BANK
    return outcome._replace(api_points=outcome.api_points | _REQUEST, worker_points=outcome.worker_points | alike)


RUNS = tuple(_everywhere(one) for one in OUTCOMES)
# What has really happened, over all tests of this module.
_fired: set[tuple[str, CrashPoint]] = set()
_AT_ONCE = 3
# One after the other: each adds the service's user to its own database.
_migrating = asyncio.Lock()


@pytest.fixture(scope="module")
def crash_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """MongoDB and Redis; APIs and workers come and go."""
    with Stack(tmp_path_factory.mktemp("crashes"), settings=_SETTINGS) as stack:
        stack.start_servers()
        yield stack


@pytest.fixture(scope="module")
async def nursery(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Nursery]:
    async with Nursery(tmp_path_factory.mktemp("nursery")) as nursery:
        yield nursery


@dataclass
class House:
    """A database of its own with its API and workers, which come back after each death."""

    stack: Stack
    nursery: Nursery
    databases: Databases
    http: httpx.AsyncClient
    outcome: Outcome
    receiver: Receiver
    environment: dict[str, str]
    api: int = 0
    accepted: dict[str, dict[str, Any]] = field(default_factory=dict)

    async def start(self, program: str, crash_at: CrashPoint | None = None) -> int:
        armed = {} if crash_at is None else {"WALLET_CRASH_AT": crash_at.value}
        pid = await self.nursery.start(program, self.environment | armed)
        if program == "api":
            self.api = pid
            while not await self._is_ready():
                assert not self.nursery.has_ended(pid), self.nursery.log(program)
                await asyncio.sleep(_POLL_S)
        return pid

    async def _is_ready(self) -> bool:
        try:
            return (await self.http.get("/readyz")).is_success
        except httpx.TransportError:
            return False

    async def stop(self, pid: int) -> None:
        await self.nursery.stop(pid, _DEATH_LIMIT_S)

    async def die(self, pid: int, point: CrashPoint, limit_s: float = _DEATH_LIMIT_S) -> None:
        """Sees the process die at its point, and notes it."""
        try:
            code = await self.nursery.ended(pid, limit_s)
        except TimeoutError as late:
            raise TimeoutError(f"{self.outcome.name}: {point} was not reached in {limit_s} s") from late
        assert code == EXIT_CODE, f"{self.outcome.name}: {point} was not reached"
        _fired.add((self.outcome.name, point))

    async def ask(self, person: Person, key: str) -> httpx.Response:
        move = person.withdraw if self.outcome.kind == "withdrawal" else person.deposit
        return await move(_AMOUNT, self.outcome.account, key=key)

    async def accept(self, person: Person) -> None:
        key = uuid4().hex
        answer = await self.ask(person, key)
        assert answer.status_code == 202, answer.text
        self.accepted[key] = answer.json()


@asynccontextmanager
async def open_house(stack: Stack, nursery: Nursery, outcome: Outcome, number: int) -> AsyncIterator[House]:
    port = free_port()
    environment = stack.settings | {
        "WALLET_DATABASE": f"wallet_{outcome.name}",
        "WALLET_REDIS_URL": f"{stack.settings['WALLET_REDIS_URL'].removesuffix('/0')}/{number}",
        "WALLET_PORT": str(port),
        "WALLET_BANK_CALLBACK_URL": f"http://{LOOPBACK}:{port}/webhooks/bank-callback",
    }
    async with _migrating:
        command = [sys.executable, "-m", "scripts.migrate"]
        await asyncio.to_thread(stack.run_to_end, command, environment_for(environment))
    async with (
        databases_of(stack, database=environment["WALLET_DATABASE"]) as databases,
        httpx.AsyncClient(base_url=f"http://{LOOPBACK}:{port}", timeout=20) as http,
        running_receiver() as receiver,
    ):
        house = House(stack, nursery, databases, http, outcome, receiver, environment)
        await house.start("api")
        yield house
        await house.stop(house.api)


async def _die_while_asked(house: House, person: Person, point: CrashPoint) -> None:
    """The client gets no answer, and asks again under its key once somebody answers."""
    await house.stop(house.api)
    dying = await house.start("api", point)
    key = uuid4().hex
    with pytest.raises(httpx.TransportError):
        await house.ask(person, key)
    await house.die(dying, point)
    await house.start("api")
    answer = await house.ask(person, key)
    assert answer.status_code == 202, answer.text
    assert answer.headers.get("Idempotent-Replayed") == ("true" if point is CrashPoint.LEDGER_COMMITTED else None)
    house.accepted[key] = answer.json()


async def _die_while_called_back(house: House, person: Person) -> None:
    """The bank hears nothing, and calls again."""
    await house.accept(person)
    await house.stop(house.api)
    dying = await house.start("api", CrashPoint.CALLBACK_KEPT)
    worker = await house.start("worker")
    await house.die(dying, CrashPoint.CALLBACK_KEPT)
    await house.start("api")
    await house.stop(worker)


async def _die_at_work(house: House, person: Person, point: CrashPoint) -> None:
    """On a slow machine one may end on another way than past the point: then others follow it."""
    await house.accept(person)
    dying = await house.start("worker", point)
    for _ in range(_OTHERS):
        with suppress(TimeoutError):
            await house.die(dying, point, _NEXT_AFTER_S)
            return
        await house.accept(person)
    await house.die(dying, point)


def _queues(house: House) -> list[AsyncCollection[dict[str, Any]]]:
    names = ("outbox", "bank_callbacks", "events", "webhook_deliveries")
    return [*(house.databases.wallet[name] for name in names), house.databases.bank["orders"]]


async def _all_ended(house: House) -> None:
    """All of them, the bank's callbacks included. What the dead had claimed is free at once: time would do it too."""
    waiting = {"due_at": {"$exists": True}}
    for queue in _queues(house):
        await queue.update_many(waiting, {"$set": {"due_at": utc_now()}})
    deadline = time.monotonic() + _END_LIMIT_S
    while any([await queue.find_one(waiting) for queue in _queues(house)]):
        assert time.monotonic() < deadline, "something has not ended"
        await asyncio.sleep(_POLL_S)


async def _was_told_everything(house: House, person: Person) -> None:
    """Of each event at least once, under one id however often; by their numbers none is missing."""
    events = await house.databases.wallet["events"].find({"user_id": person.user_id}).to_list()
    told = {one.headers["webhook-id"]: json.loads(one.body)["data"] for one in house.receiver.requests}
    assert sorted(one["sequence"] for one in told.values()) == list(range(1, len(events) + 1))
    assert {one["event_id"] for one in told.values()} == {event["_id"] for event in events}


async def test_whoever_dies_wherever_all_ends_as_if_nobody_had(crash_servers: Stack, nursery: Nursery) -> None:
    """A few outcomes at a time, each in a house of its own."""
    places = asyncio.Semaphore(_AT_ONCE)

    async def live_through(number: int, outcome: Outcome) -> None:
        async with places, open_house(crash_servers, nursery, outcome, number) as house:
            await _live_through(house)

    async with asyncio.TaskGroup() as group:
        for number, outcome in enumerate(RUNS, start=1):
            group.create_task(live_through(number, outcome), name=outcome.name)


async def _live_through(house: House) -> None:
    outcome = house.outcome
    person = await Person.register(house.http)
    endpoint = await person.post("/webhook-endpoints", url=house.receiver.url())
    assert endpoint.status_code == 201, endpoint.text
    worker = await house.start("worker")
    await person.fund(_FUNDS)
    await house.stop(worker)

    for point in sorted(outcome.api_points & _REQUEST):
        await _die_while_asked(house, person, point)
    for point in sorted(outcome.worker_points):
        await _die_at_work(house, person, point)
    if CrashPoint.CALLBACK_KEPT in outcome.api_points:
        await _die_while_called_back(house, person)
    worker = await house.start("worker")
    await _all_ended(house)
    await house.stop(worker)

    assert {point for name, point in _fired if name == outcome.name} == outcome.api_points | outcome.worker_points
    shown = [(await person.get(f"/{outcome.kind}s/{one['id']}")).json() for one in house.accepted.values()]
    assert [one["status"] for one in shown] == [outcome.status] * len(house.accepted)
    moved = _AMOUNT * len(house.accepted) * (outcome.paid - outcome.returned)
    wallet = await person.wallet()
    expected = _FUNDS - moved if outcome.kind == "withdrawal" else _FUNDS + moved
    assert (wallet["available"], wallet["held"]) == (expected, 0)
    orders = {order["_id"]: order for order in await house.databases.bank["orders"].find({}).to_list()}
    for one in house.accepted.values():
        order = orders.get(one["id"], {"payments": [], "returns": []})
        assert (len(order["payments"]), len(order["returns"])) == (outcome.paid, outcome.returned)
    assert await house.databases.wallet["incidents"].find({}).to_list() == []
    assert await check_ledger(house.databases) == []
    await _was_told_everything(house, person)


async def test_whoever_dies_while_replaying_the_next_one_comes_to_the_end_of_the_books(
    crash_servers: Stack, nursery: Nursery
) -> None:
    async with open_house(crash_servers, nursery, _REPLAY, 0) as house:
        await _replay(house)


async def _replay(house: House) -> None:
    person = await Person.register(house.http)
    worker = await house.start("worker")
    await person.fund(_FUNDS)
    await house.stop(worker)
    duties = house.databases.wallet["duties"]

    async def free() -> None:
        """As if the claim had ended of whoever had it last."""
        await duties.update_one({"_id": "replay"}, {"$set": {"due_at": utc_now()}})

    for point in sorted(house.outcome.worker_points):
        await free()
        await house.die(await house.start("worker", point), point)
    await free()
    worker, started = await house.start("worker"), utc_now()
    deadline = time.monotonic() + _END_LIMIT_S
    while not await duties.find_one({"_id": "replay", "progress.last.started_at": {"$gte": started}}):
        assert time.monotonic() < deadline, "no round has ended"
        await asyncio.sleep(_POLL_S)
    await house.stop(worker)
    checks = await house.databases.wallet["wallet_checks"].find({}).to_list()
    wallet = await person.wallet()
    assert [(check["_id"], check["verified"]["seq"]) for check in checks] == [(wallet["id"], wallet["seq"])]
    assert await house.databases.wallet["breaks"].find({}).to_list() == []


def test_every_point_was_passed_by_somebody_who_died_there() -> None:
    """The list that proves it. Run the whole module: alone this knows nothing."""
    assert {point for _, point in _fired} == set(CrashPoint)
