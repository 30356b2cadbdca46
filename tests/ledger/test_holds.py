"""The rules of holds: what each refuses, what moves, and a model that random commands are compared with."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain.entries import Entry
from service.domain.holds import Hold, HoldStatus
from service.domain.idempotency import IdempotencyClaim
from service.domain.limits import Limits, Usage
from service.domain.outbox import OutboxTopic
from service.domain.policy import Policy
from service.domain.records import Record
from service.domain.wallets import Freeze, Wallet, WalletStatus, new_wallet
from service.ledger.batch import Batch, Decided, Loaded
from service.ledger.commands import Command
from service.ledger.holds import CaptureHold, ExpireHold, ReleaseHold, RequestHold, expiry_id

_NOW = datetime(2026, 2, 24, 12, 34, 56, 789000, tzinfo=UTC)
_LIFETIME = timedelta(hours=2)
_AFTER = _NOW + _LIFETIME
_PAYER, _PAYEE, _OTHER, _ADMIN, _GONE = "usr_payer", "usr_payee", "usr_other", "usr_admin", "usr_gone"
_USERS = {_PAYER: 0, _PAYEE: 0, _OTHER: 0, _ADMIN: 0}
_FROM, _TO, _ELSEWHERE, _DOLLARS = "wal_payer", "wal_payee", "wal_other", "wal_dollars"
_OPENING = 1_000
_NO_LIMITS = Policy()
_numbers = count()


@dataclass
class Books:
    """What a database would hold, fed with nothing but the writes of batches."""

    policy: Policy = _NO_LIMITS
    wallets: dict[str, Wallet] = field(default_factory=dict)
    records: dict[str, Record] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    due: dict[str, datetime] = field(default_factory=dict)

    def run(self, *commands: Command) -> list[Decided]:
        batch = Batch(Loaded(_USERS, self.wallets, self.records, {}), self.policy)
        decided = [batch.run(command) for command in commands]
        writes = batch.writes()
        self.wallets |= {update.after.id: update.after for update in writes.wallet_updates}
        self.records |= {record.id: record for record in writes.record_inserts}
        self.records |= {update.after.id: update.after for update in writes.record_updates}
        self.entries += writes.entries
        self.due |= {row.id: row.due_at for row in writes.outbox_inserts}
        for row_id in writes.outbox_deletes:
            self.due.pop(row_id, None)
        return decided

    def accept(self, command: Command) -> dict[str, Any]:
        """The answer's body."""
        (decided,) = self.run(command)
        assert decided.answer is not None, decided
        assert decided.answer.status_code < 400, decided.answer.body
        body: dict[str, Any] = orjson.loads(decided.answer.body)
        return body

    def refuse(self, command: Command) -> tuple[int, str]:
        """Status and code of what has to be a refusal."""
        (decided,) = self.run(command)
        assert decided.refused, decided
        if decided.error is not None:
            return decided.error.http_status, decided.error.code
        assert decided.answer is not None
        return decided.answer.status_code, orjson.loads(decided.answer.body)["error"]

    def hold(self, **overrides: Any) -> Hold:
        body = self.accept(request(**overrides))
        return self.now(body["id"])

    def now(self, hold_id: str) -> Hold:
        hold = self.records[hold_id]
        assert isinstance(hold, Hold)
        return hold

    def change(self, wallet_id: str, **fields: Any) -> None:
        self.wallets[wallet_id] = self.wallets[wallet_id]._replace(**fields)

    def balance(self, wallet_id: str = _FROM) -> tuple[int, int]:
        return self.wallets[wallet_id].available, self.wallets[wallet_id].held

    def moved(self) -> list[tuple[str, str, int, str]]:
        return [(entry.wallet_id, entry.type, entry.amount, entry.counterparty) for entry in self.entries]


def make_books(policy: Policy = _NO_LIMITS, opening: int = _OPENING) -> Books:
    owners = {_FROM: _PAYER, _TO: _PAYEE, _ELSEWHERE: _OTHER, _DOLLARS: _OTHER}
    books = Books(policy)
    for wallet_id, user_id in owners.items():
        books.wallets[wallet_id] = new_wallet(wallet_id, user_id, "USD" if wallet_id == _DOLLARS else "INR", _NOW)
    books.change(_FROM, available=opening)
    return books


