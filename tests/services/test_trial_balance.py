"""Account sums and the trial balance, in a database of their own."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from bson.decimal128 import Decimal128
from pymongo.asynchronous.client_session import AsyncClientSession

from service.database import (
    Databases,
    bind_documents,
    connect,
    read_in_snapshot,
    session_in_transaction,
    set_up,
    snapshot_time,
)
from service.domain.accounts import AccountSum, SystemAccount, closed_through, hour_of
from service.domain.clock import utc_now
from service.domain.entries import Entry, EntryType
from service.domain.identifiers import Prefix, first_id_at, new_id
from service.domain.money import MAX_AMOUNT_MINOR
from service.domain.policy import Policy
from service.domain.wallets import Movement, Wallet, apply_movement, new_wallet
from service.ledger.commands import Command
from service.ledger.committer import Ledger
from service.repositories import transaction_logs as log_repository
from service.repositories import wallets as wallet_repository
from service.services import account_sums
from service.services.account_sums import close_hours, correct_sums
from service.services.trial_balance import CurrencyBalance, draw_up_trial_balance
from service.startup import Resources
from tests.factories import book, make_funded_wallet, make_user, make_wallet, transfer_of, withdrawal_of
from tests.servers import Admin, Servers, fail_point, make_settings

HOUR = timedelta(hours=1)
# After an hour's end, when it may be closed (domain/accounts.py).
RIPE = timedelta(minutes=15)


@pytest.fixture
async def own(servers: Servers, resources: Resources) -> AsyncIterator[Databases]:
    """Beanie, of which a process has one, goes back to the other tests' database afterwards."""
    settings = make_settings(servers)
    await set_up(settings)
    databases = connect(settings.mongo_url.get_secret_value(), settings)
    await bind_documents(databases)
    try:
        yield databases
    finally:
        await databases.client.close()
        await bind_documents(resources.databases)


@pytest.fixture
def hour() -> datetime:
    """The beginning of an hour that is long over."""
    return hour_of(utc_now()) - 200 * HOUR


async def deposit(databases: Databases, wallet: Wallet, amount: int, at: datetime) -> None:
    await book(databases, wallet, EntryType.DEPOSIT, amount, "bank", at=at)


async def open_wallet(databases: Databases, currency: str = "INR") -> Wallet:
    return await make_wallet(databases, await make_user(databases), currency=currency)


async def close_at(databases: Databases, now: datetime) -> bool:
    return await close_hours(databases.client, now)


async def stored(databases: Databases) -> dict[datetime, list[dict[str, Any]]]:
    rows = await databases.wallet["account_sums"].find(sort=[("_id", 1)]).to_list()
    return {
        row["_id"]: [one | {side: int(one[side].to_decimal()) for side in ("debit", "credit")} for one in row["sums"]]
        for row in rows
    }


def bank(debit: int, credit: int = 0, currency: str = "INR") -> dict[str, Any]:
    return {"account": "bank", "currency": currency, "debit": debit, "credit": credit}


async def balance_of(databases: Databases, currency: str = "INR") -> CurrencyBalance:
    found = [one for one in (await draw_up_trial_balance(databases.client)).currencies if one.currency == currency]
    return found[0]


def account(balance: CurrencyBalance, name: str) -> AccountSum:
    return next(one for one in balance.accounts if one.account == name)


