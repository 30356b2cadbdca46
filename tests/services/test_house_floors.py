"""The house pays out no currency that it does not have: floors of its accounts, on a database of their own.

Each test has a currency of its own, of which the bank has what is paid in here.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from typing import Any

import orjson
import pytest
from bson.int64 import Int64
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from scripts.check_ledger import check_ledger
from service.background import end
from service.database import bind_documents, connect, read_in_snapshot, session_in_transaction
from service.documents import User
from service.domain.audit_events import AuditEvent
from service.domain.clock import utc_now
from service.domain.house_positions import POOL, AccountCurrency, Portion
from service.domain.idempotency import IdempotencyClaim
from service.domain.identifiers import Prefix, new_id
from service.domain.incidents import Said, SaidEvent
from service.domain.operations import Operation, OperationStatus
from service.domain.policy import Policy
from service.domain.returns import Return, ReturnStatus, return_id_of
from service.domain.wallets import Wallet
from service.errors import HouseFundsExhausted, problem_body
from service.ledger.batch import Decided
from service.ledger.commands import Command
from service.ledger.committer import Committed, Ledger
from service.ledger.house_portions import PortionCache
from service.ledger.returns import CollectReturn, TakeReturn
from service.ledger.transaction import GuardMissed, prepare
from service.ledger.wallet_life import CloseWallet
from service.repositories import audit_events as audit_repository
from service.repositories import house_positions as position_repository
from service.repositories import ledger_processes as process_repository
from service.repositories import records as record_repository
from service.repositories import wallets as wallet_repository
from service.repositories.audit_events import AuditFilter
from service.services.house_positions import (
    Correction,
    FloorsNotAppliedError,
    apply_floors,
    correct_positions,
    read_positions,
)
from service.services.metrics import _read_headroom
from service.startup import Resources
from tests.books_of_their_own import OwnBooks, own_books
from tests.factories import (
    asking_of,
    change,
    conversion_of,
    current,
    deposit_of,
    failure_of,
    fund_wallet,
    gift_of,
    make_account,
    make_quote,
    make_user,
    make_wallet,
    run,
    settlement_of,
    transfer_of,
    withdrawal_of,
)
from tests.records import at
from tests.servers import Servers
from workers.house_positions import outdate_portions_for_ever

_CURRENCIES = iter(
    ("AUD", "CAD", "CHF", "CZK", "DKK", "HKD", "HUF", "ILS", "MXN", "NOK", "NZD", "PLN", "SEK", "SGD", "THB", "ZAR",
     "TRY", "RON", "PHP", "CLP", "MYR", "PEN", "UYU", "ARS", "BRL", "COP", "EGP", "ISK", "KRW", "QAR", "SAR",
     "TWD", "VND", "MAD", "KES", "LKR", "GEL", "UAH")
)  # fmt: skip


@pytest.fixture(scope="module")
async def books(servers: Servers, resources: Resources) -> AsyncIterator[OwnBooks]:
    async with own_books(servers, resources, house_floors={}) as own:
        yield own


@pytest.fixture
async def currency(books: OwnBooks) -> AsyncIterator[str]:
    """One that nobody has had before. Afterwards the books are sound."""
    currency = next(_CURRENCIES)
    yield currency
    assert await house_breaches(books, currency) == []


async def house_breaches(books: OwnBooks, currency: str) -> list[str]:
    """The bank's journal, of which nothing is in these books, is others' matter."""
    found = await check_ledger(books.admin)
    return [breach.rule for breach in found if breach.rule.startswith("house_") and breach.subject.endswith(currency)]


async def wallet_with(books: OwnBooks, currency: str, paid_in: int = 0, given: int = 0) -> Wallet:
    """`paid_in` is at the bank, `given` is a present by the house, of which the bank has nothing."""
    wallet = await make_wallet(books.databases, await make_user(books.databases), currency=currency)
    if paid_in:
        await fund_wallet(books.databases, wallet, paid_in)
    if given:
        giver = await make_user(books.databases)
        (decided,) = await run(books.databases, gift_of(wallet, given, giver.id))
        assert decided.error is None, decided
    return await current(wallet)


async def portions_of(pair: AccountCurrency) -> dict[str, int]:
    """What each owner has."""
    found = await position_repository.find_all()
    return {portion.owner: portion.headroom for portion in found if portion.pair == pair}


async def headroom_of(currency: str, account: str = "bank") -> int:
    return sum((await portions_of((account, currency))).values())


async def stored_floor_of(pair: AccountCurrency) -> int | None:
    return next(pool.floor for pool in await position_repository.find_pools() if pool.pair == pair)


def code_of(decided: Decided) -> str | None:
    return None if decided.error is None else decided.error.code


async def new_process(currency: str, name: str) -> PortionCache:
    """One that lives: its portion stays its own when others take from it."""
    own = PortionCache(f"{currency}-{name}")
    await process_repository.beat(own.owner, "tests", os.getpid(), None, [])
    return own


async def try_as(books: OwnBooks, own: PortionCache, *commands: Command) -> list[str | None]:
    """The commands as one batch of a process that remembers its portions, as the committer does it."""
    while True:
        async with books.databases.client.start_session() as session:
            try:
                prepared = await prepare(session, commands, Policy(), own)
            except GuardMissed:
                own.forget()
                continue
            await session.commit_transaction()
        own.remember(prepared.portions)
        return [code_of(decided) for decided in prepared.decided]


def return_of(operation: Operation) -> TakeReturn:
    """The bank takes a deposit back."""
    return TakeReturn(
        now=operation.updated_at,
        transaction_id=new_id(Prefix.TRANSACTION),
        operation_id=operation.id,
        wallet_id=operation.wallet_id,
        user_id=operation.user_id,
        said=Said(SaidEvent.RETURNED, None, operation.amount, operation.currency, "ret_test", "chargeback"),
        entry_id=new_id(Prefix.ENTRY),
        incident_id=new_id(Prefix.INCIDENT),
        incident_event_id=new_id(Prefix.AUDIT_EVENT),
        freeze_event_id=new_id(Prefix.AUDIT_EVENT),
    )


def closing_of(wallet: Wallet) -> CloseWallet:
    """By its owner."""
    return CloseWallet(
        now=utc_now(),
        transaction_id=new_id(Prefix.TRANSACTION),
        user_id=wallet.user_id,
        token_version=None,
        audit_event_id=new_id(Prefix.AUDIT_EVENT),
        reason=None,
        wallet_id=wallet.id,
        is_admin=False,
    )


def collection_of(returned: Return, admin: User) -> CollectReturn:
    return CollectReturn(
        now=utc_now(),
        transaction_id=new_id(Prefix.TRANSACTION),
        user_id=admin.id,
        token_version=None,
        audit_event_id=new_id(Prefix.AUDIT_EVENT),
        reason="The wallet is open again",
        return_id=returned.id,
        wallet_id=returned.wallet_id,
        entry_id=new_id(Prefix.ENTRY),
    )


class TestTheTrial:
    async def test_euros_that_nobody_brought_in_are_not_paid_out(self, books: OwnBooks) -> None:
        asha, _ = await make_account(books.databases, balance=1_000_000)
        euros = await make_wallet(books.databases, asha, currency="EUR")
        quote = await make_quote(books.databases, asha, to_currency="EUR", to_amount=10_000)
        (converted,) = await run(books.databases, conversion_of(quote))
        (paid,) = await run(books.databases, withdrawal_of(euros, 10_000))
        assert code_of(converted) == "house_funds_exhausted"
        assert "insufficient_funds" in str(paid.answer), "she has got no euros"
        assert (await current(euros)).seq == 0

    async def test_nor_when_the_exchange_may_give_them(self, books: OwnBooks) -> None:
        """The house may let wallets have them, and still has none at the bank."""
        asha, _ = await make_account(books.databases, balance=1_000_000)
        pounds = await make_wallet(books.databases, asha, currency="GBP")
        await apply_floors(books.databases.client, {("house:fx", "GBP"): -10_000})
        quote = await make_quote(books.databases, asha, to_currency="GBP", to_amount=10_000)
        (converted,) = await run(books.databases, conversion_of(quote))
        (paid,) = await run(books.databases, withdrawal_of(pounds, 10_000))
        assert (code_of(converted), code_of(paid)) == (None, "house_funds_exhausted")
        # And no more than it may.
        further = await make_quote(books.databases, asha, to_currency="GBP", to_amount=1)
        (refused,) = await run(books.databases, conversion_of(further))
        assert code_of(refused) == "house_funds_exhausted"
        await apply_floors(books.databases.client, {})


class TestAWithdrawal:
    async def test_that_is_refused_says_nothing_of_amounts_and_leaves_nothing(
        self, books: OwnBooks, currency: str
    ) -> None:
        wallet = await wallet_with(books, currency, paid_in=100, given=900)
        before = await portions_of(("bank", currency))
        (decided,) = await run(books.databases, withdrawal_of(wallet, 101))
        assert isinstance(decided.error, HouseFundsExhausted)
        body = orjson.loads(problem_body(decided.error, None))
        assert (body["currency"], body["status"]) == (currency, 422)
        assert "100" not in str({**body, "request_id": None})
        assert await current(wallet) == wallet
        assert await portions_of(("bank", currency)) == before, "an exhausted house costs no writes"

    async def test_goes_through_under_its_key_once_the_house_has_the_money(
        self, books: OwnBooks, currency: str
    ) -> None:
        wallet = await wallet_with(books, currency, given=900)
        asked = withdrawal_of(wallet, 900)
        (refused,) = await run(books.databases, asked)
        await wallet_with(books, currency, paid_in=900)
        (accepted,) = await run(books.databases, asked)
        assert (code_of(refused), code_of(accepted)) == ("house_funds_exhausted", None)
        assert isinstance(accepted.record, Operation)
        assert await headroom_of(currency) == 0

    async def test_that_was_made_under_a_key_whose_answer_has_expired_is_told_of_while_the_house_is_exhausted(
        self, books: OwnBooks, currency: str
    ) -> None:
        """Told that nothing moved, the client would pay a second time under a new key."""
        wallet = await wallet_with(books, currency, paid_in=100, given=900)
        claim = IdempotencyClaim(f"{wallet.user_id}:{currency}", "same", at(10**7), key_hashes=(currency.lower() * 11,))
        (made,) = await run(books.databases, withdrawal_of(wallet, 100, claim=claim))
        assert isinstance(made.record, Operation)
        await books.admin.wallet["idempotency_keys"].delete_one({"_id": claim.id})
        (again,) = await run(books.databases, withdrawal_of(wallet, 100, claim=claim))
        assert code_of(again) is None
        assert again.given.replayed
        assert made.record.id in str(again.given.body)
        assert await headroom_of(currency) == 0

    async def test_that_fails_gives_back_what_it_took_and_one_that_is_paid_takes_nothing_more(
        self, books: OwnBooks, currency: str
    ) -> None:
        wallet = await wallet_with(books, currency, paid_in=100)
        first = await change(books.databases, withdrawal_of(wallet, 100))
        assert await headroom_of(currency) == 0
        await change(books.databases, failure_of(first))
        assert await headroom_of(currency) == 100
        second = await change(books.databases, withdrawal_of(wallet, 70))
        await change(books.databases, settlement_of(second))
        assert await headroom_of(currency) == 30

    async def test_is_decided_after_those_before_it_in_its_batch(self, books: OwnBooks, currency: str) -> None:
        wallet = await wallet_with(books, currency, paid_in=100, given=900)
        own = PortionCache(currency)
        codes = await try_as(books, own, *(withdrawal_of(wallet, amount) for amount in (60, 60, 40, 1)))
        assert codes == [None, "house_funds_exhausted", None, "house_funds_exhausted"]


class TestAReturn:
    async def test_goes_below_the_floor_and_whoever_wants_more_waits_until_it_is_back(
        self, books: OwnBooks, currency: str
    ) -> None:
        """Of two processes, the one that does not know of it spends nothing that it remembers."""
        databases = books.databases
        taken = await wallet_with(books, currency)
        deposit = await fund_wallet(databases, taken, 1_000)
        other = await wallet_with(books, currency, paid_in=100, given=2_000)
        one, two = await new_process(currency, "one"), await new_process(currency, "two")
        # Each has some.
        assert await try_as(books, one, withdrawal_of(taken, 500)) == [None]
        assert await try_as(books, two, withdrawal_of(other, 500)) == [None]
        assert two.remembered["bank", currency].headroom > 0
        assert await try_as(books, one, return_of(deposit)) == [None]
        assert await headroom_of(currency) == 100 - 1_000
        returned = await record_repository.find(return_id_of(deposit.id), Return)
        assert returned is not None
        assert returned.status is ReturnStatus.OWED
        assert await try_as(books, two, withdrawal_of(other, 1)) == ["house_funds_exhausted"]
        # What comes in first makes good what is missing, whoever books it.
        late = await change(databases, settlement_of(await _asked(books, other, 850)))
        assert late.status is OperationStatus.SUCCESS
        assert await try_as(books, two, withdrawal_of(other, 1)) == ["house_funds_exhausted"]
        await wallet_with(books, currency, paid_in=51)
        assert await try_as(books, two, withdrawal_of(other, 2)) == ["house_funds_exhausted"]
        assert await try_as(books, two, withdrawal_of(other, 1)) == [None]
        assert await headroom_of(currency) == 0

    async def test_that_is_owed_counts_once_and_its_payment_changes_nothing(
        self, books: OwnBooks, currency: str
    ) -> None:
        databases = books.databases
        wallet = await wallet_with(books, currency)
        deposit = await fund_wallet(databases, wallet, 1_000)
        paid = await change(databases, withdrawal_of(wallet, 400))
        await run(databases, asking_of(paid))
        await run(databases, return_of(deposit))
        assert await headroom_of(currency) == -400, "600 went back, and 400 are owed"
        # What comes back from the bank pays 400 of it.
        await change(databases, failure_of(paid), is_bank_asked=False)
        assert (await current(wallet)).owed == 0
        assert await headroom_of(currency) == 0

    async def test_to_a_closed_wallet_counts_although_nothing_can_be_booked(
        self, books: OwnBooks, currency: str
    ) -> None:
        """The bank has its money back, whatever the wallet is: a friend must not be paid with what is gone."""
        databases = books.databases
        thief, friend = await wallet_with(books, currency), await wallet_with(books, currency)
        deposit = await fund_wallet(databases, thief, 1_000)
        (sent,) = await run(databases, transfer_of(await current(thief), friend, 1_000))
        assert sent.given.status_code == 201
        (closed,) = await run(databases, closing_of(thief))
        assert code_of(closed) is None
        (taken,) = await run(databases, return_of(deposit))
        assert isinstance(taken.record, Return)
        assert taken.record.status is ReturnStatus.REQUIRES_REVIEW
        (paid,) = await run(databases, withdrawal_of(await current(friend), 1_000))
        assert code_of(paid) == "house_funds_exhausted", "of the 1,000 that came in the bank has none"
        assert await headroom_of(currency) == 0
        # Booked later, it counts no second time.
        await books.admin.wallet["wallets"].update_one({"_id": thief.id}, {"$set": {"status": "active"}})
        (booked,) = await run(databases, collection_of(taken.record, await make_user(databases)))
        assert code_of(booked) is None
        assert (await current(thief)).owed == 1_000
        assert await headroom_of(currency) == 0


class TestBelowTheFloor:
    """An account whose portions add up to less than 0, after the bank has taken a deposit back."""

    @staticmethod
    async def go_below(books: OwnBooks, currency: str, *processes: PortionCache) -> Wallet:
        """Leaves -90 there, and each process with a portion of 0. The wallet returned has 1,000."""
        taken, other = await wallet_with(books, currency), await wallet_with(books, currency, given=1_000)
        deposit = await fund_wallet(books.databases, taken, 100)
        assert await try_as(books, processes[0], withdrawal_of(taken, 100)) == [None]
        assert await try_as(books, processes[0], return_of(deposit)) == [None]
        for own in processes:
            assert await try_as(books, own, settlement_of(await _asked(books, other, 5))) == [None]
        assert await headroom_of(currency) == -100 + 5 * len(processes)
        return other

    async def test_a_deposit_writes_the_portion_of_its_own_process_alone(self, books: OwnBooks, currency: str) -> None:
        one, two = await new_process(currency, "one"), await new_process(currency, "two")
        other = await self.go_below(books, currency, one, two)
        before = {row.owner: row for row in await _all() if row.pair == ("bank", currency)}
        assert await try_as(books, one, settlement_of(await _asked(books, other, 7))) == [None]
        after = {row.owner: row for row in await _all() if row.pair == ("bank", currency)}
        assert {name for name, row in after.items() if row != before.get(name)} == {one.owner}
        assert after[POOL].headroom == -100

    async def test_nobody_pays_from_what_has_come_in_until_that_is_enough(self, books: OwnBooks, currency: str) -> None:
        one, two = await new_process(currency, "one"), await new_process(currency, "two")
        other = await self.go_below(books, currency, one, two)
        paid_in = settlement_of(await _asked(books, other, 50))
        # Not in the same batch either.
        assert await try_as(books, one, paid_in, withdrawal_of(other, 50)) == [None, "house_funds_exhausted"]
        assert await try_as(books, two, settlement_of(await _asked(books, other, 45))) == [None]
        assert await headroom_of(currency) == 5
        assert await try_as(books, one, withdrawal_of(other, 6)) == ["house_funds_exhausted"]
        assert await try_as(books, one, withdrawal_of(other, 4)) == [None]
        assert await try_as(books, two, withdrawal_of(other, 1)) == [None]
        assert min((await portions_of(("bank", currency))).values()) == 0 == await headroom_of(currency)

    async def test_portions_of_an_account_without_a_floor_are_left_alone(self, books: OwnBooks, currency: str) -> None:
        """Such an account is below 0 all its life, and each process that starts adds one portion to it."""
        pair, wallet = ("house:adjustments", currency), await wallet_with(books, currency)
        one, two = await new_process(currency, "one"), await new_process(currency, "two")
        giver = await make_user(books.databases)
        await run(books.databases, gift_of(wallet, 3, giver.id), own=one)
        (before,) = [row for row in await _all() if row.id == f"{'/'.join(pair)}/{one.owner}"]
        await run(books.databases, gift_of(wallet, 4, giver.id), own=two)
        assert before in await _all()
        assert await headroom_of(currency, "house:adjustments") == -7


async def _asked(books: OwnBooks, wallet: Wallet, amount: int) -> Operation:
    operation = await change(books.databases, deposit_of(wallet, amount))
    await run(books.databases, asking_of(operation))
    return operation


class TestPortions:
    async def test_of_an_ordinary_batch_are_one_update_and_no_read(
        self, books: OwnBooks, currency: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wallet = await wallet_with(books, currency, paid_in=100)
        own = PortionCache(currency)
        assert await try_as(books, own, withdrawal_of(wallet, 10)) == [None]

        async def not_read(*_: Any, **__: Any) -> Any:
            raise AssertionError("it is remembered")

        monkeypatch.setattr(position_repository, "find_of", not_read)
        written: list[int] = []
        write = position_repository.write_guarded

        async def counted(updates: Sequence[Any], **session: Any) -> bool:
            written.append(len(updates))
            return await write(updates, **session)

        monkeypatch.setattr(position_repository, "write_guarded", counted)
        assert await try_as(books, own, withdrawal_of(wallet, 10), withdrawal_of(wallet, 5)) == [None, None]
        assert written == [1]

    async def test_are_not_read_again_for_a_race_that_was_lost_for_a_wallet(
        self, books: OwnBooks, currency: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wallet = await wallet_with(books, currency, paid_in=100)
        limits: dict[str, Any] = {"policy": Policy(), "batch_limit": 16, "queue_limit": 100, "patience_s": 60.0}
        committed: list[Committed] = []
        ledger = Ledger(books.databases.client, **limits, on_committed=committed.append)
        ledger.start()
        try:
            await ledger.execute(withdrawal_of(wallet, 10))
            find, update = position_repository.find_of, wallet_repository.update_guarded
            reads: list[int] = []
            lost: list[int] = []

            async def counted(pairs: Any, **session: Any) -> Any:
                reads.append(1)
                return await find(pairs, **session)

            async def lose_once(updates: Any, **session: Any) -> bool:
                won = await update(updates, **session)
                lost.append(1)
                return won and len(lost) > 1

            monkeypatch.setattr(position_repository, "find_of", counted)
            monkeypatch.setattr(wallet_repository, "update_guarded", lose_once)
            await ledger.execute(withdrawal_of(wallet, 10))
        finally:
            await ledger.close()
        assert (len(lost), reads, committed[-1].conflicts) == (2, [], 1)

    async def test_are_taken_from_others_where_ones_own_is_too_small(self, books: OwnBooks, currency: str) -> None:
        wallet = await wallet_with(books, currency, paid_in=100, given=100)
        one, two = await new_process(currency, "one"), await new_process(currency, "two")
        assert await try_as(books, one, withdrawal_of(wallet, 1)) == [None]
        assert await try_as(books, two, withdrawal_of(wallet, 99)) == [None]
        assert await headroom_of(currency) == 0
        # What the first one remembers is no longer there.
        assert one.remembered["bank", currency].headroom > 0
        assert (await portions_of(("bank", currency)))[one.owner] == 0
        assert await try_as(books, one, withdrawal_of(wallet, 1)) == ["house_funds_exhausted"]

    async def test_of_processes_that_are_gone_are_counted_and_do_not_pile_up(
        self, books: OwnBooks, currency: str
    ) -> None:
        wallet = await wallet_with(books, currency, paid_in=100)
        for number in range(5):
            assert await try_as(books, PortionCache(f"{currency}-{number}"), withdrawal_of(wallet, 1)) == [None]
        assert len(await portions_of(("bank", currency))) <= 3
        assert await headroom_of(currency) == 95

    async def test_of_accounts_without_a_floor_are_kept_and_refuse_nothing(
        self, books: OwnBooks, currency: str
    ) -> None:
        await wallet_with(books, currency, given=100)
        assert await headroom_of(currency, "house:adjustments") == -100

    async def test_with_a_stated_floor_refuse_what_goes_below_it(self, books: OwnBooks, currency: str) -> None:
        pair = ("house:adjustments", currency)
        wallet = await wallet_with(books, currency)
        policy = Policy(house_floors={pair: -100})
        await apply_floors(books.databases.client, policy.house_floors)
        giver = await make_user(books.databases)
        codes = [code_of(one) for one in await run(books.databases, gift_of(wallet, 60, giver.id),
                                                   gift_of(wallet, 41, giver.id),
                                                   gift_of(wallet, 40, giver.id), policy=policy)]  # fmt: skip
        assert codes == [None, "house_funds_exhausted", None]
        await apply_floors(books.databases.client, {})

    async def test_with_a_floor_that_a_process_has_not_read_yet_are_guarded_by_it(
        self, books: OwnBooks, currency: str
    ) -> None:
        """While processes are restarted one after the other, the stored floor decides, not each one's settings."""
        pair, databases = ("house:adjustments", currency), books.databases
        wallet = await wallet_with(books, currency)
        old, new = await new_process(currency, "old"), await new_process(currency, "new")
        policy = Policy(house_floors={pair: -100})
        giver = await make_user(books.databases)
        await run(databases, gift_of(wallet, 1, giver.id), own=old)
        await apply_floors(databases.client, policy.house_floors)
        (given,) = await run(databases, gift_of(wallet, 10, giver.id), policy=policy, own=new)
        (refused,) = await run(databases, gift_of(wallet, 500, giver.id), own=old)
        assert (code_of(given), code_of(refused)) == (None, "house_funds_exhausted")
        assert await headroom_of(*reversed(pair)) == 89
        await apply_floors(databases.client, {})
        # And the other way around: no floor is left.
        (given,) = await run(databases, gift_of(wallet, 500, giver.id), policy=policy, own=new)
        assert code_of(given) is None