def counted(books: Books) -> tuple[int, int, int]:
    """What stands against the payer's limits."""
    usage = books.wallets[_FROM].usage
    return usage.hour_count, usage.day_total, usage.month_total


def _asked(user_id: str, number: int, at: datetime) -> dict[str, Any]:
    return {
        "now": at,
        "transaction_id": f"txn_{number}",
        "claim": IdempotencyClaim(f"{user_id}:key-{number}", f"fingerprint-{number}", _NOW),
        "user_id": user_id,
        "token_version": 0,
    }


def request(at: datetime = _NOW, user_id: str = _PAYER, **overrides: Any) -> RequestHold:
    number = next(_numbers)
    order = {
        "hold_id": f"hld_{number}",
        "wallet_id": _FROM,
        "to_wallet_id": _TO,
        "amount": 100,
        "currency": "INR",
        "lifetime": _LIFETIME,
        "category": "travel",
        "description": None,
        "metadata": {},
        "entry_id": f"ent_{number}",
    }
    return RequestHold(**(_asked(user_id, number, at) | order | overrides))


def _about(hold: Hold, number: int) -> dict[str, Any]:
    return {"hold_id": hold.id, "wallet_id": hold.wallet_id, "release_entry_id": f"ent_{number}_back"}


def _recorded(number: int) -> dict[str, Any]:
    return {"audit_event_id": f"aud_{number}", "reason": None}


def capture(hold: Hold, user_id: str = _PAYEE, at: datetime = _NOW, **overrides: Any) -> CaptureHold:
    number = next(_numbers)
    order = {
        "acts_for_house": user_id == _ADMIN,
        "named_wallet_id": hold.to_wallet_id,
        "to_wallet_id": None,
        "capture_to": frozenset({_TO}),
        "amount": None,
        "out_entry_id": f"ent_{number}_out",
        "in_entry_id": f"ent_{number}_in",
    }
    return CaptureHold(**(_asked(user_id, number, at) | _about(hold, number) | _recorded(number) | order | overrides))


def release(hold: Hold, user_id: str = _PAYEE, at: datetime = _NOW, **overrides: Any) -> ReleaseHold:
    number = next(_numbers)
    order = {"acts_for_house": user_id == _ADMIN}
    return ReleaseHold(**(_asked(user_id, number, at) | _about(hold, number) | _recorded(number) | order | overrides))


def expire(hold: Hold, at: datetime = _AFTER) -> ExpireHold:
    number = next(_numbers)
    return ExpireHold(now=at, transaction_id=f"txn_{number}", **_about(hold, number))