class TestTheTrialBalance:
    async def test_of_nothing_is_balanced(self, own: Databases) -> None:
        balance = await draw_up_trial_balance(own.client)
        assert (balance.currencies, balance.sums_through, balance.is_balanced) == ([], None, True)

    async def test_shows_every_account_and_sums_to_zero(self, own: Databases) -> None:
        first, second, dollars = [await open_wallet(own, currency) for currency in ("INR", "INR", "USD")]
        await deposit(own, first, 10_000, utc_now())
        await book(own, first, EntryType.TRANSFER_OUT, 1_500, second.id, transaction_id="txn_transfer")
        await book(own, second, EntryType.TRANSFER_IN, 1_500, first.id, transaction_id="txn_transfer")
        await book(own, second, EntryType.CREDIT, 70, SystemAccount.ADJUSTMENTS)
        await book(own, second, EntryType.VOUCHER, 30, SystemAccount.REWARDS)
        await book(own, first, EntryType.HOLD, 400, SystemAccount.REVENUE)
        await book(own, first, EntryType.HOLD_CAPTURE, 300, SystemAccount.REVENUE)
        await book(own, first, EntryType.CONVERSION_OUT, 1_000, SystemAccount.FX)
        await book(own, dollars, EntryType.CONVERSION_IN, 12, SystemAccount.FX)
        await book(own, first, EntryType.WITHDRAWAL, 200, SystemAccount.BANK)
        await book(own, first, EntryType.WITHDRAWAL_SETTLEMENT, 200, SystemAccount.BANK)
        rupees = await balance_of(own)
        assert rupees.accounts == [
            AccountSum("bank", "INR", 10_000, 200),
            AccountSum("house:fx", "INR", 0, 1_000),
            AccountSum("house:rewards", "INR", 0, 30),
            AccountSum("house:adjustments", "INR", 70, 0),
            AccountSum("house:revenue", "INR", 0, 300),
        ]
        assert rupees.between_wallets == AccountSum("between_wallets", "INR", 1_500, 1_500)
        assert rupees.wallets == ("INR", 8_440, 100, 2)
        assert (rupees.total, rupees.is_balanced) == (0, True)
        assert account(await balance_of(own, "USD"), "house:fx").balance == -12
        assert (await draw_up_trial_balance(own.client)).is_balanced

    async def test_names_what_came_from_nowhere(self, own: Databases, admin: Admin) -> None:
        wallet = await make_funded_wallet(own, 500)
        admin[own.wallet.name]["wallets"].update_one({"_id": wallet.id}, {"$inc": {"available": 7}})
        balance = await balance_of(own)
        assert (balance.total, balance.is_balanced) == (7, False)
        assert not (await draw_up_trial_balance(own.client)).is_balanced

    async def test_names_a_transfer_that_did_not_arrive(self, own: Databases) -> None:
        first, second = await make_funded_wallet(own, 500), await open_wallet(own)
        await book(own, first, EntryType.TRANSFER_OUT, 40, second.id)
        balance = await balance_of(own)
        assert (balance.total, balance.between_wallets.balance, balance.is_balanced) == (-40, 40, False)

    async def test_shows_an_account_that_nobody_knows(self, own: Databases) -> None:
        wallet = await open_wallet(own)
        await book(own, wallet, EntryType.CREDIT, 5, "a friend")
        balance = await balance_of(own)
        assert account(balance, "a friend") == AccountSum("a friend", "INR", 5, 0)
        assert balance.total == 0

    async def test_is_exact_beyond_64_bits(self, own: Databases, hour: datetime) -> None:
        # 1,100 wallets of the largest balance hold more than a long, and their sum has digits that a double loses.
        count = 1_100
        due = count * MAX_AMOUNT_MINOR
        assert due > 2**63
        assert int(float(due)) != due
        wallets, entries = largest_deposits(count, hour)
        async with session_in_transaction(own.client) as session:
            await wallet_repository.insert_many(wallets, session=session)
            await log_repository.insert_many(entries, session=session)
        for is_stored in (False, True):
            balance = await balance_of(own)
            assert account(balance, "bank") == AccountSum("bank", "INR", due, 0)
            assert balance.wallets == ("INR", due, 0, count)
            assert balance.is_balanced
            if not is_stored:
                assert await close_at(own, utc_now())
        assert list((await stored(own)).values())[-1] == [bank(due)]

    async def test_is_of_one_moment_while_money_moves_and_hours_close(self, own: Databases, hour: datetime) -> None:
        user = await make_user(own)
        wallets = [await make_wallet(own, user, currency=currency) for currency in ("INR", "USD", "EUR", "JPY")]
        steps = dict.fromkeys(wallets, 0)
        end = 25

        async def move(wallet: Wallet) -> None:
            """An hour further with each step."""
            while steps[wallet] < end:
                at = hour + steps[wallet] * HOUR
                await deposit(own, wallet, 100, at)
                await book(own, wallet, EntryType.VOUCHER, 1, SystemAccount.REWARDS, at=at)
                steps[wallet] += 1

        async def close() -> None:
            """The hours that everybody has left behind."""
            while min(steps.values()) < end:
                await close_at(own, hour + min(steps.values()) * HOUR + RIPE)

        async def look() -> set[datetime | None]:
            reached = set()
            while min(steps.values()) < end:
                balance = await draw_up_trial_balance(own.client)
                assert balance.is_balanced, balance
                reached.add(balance.sums_through)
            return reached

        *_, reached = await asyncio.gather(*(move(wallet) for wallet in wallets), close(), look())
        assert isinstance(reached, set)
        assert len(reached) > 1
        assert await close_at(own, hour + end * HOUR + RIPE)
        assert bank(100 * end) in (await stored(own))[hour + end * HOUR]
        assert (await draw_up_trial_balance(own.client)).is_balanced


