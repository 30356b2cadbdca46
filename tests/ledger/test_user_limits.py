"""Limits of a user over all wallets, and the zone that they count in: what meets them, and what meets at once."""

import asyncio
from datetime import UTC, datetime, timedelta
from types import NoneType
from typing import Any

import pytest
from pymongo.errors import OperationFailure

from service.database import Databases
from service.domain.clock import utc_now
from service.domain.idempotency import IdempotencyClaim
from service.domain.identifiers import Prefix, new_id
from service.domain.limits import Limits
from service.domain.operations import Operation
from service.domain.policy import Policy
from service.domain.quotes import Rate
from service.domain.user_limits import ReferenceLimits, UserLimits, user_limits_id
from service.domain.wallets import new_wallet
from service.errors import LimitExceeded, RateUnavailable
from service.ledger import transaction
from service.ledger.batch import Loaded
from service.ledger.house_portions import PortionCache
from service.ledger.transaction import Attempt, further_records, prepare
from service.ledger.user_limits import OverrideUserLimits, SetTimeZone
from service.repositories import records as record_repository
from service.services.orders import Requester
from service.services.wallets import open_wallet
from tests.books import Books
from tests.factories import current, failure_of, fund_wallet, make_user, make_wallet, run, withdrawal_of
from tests.ledger.conftest import TwoLedgers
from tests.servers import Admin

_TIMES = 10
# Ten at night in UTC: the next day has begun in Kiritimati, and is far away in Pago Pago.
_NOW = datetime(2026, 11, 21, 22, tzinfo=UTC)


def zone_set(user_id: str, zone: str | None, **fields: Any) -> SetTimeZone:
    common: dict[str, Any] = {
        "now": _NOW,
        "transaction_id": new_id(Prefix.TRANSACTION),
        "audit_event_id": new_id(Prefix.AUDIT_EVENT),
        "user_id": user_id,
        "token_version": None,
        "reason": None,
    }
    return SetTimeZone(**common | fields, time_zone=zone)


def _used_in(books: Books) -> tuple[str, int, int]:
    usage = books.wallets["wal_ada"].usage
    return usage.day, usage.day_total, usage.month_total


class TestAChange:
    def test_lies_between_the_payments_before_it_and_those_after_it_however_close_they_are(self) -> None:
        """Or a payment of the old day would be given back to the new one, where it was never counted."""
        wallet = new_wallet("wal_ada", "usr_ada", "USD", _NOW)._replace(available=5_000)
        books = Books({"usr_ada": 0}, {"wal_ada": wallet})
        first, second = (withdrawal_of(wallet, amount, now=_NOW, claim=None) for amount in (300, 70))
        books.run([first])
        assert _used_in(books) == ("2026-11-21", 300, 300)
        books.run([zone_set("usr_ada", "Pacific/Kiritimati"), second])
        # The running day goes on, and lasts until the next one ends over there.
        assert _used_in(books) == ("2026-11-22", 370, 370)
        books.run([failure_of(books.operations[first.operation_id], now=_NOW)])
        assert _used_in(books) == ("2026-11-22", 70, 70)
        books.run([failure_of(books.operations[second.operation_id], now=_NOW)])
        assert _used_in(books) == ("2026-11-22", 0, 0)

    @pytest.mark.parametrize(
        "policy",
        [
            Policy(limits={"USD": Limits(per_day=150)}),
            Policy(user_limits=ReferenceLimits("USD", Limits(per_day=150), {"USD": Rate(1, 1, "test", _NOW)})),
        ],
        ids=["of-the-wallet", "over-all-wallets"],
    )
    def test_gives_nobody_the_limit_of_a_day_once_more(self, policy: Policy) -> None:
        wallet = new_wallet("wal_ada", "usr_ada", "USD", _NOW)._replace(available=5_000)
        books = Books({"usr_ada": 0}, {"wal_ada": wallet}, policy=policy)
        books.run([withdrawal_of(wallet, 100, now=_NOW, claim=None)])
        for zone in ("Pacific/Kiritimati", "Pacific/Pago_Pago", None):
            _, paid = books.run([zone_set("usr_ada", zone), withdrawal_of(wallet, 100, now=_NOW, claim=None)])
            assert isinstance(paid.error, LimitExceeded)

    def test_copies_the_zone_into_each_wallet_whatever_its_state(self) -> None:
        wallets = {
            f"wal_{currency}": new_wallet(f"wal_{currency}", "usr_ada", currency, _NOW + timedelta(seconds=ahead))
            for ahead, currency in enumerate(("INR", "USD", "EUR"))
        }
        other = new_wallet("wal_bo", "usr_bo", "INR", _NOW)
        books = Books({"usr_ada": 0, "usr_bo": 0}, {**wallets, "wal_bo": other})
        books.run([zone_set("usr_ada", "Pacific/Apia")])
        for name, before in wallets.items():
            after = books.wallets[name]
            assert (after.owner_time_zone, after.zone_name) == ("Pacific/Apia", "Pacific/Apia")
            assert after.updated_at > before.updated_at
        assert books.wallets["wal_bo"] == other
        record = books.records["ulm_ada"]
        assert isinstance(record, UserLimits)
        assert record.updated_at == max(wallet.updated_at for wallet in books.wallets.values())