class TestHolding:
    def test_sets_the_amount_aside_until_it_expires(self) -> None:
        books = make_books()
        body = books.accept(request())
        hold = books.now(body["id"])
        assert (body["type"], body["status"], body["amount"], body["captured_amount"]) == ("hold", "held", 100, 0)
        assert (body["transaction_id"], body["to_wallet_id"]) == (None, _TO)
        assert body["wallet"] == {
            "wallet_id": _FROM,
            "currency": "INR",
            "available": 900,
            "held": 100,
            "balance": 1_000,
            "owed": 0,
        }
        assert "to_wallet" not in body
        assert books.moved() == [(_FROM, "HOLD", 100, _TO)]
        assert books.entries[0].category == "travel"
        assert (books.wallets[_FROM].open_operations, books.wallets[_TO].open_operations) == (1, 0)
        assert books.due == {expiry_id(hold): _AFTER}
        assert expiry_id(hold).startswith(OutboxTopic.EXPIRY)

    def test_without_a_recipient_it_is_for_the_house(self) -> None:
        books = make_books()
        assert books.accept(request(to_wallet_id=None))["to_wallet_id"] is None
        assert books.moved() == [(_FROM, "HOLD", 100, "house:revenue")]

    def test_lasts_as_long_as_it_says_even_where_the_wallets_clock_is_ahead(self) -> None:
        books = make_books()
        ahead = _NOW + timedelta(seconds=3)
        books.change(_FROM, updated_at=ahead)
        hold = books.hold(lifetime=timedelta(seconds=1))
        assert (hold.created_at, hold.expires_at) == (ahead, ahead + timedelta(seconds=1))

    @pytest.mark.parametrize(
        ("order", "refusal"),
        [
            ({"amount": 1_001}, (422, "insufficient_funds")),
            ({"amount": 501}, (422, "limit_exceeded")),
            ({"amount": 801}, (422, "hold_above_step_up")),
            ({"wallet_id": _ELSEWHERE}, (404, "not_found")),
            ({"wallet_id": "wal_none"}, (404, "not_found")),
            ({"to_wallet_id": _FROM}, (422, "same_wallet")),
            ({"currency": "USD"}, (422, "currency_mismatch")),
            ({"to_wallet_id": _DOLLARS}, (422, "currency_mismatch")),
            ({"to_wallet_id": "wal_none"}, (404, "recipient_not_found")),
            ({"user_id": _GONE}, (403, "account_deactivated")),
            ({"token_version": 1}, (401, "unauthenticated")),
        ],
    )
    def test_is_refused(self, order: dict[str, Any], refusal: tuple[int, str]) -> None:
        policy = Policy(step_up_above={"INR": 800}) if order.get("amount") == 801 else _NO_LIMITS
        if order.get("amount") == 501:
            policy = Policy(limits={"INR": Limits(per_transaction=500)})
        books = make_books(policy)
        assert books.refuse(request(**order)) == refusal
        assert (books.entries, books.records, books.due) == ([], {}, {})

    @pytest.mark.parametrize(
        ("wallet_id", "fields", "refusal"),
        [
            (_FROM, {"status": WalletStatus.FROZEN, "freeze": Freeze.OUT}, (422, "wallet_frozen")),
            (_FROM, {"status": WalletStatus.FROZEN, "freeze": Freeze.BOTH}, (422, "wallet_frozen")),
            (_FROM, {"status": WalletStatus.CLOSED}, (422, "wallet_closed")),
            (_TO, {"status": WalletStatus.FROZEN, "freeze": Freeze.IN}, (422, "recipient_wallet_frozen")),
            (_TO, {"status": WalletStatus.CLOSED}, (404, "recipient_not_found")),
            (_TO, {"available": 2**53 - 1}, (422, "recipient_balance_overflow")),
        ],
    )
    def test_is_refused_by_the_state_of_a_wallet(
        self, wallet_id: str, fields: dict[str, Any], refusal: tuple[int, str]
    ) -> None:
        books = make_books()
        books.change(wallet_id, **fields)
        assert books.refuse(request()) == refusal

    def test_a_wallet_that_only_takes_nothing_in_may_still_pay(self) -> None:
        books = make_books()
        books.change(_FROM, status=WalletStatus.FROZEN, freeze=Freeze.IN)
        assert books.hold().status is HoldStatus.HELD

    def test_who_cannot_pay_does_not_learn_whether_the_recipient_exists(self) -> None:
        for to_wallet_id in (_TO, "wal_none", _DOLLARS):
            assert make_books().refuse(request(to_wallet_id=to_wallet_id, amount=1_001))[1] == "insufficient_funds"