def largest_deposits(count: int, at: datetime) -> tuple[list[Wallet], list[Entry]]:
    wallets, entries = [], []
    for number in range(count):
        wallet = new_wallet(new_id(Prefix.WALLET), new_id(Prefix.USER), "INR", at)
        movement = Movement(
            wallet_id=wallet.id,
            type=EntryType.DEPOSIT,
            amount=MAX_AMOUNT_MINOR,
            status="success",
            reference=f"dep_{number}",
            transaction_id=f"txn_{number}",
            counterparty="bank",
            entry_id=first_id_at(Prefix.ENTRY, at) + f"{number:020x}",
            at=at,
        )
        moved, entry = apply_movement(wallet, movement)
        wallets.append(moved)
        entries.append(entry)
    return wallets, entries


def made_before(moment: datetime) -> str:
    """The id of an entry, as a command has it whose process was suspended since, or has a clock that is behind."""
    return first_id_at(Prefix.ENTRY, moment - timedelta(seconds=1)) + uuid4().hex[12:]


@pytest.fixture
async def ledger(own: Databases) -> AsyncIterator[Ledger]:
    ledger = Ledger(
        own.client, policy=Policy(), batch_limit=256, queue_limit=1000, patience_s=5.0, on_committed=lambda _: None
    )
    ledger.start()
    yield ledger
    await ledger.close()


class TestAnIdFromAnHourThatIsClosed:
    async def test_is_made_anew_in_the_commit(self, own: Databases, ledger: Ledger) -> None:
        payer = await make_funded_wallet(own, 1_000)
        assert await close_hours(own.client)
        reached = max(await stored(own))
        await run_on(ledger, withdrawal_of(payer, 300, entry_id=made_before(reached)))
        second = await open_wallet(own)
        await run_on(
            ledger,
            transfer_of(payer, second, 70, out_entry_id=made_before(reached), in_entry_id=made_before(reached)),
        )
        entries = (
            await own.wallet["transaction_logs"].find({"_id": {"$lt": first_id_at(Prefix.ENTRY, reached)}}).to_list()
        )
        assert entries == []
        balance = await draw_up_trial_balance(own.client)
        assert balance.is_balanced
        assert (await balance_of(own)).between_wallets == AccountSum("between_wallets", "INR", 70, 70)

    async def test_is_made_anew_too_where_it_is_of_the_future(self, own: Databases, ledger: Ledger) -> None:
        payer = await make_funded_wallet(own, 1_000)
        ahead = made_before(utc_now() + timedelta(minutes=10))
        await run_on(ledger, withdrawal_of(payer, 300, entry_id=ahead))
        newest = await own.wallet["transaction_logs"].find_one(sort=[("_id", -1)])
        assert newest is not None
        assert newest["_id"] < first_id_at(Prefix.ENTRY, utc_now() + timedelta(minutes=2))

    async def test_is_made_anew_at_each_attempt(self, own: Databases, ledger: Ledger, admin: Admin) -> None:
        """The second attempt may begin when the first one's hour is over."""
        payer = await make_funded_wallet(own, 1_000)
        entry_id = made_before(utc_now() - 2 * HOUR)
        namespace = f"{own.wallet.name}.transaction_logs"
        with fail_point(
            admin,
            1,
            failCommands=["insert"],
            namespace=namespace,
            errorCode=112,
            errorLabels=["TransientTransactionError"],
        ):
            await run_on(ledger, withdrawal_of(payer, 300, entry_id=entry_id))
        found = await own.wallet["transaction_logs"].find({"type": "WITHDRAWAL"}).to_list()
        assert [one["_id"][16:] for one in found] == [entry_id[16:]]
        assert found[0]["_id"] > made_before(utc_now() - HOUR)