class TestAtTheSameMoment:
    async def test_a_wallet_is_opened_it_has_the_zone_whichever_came_first(
        self, ledgers: TwoLedgers, databases: Databases
    ) -> None:
        for _ in range(_TIMES):
            user = await make_user(databases)
            await make_wallet(databases, user)
            opened, _ = await asyncio.gather(
                open_wallet(databases.client, Requester(user.id, None), "EUR", Policy()),
                ledgers.first.execute(zone_set(user.id, "Pacific/Apia", now=utc_now())),
            )
            known = await record_repository.find(user_limits_id(user.id), UserLimits)
            assert known is not None
            assert ((await current(opened)).owner_time_zone, known.time_zone) == ("Pacific/Apia", "Pacific/Apia")

    async def test_two_set_it_and_one_of_them_is_the_last(self, ledgers: TwoLedgers, databases: Databases) -> None:
        zones = ("Pacific/Apia", "Asia/Tokyo")
        for _ in range(_TIMES):
            user = await make_user(databases)
            wallets = [await make_wallet(databases, user, currency=currency) for currency in ("INR", "USD")]
            await asyncio.gather(
                *(
                    ledger.execute(zone_set(user.id, zone, now=utc_now()))
                    for ledger, zone in zip(ledgers, zones, strict=True)
                )
            )
            known = await record_repository.find(user_limits_id(user.id), UserLimits)
            assert known is not None
            assert {(await current(one)).owner_time_zone for one in wallets} == {known.time_zone}


_CENTS = ReferenceLimits("USD", rates={"USD": Rate(1, 1, "test", _NOW), "INR": Rate(1, 80, "test", _NOW)})


def limits_set(owner_id: str, limits: Limits | None, **fields: Any) -> OverrideUserLimits:
    common: dict[str, Any] = {
        "now": _NOW,
        "transaction_id": new_id(Prefix.TRANSACTION),
        "audit_event_id": new_id(Prefix.AUDIT_EVENT),
        "user_id": "usr_boss",
        "token_version": None,
        "reason": "A test",
        "currency": "USD",
    }
    return OverrideUserLimits(**common | fields, owner_id=owner_id, limits=limits)


def _two_wallets(limits: Limits) -> Books:
    wallets = [new_wallet(f"wal_{one}", "usr_ada", one, _NOW)._replace(available=100_000) for one in ("USD", "INR")]
    policy = Policy(user_limits=_CENTS._replace(limits=limits))
    return Books({"usr_ada": 0, "usr_boss": 0}, {wallet.id: wallet for wallet in wallets}, policy)


def _counters(books: Books) -> tuple[int, int, int]:
    record = books.records["ulm_ada"]
    assert isinstance(record, UserLimits)
    return record.usage.hour_count, record.usage.day_total, record.usage.month_total