class TestCapturing:
    @pytest.mark.parametrize("user_id", [_PAYEE, _PAYER, _ADMIN])
    def test_pays_the_recipient_once(self, user_id: str) -> None:
        books = make_books()
        hold = books.hold()
        body = books.accept(capture(hold, user_id))
        assert (body["status"], body["captured_amount"]) == ("captured", 100)
        assert books.moved()[1:] == [(_FROM, "HOLD_CAPTURE", 100, _TO), (_TO, "TRANSFER_IN", 100, _FROM)]
        assert {entry.transaction_id for entry in books.entries[1:]} == {body["transaction_id"]}
        assert {(entry.status, entry.category) for entry in books.entries[1:]} == {("captured", "travel")}
        assert (books.balance(), books.balance(_TO)) == ((900, 0), (100, 0))
        assert (books.wallets[_FROM].open_operations, books.due) == (0, {})
        assert books.refuse(capture(hold, user_id)) == (409, "illegal_transition")

    @pytest.mark.parametrize(
        ("user_id", "shown"), [(_PAYER, {"wallet"}), (_PAYEE, {"to_wallet"}), (_ADMIN, set[str]())]
    )
    def test_shows_each_only_what_is_in_their_own_wallet(self, user_id: str, shown: set[str]) -> None:
        books = make_books()
        body = books.accept(capture(books.hold(), user_id))
        assert body.keys() & {"wallet", "to_wallet"} == shown

    def test_of_a_part_releases_the_rest_at_once(self) -> None:
        books = make_books()
        hold = books.hold()
        body = books.accept(capture(hold, amount=30))
        assert (body["status"], body["amount"], body["captured_amount"]) == ("captured", 100, 30)
        assert books.moved()[1:] == [
            (_FROM, "HOLD_CAPTURE", 30, _TO),
            (_TO, "TRANSFER_IN", 30, _FROM),
            (_FROM, "HOLD_RELEASE", 70, _TO),
        ]
        assert (books.balance(), books.balance(_TO)) == ((970, 0), (30, 0))
        assert counted(books) == (1, 30, 30)
        assert books.refuse(capture(hold, amount=70)) == (409, "illegal_transition")

    def test_without_a_recipient_pays_the_house(self) -> None:
        books = make_books()
        body = books.accept(capture(books.hold(to_wallet_id=None), _ADMIN, amount=40))
        assert body["to_wallet_id"] is None
        assert books.moved()[1:] == [
            (_FROM, "HOLD_CAPTURE", 40, "house:revenue"),
            (_FROM, "HOLD_RELEASE", 60, "house:revenue"),
        ]
        assert books.balance() == (960, 0)

    @pytest.mark.parametrize("user_id", [_PAYER, _ADMIN])
    def test_may_name_the_recipient_that_the_hold_does_not(self, user_id: str) -> None:
        books = make_books()
        hold = books.hold(to_wallet_id=None)
        body = books.accept(capture(hold, user_id, to_wallet_id=_TO))
        assert body["to_wallet_id"] == _TO
        assert books.now(hold.id).to_user_id == _PAYEE
        assert books.balance(_TO) == (100, 0)

    @pytest.mark.parametrize(
        ("held", "asked", "refusal"),
        [
            ({}, {"amount": 101}, (422, "capture_exceeds_hold")),
            ({}, {"user_id": _OTHER}, (404, "not_found")),
            ({"to_wallet_id": None}, {"user_id": _PAYEE}, (404, "not_found")),
            ({"to_wallet_id": None}, {"user_id": _PAYEE, "to_wallet_id": _TO}, (404, "not_found")),
            ({}, {"user_id": _PAYER, "to_wallet_id": _ELSEWHERE}, (409, "recipient_already_named")),
            ({}, {"user_id": _ADMIN, "to_wallet_id": _ELSEWHERE}, (409, "recipient_already_named")),
            ({"to_wallet_id": None}, {"user_id": _PAYER, "to_wallet_id": _FROM}, (422, "same_wallet")),
            ({"to_wallet_id": None}, {"user_id": _PAYER, "to_wallet_id": _DOLLARS}, (422, "currency_mismatch")),
            ({"to_wallet_id": None}, {"user_id": _PAYER, "to_wallet_id": "wal_no"}, (404, "recipient_not_found")),
            ({}, {"user_id": _GONE, "acts_for_house": True}, (403, "account_deactivated")),
            ({}, {"token_version": 1}, (401, "unauthenticated")),
            ({}, {"hold_id": "hld_none"}, (404, "not_found")),
            ({}, {"at": _AFTER}, (409, "hold_expired")),
        ],
    )
    def test_is_refused(self, held: dict[str, Any], asked: dict[str, Any], refusal: tuple[int, str]) -> None:
        books = make_books()
        hold = books.hold(**held)
        assert books.refuse(capture(hold, **asked)) == refusal
        if refusal[1] != "hold_expired":
            assert books.now(hold.id) == hold
            assert books.balance() == (900, 100)

    def test_in_the_last_moment_is_in_time(self) -> None:
        books = make_books()
        hold = books.hold()
        books.accept(capture(hold, at=_AFTER - timedelta(milliseconds=1)))

    def test_after_the_time_gives_the_money_back_before_any_worker_has_come(self) -> None:
        books = make_books()
        hold = books.hold()
        assert books.refuse(capture(hold, at=_AFTER)) == (409, "hold_expired")
        assert books.now(hold.id).status is HoldStatus.EXPIRED
        assert (books.balance(), books.due) == ((1_000, 0), {})
        # And says the same to whoever comes once it has been ended.
        assert books.refuse(capture(hold, at=_AFTER)) == (409, "hold_expired")
        assert [entry.type for entry in books.entries] == ["HOLD", "HOLD_RELEASE"]

    @pytest.mark.parametrize(
        ("wallet_id", "fields", "refusal"),
        [
            (_FROM, {"status": WalletStatus.FROZEN, "freeze": Freeze.BOTH}, (422, "wallet_frozen")),
            (_FROM, {"status": WalletStatus.FROZEN, "freeze": None}, (422, "wallet_frozen")),
            (_FROM, {"status": WalletStatus.CLOSED}, (422, "wallet_closed")),
            (_TO, {"status": WalletStatus.FROZEN, "freeze": Freeze.IN}, (422, "recipient_wallet_frozen")),
            (_TO, {"status": WalletStatus.CLOSED}, (404, "recipient_not_found")),
            (_TO, {"available": 2**53 - 1}, (422, "recipient_balance_overflow")),
        ],
    )
    def test_waits_while_a_wallet_is_shut(
        self, wallet_id: str, fields: dict[str, Any], refusal: tuple[int, str]
    ) -> None:
        books = make_books()
        hold = books.hold()
        books.change(wallet_id, **fields)
        assert books.refuse(capture(hold)) == refusal
        assert books.now(hold.id).status is HoldStatus.HELD
        books.change(
            wallet_id, status=WalletStatus.ACTIVE, freeze=None, **({"available": 0} if wallet_id == _TO else {})
        )
        books.accept(capture(hold))

    @pytest.mark.parametrize("freeze", [Freeze.OUT, Freeze.IN])
    @pytest.mark.parametrize("to_wallet_id", [_TO, None])
    def test_of_what_was_promised_outlives_a_freeze_of_the_payers_wallet(
        self, freeze: Freeze, to_wallet_id: str | None
    ) -> None:
        books = make_books()
        hold = books.hold(to_wallet_id=to_wallet_id)
        books.change(_FROM, status=WalletStatus.FROZEN, freeze=freeze)
        books.accept(capture(hold, _ADMIN))
        assert books.balance() == (900, 0)

    def test_for_somebody_who_is_named_only_now_does_not(self) -> None:
        books = make_books()
        hold = books.hold(to_wallet_id=None)
        books.change(_FROM, status=WalletStatus.FROZEN, freeze=Freeze.OUT)
        for user_id in (_PAYER, _ADMIN):
            assert books.refuse(capture(hold, user_id, to_wallet_id=_TO)) == (422, "wallet_frozen")


