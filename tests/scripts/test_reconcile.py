"""reconcile at the command line: what it tells, and how it ends."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from pathlib import Path
from uuid import uuid4

import pytest
import typer

from scripts.reconcile import _day, _days_asked_for
from service.domain.identifiers import Prefix, first_id_at
from service.domain.operations import Operation
from service.gateways.bank import BankOrder, OrderKind
from service.gateways.bank_behaviours import paid_row
from service.repositories import bank_orders as journal
from service.startup import Resources
from tests.books_of_their_own import OwnBooks, own_books
from tests.commands import Ended, run_module
from tests.factories import change, entries_of_any_time, make_funded_wallet, settlement_of, withdrawal_of
from tests.servers import Servers

_DAY = "2025-06-02"
_NOON = datetime(2025, 6, 2, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
async def books(servers: Servers, resources: Resources) -> AsyncIterator[OwnBooks]:
    async with own_books(servers, resources) as books:
        yield books


async def settle(books: OwnBooks) -> Operation:
    """On that day."""
    wallet = await make_funded_wallet(books.databases)
    entry_id = first_id_at(Prefix.ENTRY, _NOON) + uuid4().hex[12:]
    asked = await change(books.databases, withdrawal_of(wallet, 1_234))
    with entries_of_any_time():
        return await change(books.databases, settlement_of(asked, entry_id=entry_id))


async def pay(books: OwnBooks, operation: Operation) -> None:
    order = BankOrder(operation.id, OrderKind.PAYOUT, operation.amount, operation.currency, "bank-account-0001")
    await journal.insert_missing([paid_row(order, _NOON, books.resources.settings)])


async def reconcile(books: OwnBooks, *arguments: str, **environment: str) -> Ended:
    root = Path(__file__).parents[2]
    return await run_module(books.resources.settings, root, "scripts.reconcile", *arguments, **environment)


class TestTheCommand:
    async def test_tells_of_days_and_wallets_and_ends_with_0_then_with_1_for_an_open_break(
        self, books: OwnBooks
    ) -> None:
        await pay(books, await settle(books))
        sound = await reconcile(books, "--day", _DAY, "--replay")
        assert (sound.status, sound.err) == (0, ""), sound
        assert f"{_DAY}: 1 lines of the bank, 1 entries of ours" in sound.out
        assert "12.34 INR" in sound.out
        assert "No break is open." in sound.out
        unpaid = await settle(books)
        broken = await reconcile(books, "--from", _DAY, "--to", _DAY, "--json")
        assert (broken.status, broken.err) == (1, "")
        told = json.loads(broken.out)
        assert [(one["kind"], one["subject"]) for one in told["breaks"]] == [("missing_there", unpaid.id)]
        assert told["days"][0]["totals"] == [{"flow": "payout", "currency": "INR", "bank": 1_234, "ours": 2_468}]
        shown = await reconcile(books, "--replay")
        assert (shown.status, "missing_there" in shown.out, "1 open breaks" in shown.out) == (1, True, True)

    async def test_ends_with_2_where_it_may_not_look(self, books: OwnBooks) -> None:
        settings = books.resources.settings
        wrong = settings.mongo_url.get_secret_value().replace("wallet-service-password", "another-password")
        ended = await reconcile(books, "--replay", WALLET_MONGO_URL=wrong)
        assert (ended.status, ended.out) == (2, "")
        assert "could not look" in ended.err


class TestDays:
    @pytest.mark.parametrize(
        ("day", "first", "last"),
        [
            (None, None, "2025-06-02"),
            ("2025-06-02", "2025-06-02", None),
            (None, "2025-06-02", "2025-06-01"),
            (None, "2020-01-01", None),
            ("2999-01-01", None, None),
        ],
    )
    def test_that_are_none_are_refused(self, day: str | None, first: str | None, last: str | None) -> None:
        with pytest.raises(typer.BadParameter):
            _days_asked_for(*(None if text is None else _day(text) for text in (day, first, last)))

    def test_are_written_as_in_the_report(self) -> None:
        with pytest.raises(typer.BadParameter):
            _day("yesterday")
        assert _days_asked_for(None, _day("2025-06-01"), _day(_DAY)) == [date(2025, 6, 1), date(2025, 6, 2)]
        assert _days_asked_for(None, None, None) is None