async def run_on(ledger: Ledger, command: Command) -> None:
    decided = await ledger.execute(command)
    assert not decided.refused, decided


class TestClosingByTheServersClock:
    async def test_asks_no_clock_of_this_process(
        self, own: Databases, hour: datetime, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A worker that is ten hours ahead would close hours that are not over."""
        wallet = await open_wallet(own)
        await deposit(own, wallet, 100, hour)
        ahead = utc_now() + 10 * HOUR
        monkeypatch.setattr(account_sums, "utc_now", lambda: ahead)
        assert await close_hours(own.client)
        assert max(await stored(own)) <= closed_through(utc_now())

    async def test_reaches_no_further_than_the_snapshot_that_is_summed(self, own: Databases) -> None:
        wallet = await open_wallet(own)
        await deposit(own, wallet, 100, utc_now())
        summed: list[datetime] = []

        async def look(session: AsyncClientSession) -> None:
            await wallet_repository.total_by_currency(session=session, limit_s=5.0)
            summed.append(snapshot_time(session))

        await read_in_snapshot(own.client, look)
        assert abs(utc_now() - summed[0]) < timedelta(seconds=30)


class TestCorrectingSums:
    async def test_adds_what_is_missing_once_and_says_why(self, own: Databases, hour: datetime) -> None:
        wallet = await open_wallet(own)
        for hours in (0, 1, 2):
            await deposit(own, wallet, 100, hour + hours * HOUR)
        assert await close_at(own, hour + 3 * HOUR + RIPE)
        before = await stored(own)
        # Past the ledger: nothing else can.
        await deposit(own, wallet, 7, hour + HOUR)
        assert not (await draw_up_trial_balance(own.client)).is_balanced
        made = await correct_sums(own.client, "restored from the bank's statement", "asha")
        assert [(one.number, one.through, one.reason, one.corrected_by) for one in made] == [
            (1, hour + 2 * HOUR, "restored from the bank's statement", "asha")
        ]
        assert made[0].sums == (AccountSum("bank", "INR", 7, 0),)
        assert (await draw_up_trial_balance(own.client)).is_balanced
        assert await stored(own) == before
        assert await correct_sums(own.client, "again", "asha") == []
        # Hours that close later go on from there.
        await deposit(own, wallet, 1, hour + 4 * HOUR)
        assert await close_at(own, hour + 5 * HOUR + RIPE)
        assert (await draw_up_trial_balance(own.client)).is_balanced
        assert await correct_sums(own.client, "again", "asha") == []

    async def test_takes_away_what_is_too_much(self, own: Databases, admin: Admin, hour: datetime) -> None:
        wallet = await open_wallet(own)
        await deposit(own, wallet, 100, hour)
        assert await close_at(own, hour + HOUR + RIPE)
        wrong = {"$set": {"sums.0.debit": Decimal128("120")}}
        admin[own.wallet.name]["account_sums"].update_one({"_id": hour + HOUR}, wrong)
        made = await correct_sums(own.client, "an administrator's mistake", "asha")
        assert [one.sums for one in made] == [(AccountSum("bank", "INR", -20, 0),)]
        assert (await draw_up_trial_balance(own.client)).is_balanced

    async def test_of_two_at_once_corrects_once(self, own: Databases, hour: datetime) -> None:
        wallet = await open_wallet(own)
        await deposit(own, wallet, 100, hour)
        await deposit(own, wallet, 100, hour + HOUR)
        assert await close_at(own, hour + 2 * HOUR + RIPE)
        await deposit(own, wallet, 7, hour)
        await deposit(own, wallet, 3, hour + HOUR)
        made = await asyncio.gather(*(correct_sums(own.client, "twice", name) for name in ("asha", "ben")))
        assert sorted(one.number for corrections in made for one in corrections) == [1, 2]
        assert (await draw_up_trial_balance(own.client)).is_balanced


class TestClosingHours:
    async def test_stores_what_was_booked_up_to_the_hours_end(self, own: Databases, hour: datetime) -> None:
        wallet = await open_wallet(own)
        await deposit(own, wallet, 100, hour)
        await deposit(own, wallet, 20, hour + HOUR - timedelta(milliseconds=1))
        await deposit(own, wallet, 3, hour + HOUR)
        assert await close_at(own, hour + HOUR + RIPE)
        assert await stored(own) == {hour + HOUR: [bank(120)]}
        assert account(await balance_of(own), "bank").debit == 123
        assert await close_at(own, hour + 2 * HOUR + RIPE)
        assert await stored(own) == {hour + HOUR: [bank(120)], hour + 2 * HOUR: [bank(123)]}
        balance = await draw_up_trial_balance(own.client)
        assert (balance.sums_through, balance.is_balanced) == (hour + 2 * HOUR, True)

    async def test_stores_what_wallets_gave_each_other_apart(self, own: Databases, hour: datetime) -> None:
        first, second = await open_wallet(own), await open_wallet(own)
        await deposit(own, first, 100, hour)
        await book(own, first, EntryType.TRANSFER_OUT, 30, second.id, at=hour)
        await book(own, second, EntryType.TRANSFER_IN, 30, first.id, at=hour)
        await close_at(own, hour + HOUR + RIPE)
        between = {"account": "between_wallets", "currency": "INR", "debit": 30, "credit": 30}
        assert await stored(own) == {hour + HOUR: [bank(100), between]}

    async def test_waits_for_entries_that_come_late(self, own: Databases, hour: datetime) -> None:
        wallet = await open_wallet(own)
        await deposit(own, wallet, 100, hour - HOUR)
        await close_at(own, hour + HOUR + RIPE - timedelta(milliseconds=1))
        assert list(await stored(own)) == [hour]
        # Its command was made before the hour's end and committed a quarter of an hour after it.
        await deposit(own, wallet, 7, hour + HOUR - timedelta(milliseconds=1))
        await close_at(own, hour + HOUR + RIPE)
        assert (await stored(own))[hour + HOUR] == [bank(107)]
        assert (await balance_of(own)).is_balanced

    async def test_passes_over_hours_without_entries_in_one_step(self, own: Databases, hour: datetime) -> None:
        wallet = await open_wallet(own)
        for hours, amount in ((0, 1), (1, 20), (100, 300)):
            await deposit(own, wallet, amount, hour + hours * HOUR)
        now = utc_now()
        assert await close_at(own, now)
        assert await stored(own) == {
            hour + HOUR: [bank(1)],
            hour + 2 * HOUR: [bank(21)],
            hour + 101 * HOUR: [bank(321)],
            closed_through(now): [bank(321)],
        }

    async def test_closes_a_day_of_busy_hours_at_a_time(self, own: Databases, hour: datetime) -> None:
        wallet = await open_wallet(own)
        for hours in range(30):
            await deposit(own, wallet, 1, hour + hours * HOUR)
        now = hour + 30 * HOUR + RIPE
        assert await close_at(own, now) is False
        assert list(await stored(own)) == [hour + hours * HOUR for hours in range(1, 25)]
        assert (await balance_of(own)).is_balanced
        assert await close_at(own, now) is True
        assert list(await stored(own)) == [hour + hours * HOUR for hours in range(1, 31)]
        assert (await stored(own))[hour + 30 * HOUR] == [bank(30)]

    async def test_of_several_workers_at_once_one_closes_each_hour(self, own: Databases, hour: datetime) -> None:
        wallet = await open_wallet(own)
        for hours in range(5):
            await deposit(own, wallet, 10, hour + hours * HOUR)
        now = hour + 5 * HOUR + RIPE
        assert await asyncio.gather(*(close_at(own, now) for _ in range(4))) == [True] * 4
        assert await stored(own) == {hour + hours * HOUR: [bank(10 * hours)] for hours in range(1, 6)}

    async def test_goes_on_where_an_id_tells_no_time(self, own: Databases, hour: datetime) -> None:
        wallet = await open_wallet(own)
        await book(own, wallet, EntryType.DEPOSIT, 9, "bank", entry_id="ent_!")
        await deposit(own, wallet, 1, hour)
        assert await close_at(own, hour + HOUR + RIPE)
        assert await stored(own) == {hour + HOUR: [bank(10)]}