class TestReleasing:
    @pytest.mark.parametrize(
        ("to_wallet_id", "user_id"), [(_TO, _PAYEE), (_TO, _ADMIN), (None, _PAYER), (None, _ADMIN)]
    )
    def test_gives_all_of_it_back_with_its_share_of_the_limits(self, to_wallet_id: str | None, user_id: str) -> None:
        books = make_books()
        hold = books.hold(to_wallet_id=to_wallet_id)
        body = books.accept(release(hold, user_id))
        assert (body["status"], body["captured_amount"]) == ("released", 0)
        assert ("wallet" in body) is (user_id == _PAYER)
        assert books.moved()[1:] == [(_FROM, "HOLD_RELEASE", 100, to_wallet_id or "house:revenue")]
        assert (books.balance(), books.due, books.wallets[_FROM].open_operations) == ((1_000, 0), {}, 0)
        assert counted(books) == (0, 0, 0)
        assert books.entries[1].transaction_id == body["transaction_id"]
        assert books.refuse(release(hold, user_id)) == (409, "illegal_transition")
        assert books.refuse(capture(hold, _ADMIN)) == (409, "illegal_transition")

    @pytest.mark.parametrize(
        ("asked", "refusal"),
        [
            ({"user_id": _PAYER}, (403, "hold_guaranteed")),
            ({"user_id": _OTHER}, (404, "not_found")),
            ({"token_version": 1}, (401, "unauthenticated")),
            ({"user_id": _GONE, "acts_for_house": True}, (403, "account_deactivated")),
            ({"at": _AFTER}, (409, "hold_expired")),
        ],
    )
    def test_is_refused(self, asked: dict[str, Any], refusal: tuple[int, str]) -> None:
        books = make_books()
        hold = books.hold()
        assert books.refuse(release(hold, **asked)) == refusal
        assert books.balance() == ((1_000, 0) if refusal[1] == "hold_expired" else (900, 100))

    @pytest.mark.parametrize("status", [WalletStatus.FROZEN, WalletStatus.CLOSED])
    def test_needs_no_wallet_that_takes_money_in(self, status: WalletStatus) -> None:
        books = make_books()
        hold = books.hold()
        books.change(_FROM, status=status)
        books.accept(release(hold))


