"""Replaying while money moves: running traffic is no break, however often one looks."""

import asyncio
import json
from contextlib import suppress
from pathlib import Path

import httpx

from scripts.check_ledger import check_ledger
from scripts.service_stack import Stack
from service.database import Databases
from service.settings import Settings
from tests.commands import Ended, run_module
from tests.person import Person

_ROOT = Path(__file__).parents[2]
_REPLAYING_S = 3.0
_PEOPLE = 6


async def _load(person: Person, friend: Person, until: "asyncio.Task[Ended]") -> None:
    """In, out, back and to each other, refusals too, as fast as answers come; one that got lost is no matter here."""
    while not until.done():
        with suppress(httpx.TransportError):
            await _pay(person, friend)


async def _pay(person: Person, friend: Person) -> None:
    held = await person.post(
        "/holds", wallet_id=person.wallet_id, to_wallet_id=friend.wallet_id, amount=10, currency="INR"
    )
    await asyncio.gather(
        person.deposit(7),
        person.withdraw(3),
        person.withdraw(4, "bank-account-decline"),
        person.withdraw(10**9),
        person.transfer(2, friend),
        friend.post(f"/holds/{held.json().get('id')}/capture", amount=6),
    )


class TestReplayingUnderLoad:
    async def test_finds_no_break_in_sound_books(
        self, http: httpx.AsyncClient, stack: Stack, stack_databases: Databases
    ) -> None:
        people = [await Person.register(http) for _ in range(_PEOPLE)]
        await asyncio.gather(*(person.fund(100_000) for person in people))
        before_all = people[0].wallet_id[:-1]
        settings = Settings(
            mongo_url=stack.settings["WALLET_MONGO_URL"],
            mongo_admin_url=stack.settings["WALLET_MONGO_ADMIN_URL"],
            redis_url=stack.settings["WALLET_REDIS_URL"],
            database=stack.settings.get("WALLET_DATABASE", "wallet"),
            _env_file=None,
        )
        replaying = asyncio.create_task(
            run_module(settings, _ROOT, "tests.replaying", "loop", before_all, str(_REPLAYING_S))
        )
        await asyncio.gather(*(_load(person, people[at - 1], replaying) for at, person in enumerate(people)))
        ended = await replaying
        assert (ended.status, ended.err) == (0, "")
        told = json.loads(ended.out)
        assert told["findings"] == []
        assert told["rounds"] > 1
        assert told["entries"] > _PEOPLE
        wallets = [person.wallet_id for person in people]
        assert await stack_databases.wallet["breaks"].count_documents({"wallet_id": {"$in": wallets}}) == 0
        assert await check_ledger(stack_databases) == []
