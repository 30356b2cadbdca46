"""A user's time zone over all wallets: when it begins to hold, and what it meets on its way."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from service.database import Databases
from service.domain.clock import utc_now
from service.domain.identifiers import Prefix, new_id
from service.domain.policy import Policy
from service.domain.user_limits import UserLimits, user_limits_id
from service.domain.wallets import new_wallet
from service.ledger.user_limits import SetTimeZone
from service.repositories import records as record_repository
from service.services.orders import Requester
from service.services.wallets import open_wallet
from tests.books import Books
from tests.factories import current, failure_of, make_user, make_wallet, withdrawal_of
from tests.ledger.conftest import TwoLedgers

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
        assert _used_in(books) == ("2026-11-22", 70, 370)
        books.run([failure_of(books.operations[first.operation_id], now=_NOW)])
        assert _used_in(books) == ("2026-11-22", 70, 70)
        books.run([failure_of(books.operations[second.operation_id], now=_NOW)])
        assert _used_in(books) == ("2026-11-22", 0, 0)

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