class TestExpiring:
    def test_gives_all_of_it_back_once(self) -> None:
        books = make_books()
        hold = books.hold()
        books.run(expire(hold), expire(hold))
        books.run(expire(hold))
        assert books.now(hold.id).status is HoldStatus.EXPIRED
        assert books.moved()[1:] == [(_FROM, "HOLD_RELEASE", 100, _TO)]
        assert (books.balance(), books.due, books.wallets[_FROM].open_operations) == ((1_000, 0), {}, 0)
        assert counted(books)[1:] == (0, 0)

    def test_does_not_come_before_its_time(self) -> None:
        books = make_books()
        hold = books.hold()
        assert books.refuse(expire(hold, _AFTER - timedelta(milliseconds=1))) == (409, "illegal_transition")
        assert books.balance() == (900, 100)

    def test_leaves_a_hold_alone_that_has_ended_and_only_takes_its_reminder_away(self) -> None:
        books = make_books()
        hold = books.hold()
        books.accept(capture(hold))
        books.due[expiry_id(hold)] = _AFTER
        before = books.now(hold.id), books.wallets[_FROM]
        books.run(expire(hold))
        assert (books.now(hold.id), books.wallets[_FROM]) == before
        assert books.due == {}


class TestLimits:
    def test_a_hold_counts_from_the_moment_that_it_is_made(self) -> None:
        books = make_books(Policy(limits={"INR": Limits(per_day=150, count_per_hour=3)}))
        first = books.hold(amount=100)
        assert books.refuse(request(amount=51)) == (422, "limit_exceeded")
        books.accept(capture(first, amount=20))
        # 20 of 150 are spent, and the rest may be set aside again.
        books.hold(amount=130)
        assert books.refuse(request(amount=1)) == (422, "limit_exceeded")

    def test_a_part_gives_no_count_back(self) -> None:
        books = make_books(Policy(limits={"INR": Limits(count_per_hour=1)}))
        books.accept(capture(books.hold(), amount=1))
        assert books.refuse(request()) == (422, "limit_exceeded")

    @pytest.mark.parametrize("end", [release, partial(capture, amount=1)], ids=["whole", "part"])
    def test_what_was_counted_yesterday_gives_nothing_back_today(self, end: Callable[..., Command]) -> None:
        books = make_books()
        hold = books.hold(lifetime=timedelta(days=3))
        tomorrow = _NOW + timedelta(days=1)
        books.hold(at=tomorrow, amount=7)
        books.accept(end(hold, at=tomorrow))
        in_month = 7 + books.now(hold.id).captured_amount
        assert books.wallets[_FROM].usage == Usage(
            "2026-02-25T12", 1, "2026-02-25", 7, "2026-02", in_month, day_since=tomorrow, month_since=_NOW
        )


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(("hold", "hold", "hold_for_house", "capture", "capture_part", "release", "expire", "wait")),
        st.integers(0, 5),
        st.integers(1, 300),
    ),
    min_size=10,
    max_size=60,
)