class TestCounting:
    def test_rounds_up_so_that_nothing_is_too_small_to_count(self) -> None:
        books = _two_wallets(Limits(per_day=2))
        rupees = books.wallets["wal_INR"]
        decided = books.run([withdrawal_of(rupees, 1, now=_NOW) for _ in range(3)])
        assert [one.given.status_code for one in decided] == [202, 202, 422]
        assert _counters(books) == (2, 2, 2)

    def test_of_two_wallets_whose_clocks_differ_never_goes_back(self) -> None:
        """An hour that has begun for one wallet goes on for the other, whose payment says an earlier time."""
        books = _two_wallets(Limits(count_per_hour=2))
        dollars, rupees = books.wallets["wal_USD"], books.wallets["wal_INR"]
        ahead = withdrawal_of(dollars, 10, now=_NOW + timedelta(seconds=1), claim=None)
        behind = withdrawal_of(rupees, 800, now=_NOW - timedelta(seconds=1), claim=None)
        books.run([ahead, behind])
        assert _counters(books) == (2, 20, 20)
        (refused,) = books.run([withdrawal_of(rupees, 800, now=_NOW - timedelta(seconds=1))])
        assert refused.given.status_code == 422
        for command in (behind, ahead):
            books.run([failure_of(books.operations[command.operation_id], now=_NOW + timedelta(seconds=2))])
        assert _counters(books) == (0, 0, 0)

    def test_gives_back_also_when_the_limit_has_been_taken_away(self) -> None:
        books = _two_wallets(Limits())
        dollars = books.wallets["wal_USD"]
        before = withdrawal_of(dollars, 70, now=_NOW, claim=None)
        counted = withdrawal_of(dollars, 60, now=_NOW, claim=None)
        books.run([before, limits_set("usr_ada", Limits(per_day=100)), counted])
        # What was made while there was no limit is no part of it.
        assert _counters(books) == (1, 60, 60)
        uncounted = withdrawal_of(dollars, 500, now=_NOW, claim=None)
        books.run([limits_set("usr_ada", None), uncounted])
        books.run([failure_of(books.operations[counted.operation_id], now=_NOW)])
        assert _counters(books) == (0, 0, 0)
        books.run([failure_of(books.operations[one.operation_id], now=_NOW) for one in (before, uncounted)])
        assert _counters(books) == (0, 0, 0)

    def test_begins_anew_in_another_reference_currency(self) -> None:
        books = _two_wallets(Limits(per_day=100))
        old = withdrawal_of(books.wallets["wal_USD"], 60, now=_NOW, claim=None)
        books.run([old])
        rates = {"INR": Rate(1, 1, "test", _NOW), "USD": Rate(80, 1, "test", _NOW)}
        books.policy = Policy(user_limits=ReferenceLimits("INR", Limits(per_day=100), rates))
        later = _NOW + timedelta(seconds=1)
        books.run([withdrawal_of(books.wallets["wal_USD"], 1, now=later, claim=None)])
        books.run([failure_of(books.operations[old.operation_id], now=later)])
        assert _counters(books) == (1, 80, 80)

    def test_goes_on_in_each_of_two_reference_currencies_while_processes_differ(self) -> None:
        """As in a rolling change of WALLET_USER_LIMITS: nobody gets a new limit by each other payment."""
        books = _two_wallets(Limits(per_day=100))
        old = books.policy
        rates = {"INR": Rate(1, 1, "test", _NOW), "USD": Rate(80, 1, "test", _NOW)}
        new = Policy(user_limits=ReferenceLimits("INR", Limits(per_day=8_000), rates))
        payments = [
            withdrawal_of(books.wallets["wal_USD"], 60, now=_NOW + timedelta(seconds=second), claim=None)
            for second in range(4)
        ]
        errors: list[type] = []
        for payment, books.policy in zip(payments, (old, new, old, new), strict=True):
            (decided,) = books.run([payment])
            errors.append(type(decided.error))
        assert errors == [NoneType, NoneType, LimitExceeded, LimitExceeded]
        assert _counters(books) == (1, 4_800, 4_800)
        # What the first one counted for is given back in its own currency.
        books.run([failure_of(books.operations[payments[0].operation_id], now=_NOW)])
        assert _counters(books) == (1, 4_800, 4_800)
        books.policy = old
        (again,) = books.run(
            [withdrawal_of(books.wallets["wal_USD"], 100, now=_NOW + timedelta(seconds=9), claim=None)]
        )
        assert again.error is None
        assert _counters(books) == (1, 100, 100)

    def test_of_payments_alone_needs_no_rate(self) -> None:
        books = _two_wallets(Limits(count_per_hour=2))
        rupees = books.wallets["wal_INR"]
        books.policy = Policy(user_limits=ReferenceLimits("CHF", Limits(count_per_hour=2)))
        # Under another reference currency, without a rate: the number needs none either.
        books.run([limits_set("usr_ada", Limits(per_day=0, count_per_hour=3), currency="JPY")])
        payments = [withdrawal_of(rupees, 500, now=_NOW, claim=None) for _ in range(4)]
        decided = books.run(payments)
        assert [type(one.error) for one in decided] == [NoneType, NoneType, NoneType, LimitExceeded]
        assert _counters(books) == (3, 3, 3)
        books.run([failure_of(books.operations[one.operation_id], now=_NOW) for one in payments[:3]])
        assert _counters(books) == (0, 0, 0)
        (refused,) = books.run([limits_set("usr_ada", Limits(per_day=9)), withdrawal_of(rupees, 1, claim=None)])[1:]
        assert isinstance(refused.error, RateUnavailable)

    def test_costs_nobody_anything_while_there_is_no_limit(self) -> None:
        books = _two_wallets(Limits())
        payment = withdrawal_of(books.wallets["wal_USD"], 60, now=_NOW, claim=None)
        books.run([payment])
        assert "ulm_ada" not in books.records
        assert books.operations[payment.operation_id].counted is None
        assert further_records(books.wallets.values(), books.policy) == set()


