"""Somebody outside who pays through two APIs, notes each request before it is sent, and asks until it is answered.

What they noted is held against the service afterwards: `verdict.py`.
"""

import asyncio
import itertools
import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import httpx

from tests.person import PASSWORD, Person

PEOPLE: Final = 6
FUNDS: Final = 10_000_000
# More than anybody has: refused, whatever else happens.
TOO_MUCH: Final = 1_000_000_000
# A closed load: so many requests at once, each of which is followed by a pause. Together some 30 a second.
_LOOPS: Final = 12
_PAUSE_S: Final = 0.35
# An open load keeps no more than this waiting for their answers: 200 at 30 a second are 7 s of silence.
MOST_IN_FLIGHT: Final = 200
# Shorter than an API stays frozen: a client gives up on it and asks the other one.
_TIMEOUT_S: Final = 5.0
_PATIENCE_S: Final = 60.0
_RETRY_S: Final = 0.2
_NO_ANSWER: Final = 0
_GIVE_UP_S: Final = 120.0
# Not an end: the same request is sent again. 401 is what an API with a wrong clock says of a token.
_ASK_AGAIN: Final = frozenset({_NO_ANSWER, 401, 429, 500, 502, 503, 504})


class Kind(StrEnum):
    DEPOSIT = "deposits"
    WITHDRAWAL = "withdrawals"
    TRANSFER = "transfers"
    HOLD = "holds"
    CAPTURE = "captures"


@dataclass(slots=True)
class Request:
    """One request of money, with all that was heard of it."""

    key: str
    kind: Kind
    payer: Person
    recipient: Person | None
    path: str
    body: dict[str, Any]
    sent_s: list[float] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    answered_s: float | None = None
    answer: dict[str, Any] = field(default_factory=dict)

    @property
    def is_accepted(self) -> bool:
        return self.answered_s is not None and self.statuses[-1] < 300

    @property
    def was_unknown(self) -> bool:
        """For a time nobody could say whether it had happened."""
        return any(status in (_NO_ANSWER, 500, 502, 503, 504) for status in self.statuses)

    @property
    def amount(self) -> int:
        amount: int = self.body["amount"]
        return amount


@dataclass(slots=True)
class Offered:
    """Counts of an open load: how many requests were due, how many of them were not sent since too many waited for
    an answer, and how many waited at most. A hold's capture is not counted: it follows its hold.
    """

    due: int = 0
    kept_back: int = 0
    most_in_flight: int = 0


class Journal:
    """Every request, on disk before it is sent: a client that dies would still know what it has to ask again."""

    def __init__(self, path: Path) -> None:
        self.requests: list[Request] = []
        self._file = path.open("a", buffering=1)

    def close(self) -> None:
        self._file.close()

    def send(self, request: Request) -> None:
        if not request.sent_s:
            self.requests.append(request)
        request.sent_s.append(time.monotonic())
        self._write("sent", request, path=request.path, body=request.body, payer=request.payer.user_id)

    def hear(self, request: Request, status: int, answer: dict[str, Any]) -> None:
        request.statuses.append(status)
        self._write("heard", request, status=status, answer=answer)
        if not _is_no_end(status, answer):
            request.answered_s = time.monotonic()
            request.answer = answer

    def _write(self, what: str, request: Request, **facts: Any) -> None:
        self._file.write(json.dumps({"what": what, "at": time.time(), "key": request.key, **facts}) + "\n")

    @property
    def accepted(self) -> list[Request]:
        return [request for request in self.requests if request.is_accepted]

    def of(self, *kinds: Kind) -> list[Request]:
        return [request for request in self.accepted if request.kind in kinds]

    def balances(self) -> dict[str, int]:
        """What each wallet has, if everything that was accepted has ended well."""
        balances: defaultdict[str, int] = defaultdict(int)
        for request in self.of(Kind.DEPOSIT, Kind.WITHDRAWAL, Kind.TRANSFER, Kind.CAPTURE):
            if request.kind is not Kind.DEPOSIT:
                balances[request.payer.wallet_id] -= request.amount
            if request.kind is not Kind.WITHDRAWAL:
                assert request.recipient is not None
                balances[request.recipient.wallet_id] += request.amount
        return dict(balances)

    def statuses(self, since: float) -> Counter[int]:
        """Of every attempt; 0 where none came."""
        return Counter(status for request in self.requests if request.sent_s[0] >= since for status in request.statuses)

    def longest_gap_s(self, since: float, until: float) -> float:
        """The longest time in which nothing was accepted."""
        times = sorted(r.answered_s for r in self.accepted if r.answered_s and since < r.answered_s < until)
        return max(after - before for before, after in itertools.pairwise([since, *times, until]))

    def has_written_since(self, moment: float) -> bool:
        """Whether something was accepted that was asked for after that moment."""
        return any(request.sent_s[0] > moment for request in reversed(self.accepted))