async def events_of(pair: AccountCurrency) -> list[AuditEvent]:
    """The newest first."""
    return await audit_repository.find_newest(AuditFilter(subject_id="/".join(pair)), before_id=None, limit=10)


async def _change_and_die(books: OwnBooks, pair: AccountCurrency, floor: int) -> None:
    """Raises the floor from 0 as a start does that dies before it has outdated any portion."""
    (pool,) = [one for one in await position_repository.find_pools() if one.pair == pair]
    async with session_in_transaction(books.databases.client) as session:
        assert await position_repository.change_pool(pool, floor, -floor, session=session)


class TestFloors:
    async def test_that_are_changed_stand_on_record(self, books: OwnBooks, currency: str) -> None:
        """Once, by ten processes."""
        pair, client = ("bank", currency), books.databases.client
        await wallet_with(books, currency, paid_in=100)
        await asyncio.gather(*(apply_floors(client, {pair: -50}) for _ in range(10)))
        (event,) = await events_of(pair)
        assert (event.action, event.actor_id) == ("house_floor.changed", "settings")
        assert event.details == {"was_floor": 0, "floor": -50}
        assert await headroom_of(currency) == 150
        await apply_floors(client, {})
        assert len(await events_of(pair)) == 2

    async def test_that_are_stated_anew_are_applied_once_by_ten_at_once(self, books: OwnBooks, currency: str) -> None:
        pair = ("bank", currency)
        wallet = await wallet_with(books, currency, paid_in=100, given=900)
        client = books.databases.client
        own = PortionCache(currency)
        assert await try_as(books, own, withdrawal_of(wallet, 10)) == [None]
        for floor, headroom in ((-500, 590), (50, 40), (200, -110)):
            await asyncio.gather(*(apply_floors(client, {pair: floor}) for _ in range(10)))
            assert await headroom_of(currency) == headroom
        assert await try_as(books, own, withdrawal_of(wallet, 1)) == ["house_funds_exhausted"]
        assert await house_breaches(books, currency) == ["house_below_floor"]
        await apply_floors(client, {})
        assert await headroom_of(currency) == 90

    async def test_that_are_changed_do_not_fail_while_a_process_writes_its_portion(
        self, books: OwnBooks, currency: str
    ) -> None:
        """A busy process has its portion in a transaction most of the time, and several busy ones always do."""
        pair, client = ("bank", currency), books.databases.client
        wallet = await wallet_with(books, currency, paid_in=100)
        own = await new_process(currency, "busy")
        assert await try_as(books, own, withdrawal_of(wallet, 10)) == [None]
        async with client.start_session() as session:
            await prepare(session, [withdrawal_of(wallet, 10)], Policy(), own)
            applied = asyncio.create_task(apply_floors(client, {pair: 80}))
            while await stored_floor_of(pair) != 80 and not applied.done():  # noqa: ASYNC110 no event in a database
                await asyncio.sleep(0.02)
            assert not applied.done(), "it waits for the process"
            await session.commit_transaction()
        await applied
        # It has remembered what its portion was.
        assert await try_as(books, own, withdrawal_of(wallet, 1)) == ["house_funds_exhausted"]
        assert await headroom_of(currency) == 0
        await apply_floors(client, {})

    async def test_that_a_process_changed_before_it_died_reach_the_others_at_the_next_start(
        self, books: OwnBooks, currency: str
    ) -> None:
        pair, client = ("bank", currency), books.databases.client
        wallet = await wallet_with(books, currency, paid_in=100)
        own = await new_process(currency, "one")
        assert await try_as(books, own, withdrawal_of(wallet, 1)) == [None]
        await _change_and_die(books, pair, 95)
        await apply_floors(client, {pair: 95})
        assert own.remembered[pair].headroom >= 5
        assert await try_as(books, own, withdrawal_of(wallet, 5)) == ["house_funds_exhausted"]
        assert await try_as(books, own, withdrawal_of(wallet, 4)) == [None]
        await apply_floors(client, {})

    async def test_that_a_process_changed_before_it_died_reach_the_others_by_a_worker(
        self, books: OwnBooks, currency: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pair = ("bank", currency)
        wallet = await wallet_with(books, currency, paid_in=100)
        own = await new_process(currency, "one")
        assert await try_as(books, own, withdrawal_of(wallet, 1)) == [None]
        await _change_and_die(books, pair, 95)
        monkeypatch.setattr("workers.house_positions._LOOK_S", 0.02)
        task = asyncio.create_task(outdate_portions_for_ever(books.resources))
        try:
            async with asyncio.timeout(20):
                while await position_repository.find_outdated():  # noqa: ASYNC110 no event in a database
                    await asyncio.sleep(0.02)
        finally:
            await end(task)
        assert own.remembered[pair].headroom >= 5
        assert await try_as(books, own, withdrawal_of(wallet, 5)) == ["house_funds_exhausted"]
        assert await try_as(books, own, withdrawal_of(wallet, 4)) == [None]
        await apply_floors(books.databases.client, {})

    async def test_that_a_process_has_read_in_all_portions_hold_for_what_it_remembers_too(
        self, books: OwnBooks, currency: str
    ) -> None:
        """Its own portion has not been outdated yet, since whoever changed the floor died before."""
        pair = ("bank", currency)
        wallet = await wallet_with(books, currency, paid_in=100, given=100)
        own = await new_process(currency, "one")
        assert await try_as(books, own, withdrawal_of(wallet, 1)) == [None]
        await _change_and_die(books, pair, 95)
        left = own.remembered[pair].headroom
        assert left >= 5
        # More than it remembers: so it reads all portions, and the pool among them.
        assert await try_as(books, own, withdrawal_of(wallet, left + 1)) == ["house_funds_exhausted"]
        assert await try_as(books, own, withdrawal_of(wallet, 5)) == ["house_funds_exhausted"]
        assert await try_as(books, own, withdrawal_of(wallet, 4)) == [None]
        assert await headroom_of(currency) == 0
        await apply_floors(books.databases.client, {})

    async def test_are_changed_in_pools_of_earlier_releases(self, books: OwnBooks, currency: str) -> None:
        pair, client = ("bank", currency), books.databases.client
        await wallet_with(books, currency, paid_in=100)
        of_pool = {"_id": f"bank/{currency}/pool"}
        rows = books.admin.wallet["house_positions"]
        await rows.update_one(of_pool, {"$unset": {"floor_version": ""}, "$set": {"changes": Int64(3)}})
        await asyncio.gather(*(apply_floors(client, {pair: -50}) for _ in range(3)))
        assert await headroom_of(currency) == 150
        row = await rows.find_one(of_pool)
        assert row is not None
        assert (row["floor"], row["floor_version"], "changes" in row) == (-50, 4, False)
        assert len(await events_of(pair)) == 1
        await apply_floors(client, {})

    async def test_that_cannot_be_applied_end_with_an_error(
        self, books: OwnBooks, currency: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("service.services.house_positions._PAUSE_S", 0.0)
        rows = books.admin.wallet["house_positions"]
        by_hand = {"account": "bank", "currency": currency, "owner": "pool", "headroom": Int64(0), "version": Int64(0)}
        await rows.insert_one({"_id": "by hand", "floor": Int64(0), "floor_version": Int64(0), **by_hand})
        client = books.databases.client
        try:
            async with asyncio.timeout(60):
                with pytest.raises(FloorsNotAppliedError):
                    await apply_floors(client, {("bank", currency): -50})
                await rows.update_one({"_id": "by hand"}, {"$set": {"headroom": Int64(7)}})
                with pytest.raises(FloorsNotAppliedError):
                    await correct_positions(client, "a test", "tests", lambda _: None)
        finally:
            await rows.delete_one({"_id": "by hand"})

    async def test_at_the_first_start_with_old_books_go_by_what_those_say(self, books: OwnBooks, currency: str) -> None:
        """Of ten processes that start at once one writes it."""
        databases = books.databases
        wallet = await wallet_with(books, currency)
        deposit = await fund_wallet(databases, wallet, 1_000)
        await change(databases, settlement_of(await change(databases, withdrawal_of(wallet, 300))))
        await change(databases, withdrawal_of(wallet, 200))
        await run(databases, return_of(deposit))
        before = {(one.pair): await headroom_of(one.currency, one.account) for one in await _all()}
        assert before["bank", currency] == -500
        await books.admin.wallet["house_positions"].delete_many({})
        await asyncio.gather(*(apply_floors(databases.client, {}) for _ in range(10)))
        assert {one.pair: one.headroom for one in await _all()} == before
        assert {one.owner for one in await _all()} == {POOL}

    async def test_read_the_books_in_bounded_time(self, books: OwnBooks, currency: str) -> None:
        """The sums, too, that have no index."""
        await wallet_with(books, currency, paid_in=1)
        heard = ReadLimits()
        settings = books.resources.settings
        listened = connect(settings.mongo_url.get_secret_value(), settings, [heard])
        try:
            await bind_documents(listened)
            assert (await read_in_snapshot(listened.client, _read_positions))["bank", currency] == 1
        finally:
            await bind_documents(books.databases)
            await listened.client.close()
        assert len(heard.limits_ms) == 6
        assert all(limit_ms is not None and limit_ms <= 240_000 for limit_ms in heard.limits_ms), heard.limits_ms

    async def test_are_put_right_where_the_portions_are_not_what_the_books_say(
        self, books: OwnBooks, currency: str
    ) -> None:
        """As after processes of an earlier release, or somebody's own hand."""
        wallet = await wallet_with(books, currency, paid_in=100)
        pair = ("bank", currency)
        await books.admin.wallet["house_positions"].update_one(
            {"account": "bank", "currency": currency}, {"$inc": {"headroom": Int64(55)}}
        )
        assert await house_breaches(books, currency) == ["house_position"]
        told: list[Correction] = []
        await correct_positions(books.databases.client, "An upgrade", "ops", told.append)
        assert told == [(*pair, 155, 100)]
        await books.admin.wallet["house_positions"].delete_many({"account": "bank", "currency": currency})
        for _ in range(2):
            await correct_positions(books.databases.client, "An upgrade", "ops", told.append)
        assert told[1:] == [(*pair, 0, 100)]
        events = await events_of(pair)
        assert [(one.actor_id, one.reason) for one in events] == [("ops", "An upgrade")] * 2
        assert events[1].details == {"headroom_before": 155, "headroom_after": 100}
        assert [code_of(one) for one in await run(books.databases, withdrawal_of(wallet, 100))] == [None]


async def _read_positions(session: AsyncClientSession) -> dict[AccountCurrency, int]:
    return await read_positions(session=session)


class ReadLimits(CommandListener):
    """Keeps how long the server may take for each read of one moment: what runs in the background reads otherwise."""

    def __init__(self) -> None:
        self.limits_ms: list[int | None] = []

    def started(self, event: CommandStartedEvent) -> None:
        if event.command.get("readConcern", {}).get("level") == "snapshot":
            self.limits_ms.append(event.command.get("maxTimeMS"))

    def succeeded(self, event: CommandSucceededEvent) -> None: ...

    def failed(self, event: CommandFailedEvent) -> None: ...


class TestWhatIsShown:
    async def test_to_prometheus_is_what_accounts_with_a_floor_can_give(self, books: OwnBooks, currency: str) -> None:
        await wallet_with(books, currency, paid_in=100, given=30)
        own = PortionCache(f"{currency}-shown")
        assert await try_as(books, own, withdrawal_of(await wallet_with(books, currency, given=5), 5)) == [None]
        (shown,) = (await _read_headroom()).values()
        assert shown["bank", currency] == 95
        # Gifts have no floor, and nothing of theirs can run out.
        assert ("house:adjustments", currency) not in shown


async def _all() -> list[Portion]:
    return await position_repository.find_all()


class TestTwoProcesses:
    async def test_pay_out_exactly_what_is_there_whoever_has_it(self, books: OwnBooks, currency: str) -> None:
        """Of 200 withdrawals of 1 to 9 at once, against 300 at the bank, through two ledgers with 8 wallets each."""
        wallets = [await wallet_with(books, currency, given=1_000) for _ in range(16)]
        await wallet_with(books, currency, paid_in=300)
        committed: list[Committed] = []
        limits: dict[str, Any] = {"policy": Policy(), "batch_limit": 16, "queue_limit": 2_000, "patience_s": 60.0}
        both = [Ledger(books.databases.client, **limits, on_committed=committed.append) for _ in range(2)]
        for ledger in both:
            ledger.start()
        amounts = [1 + n % 9 for n in range(200)]

        async def ask(n: int, amount: int) -> int:
            try:
                await both[n % 2].execute(withdrawal_of(wallets[n % 16], amount))
            except HouseFundsExhausted:
                return 0
            return amount

        try:
            paid = await asyncio.gather(*(ask(n, amount) for n, amount in enumerate(amounts)))
            left = 300 - sum(paid)
            assert await headroom_of(currency) == left >= 0
            refusals = [one for batch in committed for one in batch.exhausted_currencies]
            assert refusals == [currency] * paid.count(0), "each refusal is counted for the metric"
            # What is left is less than what anybody was refused at the end, and goes to whoever asks either of them.
            assert left < max(amounts)
            assert sum([await ask(n, 1) for n in range(left + 4)]) == left
        finally:
            for ledger in both:
                await ledger.close()

    async def test_of_which_one_dies_with_its_writes_made_lose_nothing(self, books: OwnBooks, currency: str) -> None:
        """Portion and money are one transaction: neither is there without the other."""
        wallet = await wallet_with(books, currency, paid_in=100)
        own = PortionCache(f"{currency}-dead")
        async with books.databases.client.start_session() as session:
            prepared = await prepare(session, [withdrawal_of(wallet, 60)], Policy(), own)
            assert prepared.portions
            await session.abort_transaction()
        assert await headroom_of(currency) == 100
        assert await try_as(books, PortionCache(f"{currency}-alive"), withdrawal_of(wallet, 100)) == [None]