class TestAMissingRate:
    _WITHOUT = Policy(user_limits=ReferenceLimits("USD", Limits(per_day=100)))

    async def test_refuses_a_key_only_until_there_is_a_rate(self, databases: Databases) -> None:
        wallet = await make_wallet(databases, await make_user(databases))
        await fund_wallet(databases, wallet, 800)
        asked = withdrawal_of(wallet, 800)
        (refused,) = await run(databases, asked, policy=self._WITHOUT)
        assert isinstance(refused.error, RateUnavailable)
        (made,) = await run(databases, asked, policy=Policy(user_limits=_CENTS._replace(limits=Limits(per_day=100))))
        assert made.given.status_code == 202

    async def test_does_not_refuse_a_payment_that_was_made_under_a_key_whose_answer_has_expired(
        self, databases: Databases, admin: Admin
    ) -> None:
        """Told that nothing moved, the client would pay a second time under a new key."""
        wallet = await make_wallet(databases, await make_user(databases))
        await fund_wallet(databases, wallet, 800)
        claim = IdempotencyClaim(
            f"{wallet.user_id}:key", "same", utc_now() + timedelta(days=7), key_hashes=(new_id(Prefix.ENTRY),)
        )
        (made,) = await run(databases, withdrawal_of(wallet, 300, claim=claim))
        assert isinstance(made.record, Operation)
        assert admin[databases.wallet.name]["idempotency_keys"].delete_one({"_id": claim.id}).deleted_count == 1
        (again,) = await run(databases, withdrawal_of(wallet, 300, claim=claim), policy=self._WITHOUT)
        assert again.given.replayed
        assert made.record.id in str(again.given.body)
        assert (await current(wallet)).available == 500