def _is_no_end(status: int, answer: dict[str, Any]) -> bool:
    return status in _ASK_AGAIN or answer.get("error") == "idempotency_key_in_flight"


class OutsideClient:
    """Six people, the first of whom everybody pays."""

    def __init__(self, base_urls: Sequence[str], journal: Journal) -> None:
        self.journal = journal
        limits = httpx.Limits(max_connections=MOST_IN_FLIGHT, max_keepalive_connections=_LOOPS * 2)
        self._https = [httpx.AsyncClient(base_url=url, timeout=_TIMEOUT_S, limits=limits) for url in base_urls]
        self._turns = itertools.cycle(self._https)
        # For what is no request of money: on a busy machine a login may take its time.
        self._patient = httpx.AsyncClient(base_url=base_urls[0], timeout=_PATIENCE_S)
        self._random = random.Random(11)  # noqa: S311 a mix, not a secret
        self._ended = False
        self.people: list[Person] = []
        self._emails: dict[str, str] = {}

    async def open(self) -> None:
        """Registers everybody and brings their money in, by requests that are written down like all others."""
        for _ in range(PEOPLE):
            email = f"{uuid4().hex}@example.com"
            person = await Person.register(self._patient, email)
            self.people.append(person)
            self._emails[person.user_id] = email
        deposits = [self._order(Kind.DEPOSIT, person, FUNDS) for person in self.people]
        await asyncio.gather(*(self._ask_until_answered(order) for order in deposits))
        for person, deposit in zip(self.people, deposits, strict=True):
            await person.ended(deposit.answer)

    async def close(self) -> None:
        for http in (*self._https, self._patient):
            await http.aclose()
        self.journal.close()

    async def log_in_again(self) -> None:
        """A token lives for 15 min, and all faults together take longer."""
        for person in self.people:
            asked = {"email": self._emails[person.user_id], "password": PASSWORD}
            login = await self._patient.post("/api/v1/auth/login", json=asked)
            assert login.status_code == 200, login.text
            person.headers = {"Authorization": f"Bearer {login.json()['access_token']}"}

    @asynccontextmanager
    async def load(self) -> AsyncIterator[None]:
        """Requests as long as the block lasts; at its end every one of them is answered."""
        self._ended = False
        running = asyncio.gather(*(self._go_on() for _ in range(_LOOPS)))
        try:
            yield
        finally:
            self._ended = True
            await running

    @asynccontextmanager
    async def load_at(self, rate: float) -> AsyncIterator[Offered]:
        """Sends so many requests a second as long as the block lasts, whether or not earlier ones are answered.

        At the end of the block every request is answered.
        """
        self._ended = False
        offered = Offered()
        running = asyncio.create_task(self._send_when_due(rate, offered))
        try:
            yield offered
        finally:
            self._ended = True
            await running

    async def writes_again(self, since: float, limit_s: float) -> None:
        async with asyncio.timeout(limit_s):
            while not self.journal.has_written_since(since):  # noqa: ASYNC110 the loops get the answers
                await asyncio.sleep(0.05)

    async def _go_on(self) -> None:
        await asyncio.sleep(self._random.uniform(0, _PAUSE_S))
        while not self._ended:
            await self._ask_for_next()
            await asyncio.sleep(_PAUSE_S)

    async def _send_when_due(self, rate: float, offered: Offered) -> None:
        began = time.monotonic()
        in_flight: set[asyncio.Task[None]] = set()
        async with asyncio.TaskGroup() as group:
            while not self._ended:
                # What fell due while this task had no turn is sent now, all of it.
                await asyncio.sleep(max(0.0, began + offered.due / rate - time.monotonic()))
                offered.due += 1
                if len(in_flight) == MOST_IN_FLIGHT:
                    offered.kept_back += 1
                    continue
                asking = group.create_task(self._ask_for_next())
                in_flight.add(asking)
                asking.add_done_callback(in_flight.discard)
                offered.most_in_flight = max(offered.most_in_flight, len(in_flight))

    async def _ask_for_next(self) -> None:
        request = self._next()
        await self._ask_until_answered(request)
        if request.kind is Kind.HOLD and request.is_accepted:
            await self._ask_until_answered(self._capture(request))

    def _next(self) -> Request:
        hot, *others = self.people
        person, friend = self._random.sample(others, 2)
        amount = self._random.randint(1, 100)
        match self._random.randrange(10):
            case 0 | 1:
                return self._order(Kind.DEPOSIT, self._random.choice([hot, person]), amount)
            case 2 | 3 | 4:
                return self._order(Kind.WITHDRAWAL, self._random.choice([hot, person]), amount)
            case 5 | 6:
                return self._order(Kind.TRANSFER, person, amount, hot)
            case 7:
                return self._order(Kind.TRANSFER, person, amount, friend)
            case 8:
                return self._order(Kind.HOLD, person, amount, hot)
            case _:
                return self._order(Kind.WITHDRAWAL, person, TOO_MUCH)

    def _order(self, kind: Kind, payer: Person, amount: int, recipient: Person | None = None) -> Request:
        body: dict[str, Any] = {"amount": amount, "currency": "INR"}
        match kind:
            case Kind.DEPOSIT:
                # The payer of a deposit is the bank.
                body["source"], recipient = "bank-account-success", payer
            case Kind.WITHDRAWAL:
                body["destination"] = "bank-account-success"
            case Kind.TRANSFER:
                assert recipient is not None
                body |= {"from_wallet_id": payer.wallet_id, "to_wallet_id": recipient.wallet_id}
            case _:
                assert recipient is not None
                body |= {"wallet_id": payer.wallet_id, "to_wallet_id": recipient.wallet_id}
        return Request(uuid4().hex, kind, payer, recipient, f"/{kind}", body)

    def _capture(self, hold: Request) -> Request:
        body = {"amount": hold.amount}
        return Request(
            uuid4().hex, Kind.CAPTURE, hold.payer, hold.recipient, f"/holds/{hold.answer['id']}/capture", body
        )

    async def _ask_until_answered(self, request: Request) -> None:
        """By turns at both APIs, so that a retry meets the one that has not heard of it."""
        deadline = time.monotonic() + _GIVE_UP_S
        while request.answered_s is None:
            assert time.monotonic() < deadline, f"nobody answers {request}"
            if request.sent_s:
                await asyncio.sleep(_RETRY_S)
            self.journal.send(request)
            self.journal.hear(request, *await self._ask_once(request))

    async def _ask_once(self, request: Request) -> tuple[int, dict[str, Any]]:
        # A capture is its recipient's to ask for.
        who = request.recipient if request.kind is Kind.CAPTURE else request.payer
        assert who is not None
        headers = {**who.headers, "Idempotency-Key": request.key}
        try:
            answer = await next(self._turns).post(f"/api/v1{request.path}", json=request.body, headers=headers)
        except httpx.TransportError:
            return _NO_ANSWER, {}
        is_json = "json" in answer.headers.get("Content-Type", "")
        return answer.status_code, answer.json() if is_json else {}