class Model:
    """Plain arithmetic on what was asked for, written without looking at the rules. All within one day."""

    def __init__(self) -> None:
        self.available, self.held, self.paid, self.revenue, self.spent = 500, 0, 0, 0, 0
        self.open: dict[str, tuple[int, datetime, bool]] = {}

    def hold(self, hold_id: str, amount: int, expires_at: datetime, *, is_for_house: bool) -> bool:
        if amount > self.available or self.spent + amount > 900:
            return False
        self.available, self.held, self.spent = self.available - amount, self.held + amount, self.spent + amount
        self.open[hold_id] = amount, expires_at, is_for_house
        return True

    def end(self, hold_id: str, at: datetime, captured: int | None) -> bool:
        """`captured` is None where the worker comes."""
        if hold_id not in self.open:
            return captured is None
        amount, expires_at, is_for_house = self.open[hold_id]
        is_over = at >= expires_at
        if (captured is None and not is_over) or (captured is not None and captured > amount and not is_over):
            return False
        taken = 0 if is_over or captured is None else captured
        del self.open[hold_id]
        self.held -= amount
        self.available += amount - taken
        self.spent -= amount - taken
        if is_for_house:
            self.revenue += taken
        else:
            self.paid += taken
        return captured is None or not is_over


class TestHoldsAgainstAModel:
    @settings(max_examples=150, deadline=None)
    @given(steps=_STEPS)
    def test_balances_and_limits_agree_after_every_step(self, steps: list[tuple[str, int, int]]) -> None:
        policy = Policy(limits={"INR": Limits(per_day=900)})
        books, model, at = make_books(policy, opening=500), Model(), _NOW
        made: list[Hold] = []
        for what, index, amount in steps:
            at += timedelta(milliseconds=1)
            if what == "wait":
                at += timedelta(minutes=6)
                continue
            is_accepted, has_to_be = self._step(what, index, amount, at, books, model, made)
            assert is_accepted == has_to_be
            self._assert_agreement(books, model)
        for hold in made:
            books.run(expire(books.now(hold.id), at + timedelta(hours=3)))
        assert books.balance()[1] == 0
        assert (books.due, books.wallets[_FROM].open_operations) == ({}, 0)
        ends = [entry.reference for entry in books.entries if entry.type != "HOLD" and entry.wallet_id == _FROM]
        assert all(0 < ends.count(hold.id) <= 2 for hold in made)

    def _step(
        self, what: str, index: int, amount: int, at: datetime, books: Books, model: Model, made: list[Hold]
    ) -> tuple[bool, bool]:
        """Whether it was accepted, and whether it has to be. Where nothing was ever held there is nothing to end."""
        if what.startswith("hold"):
            is_for_house = what == "hold_for_house"
            command = request(
                at, amount=amount, to_wallet_id=None if is_for_house else _TO, lifetime=timedelta(minutes=10)
            )
            has_to_be = model.hold(command.hold_id, amount, at + command.lifetime, is_for_house=is_for_house)
            (decided,) = books.run(command)
            if not decided.refused:
                made.append(books.now(command.hold_id))
            return not decided.refused, has_to_be
        if not made:
            return True, True
        hold = made[-1 - index % len(made)]
        commands: dict[str, tuple[Command, int | None]] = {
            "capture": (capture(hold, _ADMIN, at), hold.amount),
            "capture_part": (capture(hold, _ADMIN, at, amount=amount), amount),
            "release": (release(hold, _ADMIN, at), 0),
            "expire": (expire(hold, at), None),
        }
        ending, captured = commands[what]
        has_to_be = model.end(hold.id, at, captured)
        (decided,) = books.run(ending)
        return not decided.refused, has_to_be

    def _assert_agreement(self, books: Books, model: Model) -> None:
        assert books.balance() == (model.available, model.held)
        assert books.balance(_TO) == (model.paid, 0)
        assert model.available + model.held + model.paid + model.revenue == 500
        wallet = books.wallets[_FROM]
        assert (wallet.usage.day_amount, wallet.usage.month_amount) == (model.spent, model.spent)
        assert wallet.open_operations == len(model.open)
        open_ids = {
            record.id
            for record in books.records.values()
            if isinstance(record, Hold) and record.status == HoldStatus.HELD
        }
        assert open_ids == model.open.keys()
        assert books.due.keys() == {expiry_id(books.now(hold_id)) for hold_id in open_ids}