class TestTheLastOfALimit:
    async def test_is_used_up_exactly_by_two_processes_in_two_wallets(
        self, ledgers: TwoLedgers, databases: Databases, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for ledger in ledgers:
            monkeypatch.setattr(ledger, "policy", Policy(user_limits=_CENTS._replace(limits=Limits(per_day=50))))
        for _ in range(_TIMES // 2):
            user = await make_user(databases)
            wallets = [await make_wallet(databases, user, currency=currency) for currency in ("USD", "INR")]
            for wallet in wallets:
                await fund_wallet(databases, wallet, 10_000)
            decided = await asyncio.gather(
                *(
                    ledger.execute(withdrawal_of(wallet, amount))
                    for _ in range(8)
                    for ledger, wallet, amount in zip(ledgers, wallets, (5, 400), strict=True)
                )
            )
            statuses = [one.given.status_code for one in decided]
            assert (statuses.count(202), statuses.count(422)) == (10, 6)
            known = await record_repository.find(user_limits_id(user.id), UserLimits)
            assert known is not None
            assert (known.usage.day_total, known.usage.hour_count) == (50, 10)

    async def test_set_at_the_moment_of_a_payment_comes_before_or_after_it(
        self, ledgers: TwoLedgers, databases: Databases, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for ledger in ledgers:
            monkeypatch.setattr(ledger, "policy", Policy(user_limits=_CENTS))
        boss = await make_user(databases)
        for _ in range(_TIMES // 2):
            user = await make_user(databases)
            wallet = await make_wallet(databases, user, currency="USD")
            await fund_wallet(databases, wallet, 10_000)
            *decided, _ = await asyncio.gather(
                *(ledgers.first.execute(withdrawal_of(wallet, 5)) for _ in range(10)),
                ledgers.second.execute(limits_set(user.id, Limits(per_day=12), user_id=boss.id, now=utc_now())),
            )
            made = [one.record for one in decided if one.given.status_code == 202]
            counted = sum(isinstance(one, Operation) and one.counted is not None for one in made)
            known = await record_repository.find(user_limits_id(user.id), UserLimits)
            assert known is not None
            assert (known.usage.day_total, known.usage.hour_count) == (5 * counted, counted)
            assert counted <= 2
            late = [await ledgers.first.execute(withdrawal_of(wallet, 5)) for _ in range(3)]
            assert [one.given.status_code for one in late].count(202) == 2 - counted

    @pytest.mark.parametrize("is_usual", [True, False])
    async def test_is_not_lost_by_a_slow_process_to_a_quick_one_in_another_wallet(
        self, databases: Databases, monkeypatch: pytest.MonkeyPatch, is_usual: bool
    ) -> None:
        """After some lost races it locks first what both of them write."""
        policy = Policy(user_limits=_CENTS._replace(limits=Limits(per_day=50 if is_usual else 0)))
        boss, user = await make_user(databases), await make_user(databases)
        dollars, rupees = [await make_wallet(databases, user, currency=currency) for currency in ("USD", "INR")]
        for wallet in (dollars, rupees):
            await fund_wallet(databases, wallet, 10_000)
        if not is_usual:
            fifty = limits_set(user.id, Limits(per_day=50), user_id=boss.id, now=utc_now())
            await run(databases, fifty, policy=policy)
        await run(databases, withdrawal_of(rupees, 80), policy=policy)
        load = transaction._load
        quick: list[str] = []

        async def load_beside_a_quick_one(*args: Any) -> Loaded:
            monkeypatch.setattr(transaction, "_load", load)
            try:
                await run(databases, withdrawal_of(rupees, 80), policy=policy)
            except OperationFailure:
                quick.append("lost")
            return await load(*args)

        monkeypatch.setattr(transaction, "_load", load_beside_a_quick_one)
        async with databases.client.start_session() as session:
            await prepare(session, [withdrawal_of(dollars, 5)], policy, PortionCache("slow"), Attempt(locks_first=True))
            await session.commit_transaction()
        assert quick == ["lost"]
        known = await record_repository.find(user_limits_id(user.id), UserLimits)
        assert known is not None
        assert known.usage.day_total == 1 + 5

    async def test_set_once_more_at_the_moment_of_a_payment_comes_before_or_after_it(
        self, databases: Databases
    ) -> None:
        """Although the user's wallets are marked already: the payment that was read before must not pass after it."""
        policy = Policy(user_limits=_CENTS)
        boss, user = await make_user(databases), await make_user(databases)
        wallet = await make_wallet(databases, user, currency="USD")
        await fund_wallet(databases, wallet, 10_000)
        for limits in (Limits(per_day=12), None):
            await run(databases, limits_set(user.id, limits, user_id=boss.id, now=utc_now()), policy=policy)
        async with databases.client.start_session() as session:
            await prepare(session, [withdrawal_of(wallet, 5_000)], policy, PortionCache("slow"))
            again = limits_set(user.id, Limits(per_day=12), user_id=boss.id, now=utc_now())

            async def both() -> None:
                await run(databases, again, policy=policy)
                await session.commit_transaction()

            with pytest.raises(OperationFailure):
                await both()
