"""Where the page's figures come from: MongoDB, by counts in indexes; `/health` and `/metrics` where they answer.

Everything is read only. What does not answer is left out: a look never fails as a whole because of one of them.
"""

import asyncio
from collections.abc import Awaitable, Mapping
from datetime import datetime, timedelta
from time import monotonic
from typing import Any, Final, NamedTuple, TypeVar

import httpx
from pymongo.errors import PyMongoError

from scripts.dashboard.figures import Change, Figures
from service.database import Databases
from service.domain.clock import utc_now
from service.domain.identifiers import Prefix, first_id_at
from service.domain.workers import ALIVE_S, Worker
from service.repositories.workers import find_seen_between
from service.services.workers import Backlog, look_at_queues

Answer = TypeVar("Answer")

_ASKED_FOR: Final = (("deposits", Prefix.DEPOSIT), ("withdrawals", Prefix.WITHDRAWAL))
# What the ledger wrote in the last seconds is read by id; more than that would be felt by it.
_WINDOW_S: Final = 2.0
_COUNTED: Final = 100_000
_PATIENCE_S: Final = 2.0
_SETTLED: Final = ("DEPOSIT", "WITHDRAWAL_SETTLEMENT")


class Flow(NamedTuple):
    """Per second, over the last two: deposits and withdrawals that came in, were settled, were given back."""

    accepted: float
    settled: float
    refunded: float


class Look(NamedTuple):
    """Everything at one moment; None is what could not be read."""

    at: datetime
    taken: float
    backlog: Backlog | None
    flow: Flow | None
    workers: list[Worker] | None
    health: Mapping[str, Any] | None
    figures: Figures
    trouble: str | None = None

    def since(self, before: "Look") -> Change:
        return Change(before.figures, self.figures, self.taken - before.taken)


class Sources:
    def __init__(self, databases: Databases, http: httpx.AsyncClient, base_url: str, metrics_urls: list[str]) -> None:
        self._databases, self._http, self._base_url, self._metrics_urls = databases, http, base_url, metrics_urls

    async def look(self) -> Look:
        now = utc_now()
        health, figures, mongo = await asyncio.gather(self._health(), self._figures(), self._mongo(now))
        backlog, flow, workers, trouble = mongo
        return Look(now, monotonic(), backlog, flow, workers, health, figures, trouble)

    async def _mongo(self, now: datetime) -> tuple[Backlog | None, Flow | None, list[Worker] | None, str | None]:
        span = timedelta(seconds=ALIVE_S)
        try:
            async with asyncio.timeout(_PATIENCE_S):
                backlog, flow, workers = await asyncio.gather(
                    look_at_queues(now),
                    self._flow(now),
                    find_seen_between(now - span, now + span),
                )
        except (PyMongoError, TimeoutError) as error:
            return None, None, None, type(error).__name__
        return backlog, flow, workers, None

    async def _flow(self, now: datetime) -> Flow:
        since = now - timedelta(seconds=_WINDOW_S)
        wallet = self._databases.wallet
        accepted = [
            await wallet[name].count_documents({"_id": {"$gte": first_id_at(prefix, since)}}, limit=_COUNTED)
            for name, prefix in _ASKED_FOR
        ]
        recent = {"_id": {"$gte": first_id_at(Prefix.ENTRY, since)}}
        written = await wallet["transaction_logs"].aggregate(
            [{"$match": recent}, {"$limit": _COUNTED}, {"$group": {"_id": "$type", "entries": {"$sum": 1}}}]
        )
        entries = {row["_id"]: row["entries"] for row in await written.to_list()}
        settled = sum(entries.get(kind, 0) for kind in _SETTLED)
        return Flow(sum(accepted) / _WINDOW_S, settled / _WINDOW_S, entries.get("WITHDRAWAL_REFUND", 0) / _WINDOW_S)

    async def _health(self) -> Mapping[str, Any] | None:
        answer = await self._answer(self._http.get(f"{self._base_url}/health"))
        try:
            found: Any = None if answer is None else answer.json()
        except ValueError:
            return None
        return found if isinstance(found, dict) else None

    async def _figures(self) -> Figures:
        answers = await asyncio.gather(*(self._answer(self._http.get(url)) for url in self._metrics_urls))
        texts = [answer.text for answer in answers if answer is not None and answer.is_success]
        try:
            return Figures.read(texts)
        except ValueError:
            return Figures()

    @staticmethod
    async def _answer(call: Awaitable[Answer]) -> Answer | None:
        try:
            return await call
        except httpx.HTTPError:
            return None
