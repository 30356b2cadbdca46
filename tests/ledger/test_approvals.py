"""Payments against a model: transfers and withdrawals, at once or after a code, beside plain arithmetic."""

from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain.limits import Limits
from service.domain.operations import Operation
from service.domain.outbox import OutboxTopic, outbox_id
from service.domain.policy import Policy
from service.domain.step_up import CODE_LIFETIME, CODE_TRIES, Challenge
from service.domain.transfers import Transfer
from service.domain.wallets import Freeze, WalletStatus, new_wallet
from service.ledger.batch import Decided
from service.ledger.commands import Command
from service.ledger.orders import NoteAttempt
from service.ledger.transfers import RequestTransfer
from tests.books import Books, assert_chain
from tests.factories import (
    batch_of,
    cancellation_of,
    challenge_until,
    change_of,
    confirmation_of,
    deposit_of,
    failure_of,
    lapse_of,
    settlement_of,
    transfer_of,
    withdrawal_of,
)

# Shortly before an hour, a day and a month end, so that a step of a second or a slow clock passes over all three.
_START = datetime(2026, 10, 31, 23, 59, 59, tzinfo=UTC)
_NAMES = ("a", "b", "c")
_OPENING = 1_000
_LIMITS = Limits(per_transaction=600, per_day=1_500, per_month=4_000, count_per_hour=6)
_MAX = 2**53 - 1


def _wallet_id(name: str) -> str:
    return f"wal_{name}"


def make_books(policy: Policy | None = None, opening: int = _OPENING) -> Books:
    """Three people with a wallet each, and what a settled deposit has put in."""
    wallets = {_wallet_id(name): new_wallet(_wallet_id(name), f"usr_{name}", "INR", _START) for name in _NAMES}
    books = Books({f"usr_{name}": 0 for name in _NAMES}, wallets, policy or Policy())
    for wallet in list(wallets.values()):
        books.run([request := deposit_of(wallet, opening, now=_START)])
        books.run([replace(settlement_of(books.operations[request.operation_id]), now=_START)])
    return books


_INDIA = timedelta(hours=5, minutes=30)


def _named(moment: datetime, window: str) -> str:
    """Hours are those of UTC, days and months those of India."""
    return f"{moment if window.endswith('%H') else moment + _INDIA:{window}}"


@dataclass
class ModelPayment:
    kind: str
    name: str
    to: str | None
    amount: int
    state: str
    asked_at: datetime
    expires_at: datetime
    tries: int = CODE_TRIES


@dataclass
class Model:
    """What anybody would write on paper: balances, what is open, and a list of what counts for the limits."""

    limits: Limits
    available: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(_NAMES, _OPENING)))
    held: Counter[str] = field(default_factory=Counter)
    open: Counter[str] = field(default_factory=Counter)
    paid_out: int = 0
    touched: dict[str, datetime] = field(default_factory=lambda: dict.fromkeys(_NAMES, _START))
    shut: dict[str, str | None] = field(default_factory=lambda: dict.fromkeys(_NAMES))
    # (wallet, when, how much), without what was given back.
    counted: list[tuple[str, datetime, int]] = field(default_factory=list)
    payments: dict[str, ModelPayment] = field(default_factory=dict)

    def used(self, name: str, window: str, at: datetime) -> tuple[int, int]:
        """How many and how much in the hour, day or month of that time."""
        own = [amount for who, when, amount in self.counted if who == name and f"{when:{window}}" == f"{at:{window}}"]
        return len(own), sum(own)

    def request(
        self, kind: str, key: str, name: str, to: str | None, amount: int, now: datetime, *, asks_code: bool
    ) -> str | None:
        at = max(now, self.touched[name], self.touched[to] if to else now)
        error = self._refusal(name, to, amount, at)
        if error is not None:
            return error
        self.available[name] -= amount
        self.counted.append((name, at, amount))
        self.touched[name] = at
        state = "waiting" if asks_code else "pending" if kind == "withdrawal" else "paid"
        self.payments[key] = ModelPayment(kind, name, to, amount, state, at, now + CODE_LIFETIME)
        if state == "paid":
            self._pay_in(to, amount, now)
        else:
            self.held[name] += amount
            self.open[name] += 1
        return None

    def _refusal(self, name: str, to: str | None, amount: int, at: datetime) -> str | None:
        if to == name:
            return "same_wallet"
        if (shut := self._shut_out(name)) is not None:
            return shut
        if self.available[name] < amount:
            return "insufficient_funds"
        per_transaction, per_day, per_month, per_hour = self.limits
        if (
            (per_transaction and amount > per_transaction)
            or (per_hour and self.used(name, "%Y%m%d%H", at)[0] + 1 > per_hour)
            or (per_day and self.used(name, "%Y%m%d", at)[1] + amount > per_day)
            or (per_month and self.used(name, "%Y%m", at)[1] + amount > per_month)
        ):
            return "limit_exceeded"
        return None if to is None else self._shut_in(to, amount)

    def _shut_out(self, name: str) -> str | None:
        if self.shut[name] in ("out", "both"):
            return "wallet_frozen"
        return "wallet_closed" if self.shut[name] == "closed" else None

    def _shut_in(self, to: str, amount: int) -> str | None:
        if self.shut[to] == "closed":
            return "recipient_not_found"
        if self.shut[to] in ("in", "both"):
            return "recipient_wallet_frozen"
        return "recipient_balance_overflow" if self.available[to] + self.held[to] + amount > _MAX else None

    def _pay_in(self, to: str | None, amount: int, now: datetime) -> None:
        assert to is not None
        self.available[to] += amount
        self.touched[to] = max(now, self.touched[to])

    def confirm(self, key: str, by: str, now: datetime, *, is_right: bool) -> str | None:
        payment = self.payments[key]
        if by != payment.name or payment.state != "waiting":
            return "illegal_transition" if by == payment.name else "not_found"
        if now >= payment.expires_at:
            self._give_back(payment, now)
            return "approval_lapsed"
        payment.tries -= not is_right
        if payment.tries == 0:
            self._give_back(payment, now)
            return "too_many_tries"
        error = self._shut_out(payment.name) if is_right else "invalid_code"
        return self._pay(payment, now) if error is None else error

    def _pay(self, payment: ModelPayment, now: datetime) -> str | None:
        if payment.to is None:
            payment.state = "pending"
            return None
        if (shut := self._shut_in(payment.to, payment.amount)) is not None:
            return shut
        self.held[payment.name] -= payment.amount
        self.open[payment.name] -= 1
        self.touched[payment.name] = max(now, self.touched[payment.name], self.touched[payment.to])
        self._pay_in(payment.to, payment.amount, now)
        payment.state = "paid"
        return None

    def cancel(self, key: str, by: str, now: datetime) -> str | None:
        payment = self.payments[key]
        if by != payment.name:
            return "not_found"
        if payment.state != "waiting" and not (payment.state == "pending" and payment.kind == "withdrawal"):
            return "illegal_transition"
        self._give_back(payment, now)
        return None

    def lapse(self, key: str, now: datetime) -> str | None:
        payment = self.payments[key]
        if payment.state != "waiting":
            return None
        if now < payment.expires_at:
            return "illegal_transition"
        self._give_back(payment, now)
        return None

    def begin(self, key: str) -> str | None:
        payment = self.payments[key]
        if payment.state not in ("pending", "processing"):
            return "illegal_transition"
        payment.state = "processing"
        return None

    def end(self, key: str, now: datetime, *, is_paid: bool) -> str | None:
        """The bank's word on a withdrawal."""
        payment = self.payments[key]
        wanted, other = ("paid", "undone") if is_paid else ("undone", "paid")
        if payment.state == wanted:
            return None
        if payment.state in (other, "waiting", "canceled"):
            return "illegal_transition"
        if is_paid:
            self.held[payment.name] -= payment.amount
            self.open[payment.name] -= 1
            self.paid_out += payment.amount
            self.touched[payment.name] = max(now, self.touched[payment.name])
        else:
            self._give_back(payment, now)
        payment.state = wanted
        return None

    def _give_back(self, payment: ModelPayment, now: datetime) -> None:
        self.held[payment.name] -= payment.amount
        self.available[payment.name] += payment.amount
        self.open[payment.name] -= 1
        self.counted.remove((payment.name, payment.asked_at, payment.amount))
        if payment.state == "waiting" and payment.tries < CODE_TRIES:
            # Of a wrong code the count stays.
            self.counted.append((payment.name, payment.asked_at, 0))
        self.touched[payment.name] = max(now, self.touched[payment.name])
        payment.state = "canceled"


Told = tuple[Command, str | None]


class Play:
    """Steps as commands, with what the model says each comes to; the model moves as they are made."""

    def __init__(self, limits: Limits) -> None:
        self.books = make_books(Policy(limits={"INR": limits}))
        self.model = Model(limits)
        self.clock = _START
        self.asked: dict[str, Transfer | Operation] = {}

    def now(self, slow_ms: int) -> datetime:
        """By the clock of one of several processes, which may be slow."""
        return self.clock - timedelta(milliseconds=slow_ms)

    def pay(self, kind: str, name: str, to: str, amount: int, now: datetime, *, asks_code: bool) -> Any:
        challenge = challenge_until(now + CODE_LIFETIME) if asks_code else None
        wallet = self.books.wallets[_wallet_id(name)]
        if kind == "withdrawal":
            return withdrawal_of(wallet, amount, now=now, challenge=challenge)
        if len(to) > 1:
            return transfer_of(wallet, None, amount, now=now, challenge=challenge, to_user_id=f"usr_{to[0]}")
        return transfer_of(wallet, self.books.wallets[_wallet_id(to)], amount, now=now, challenge=challenge)

    def request(self, kind: str, name: str, to: str, amount: int, slow_ms: int, *, asks_code: bool) -> Told:
        now = self.now(slow_ms)
        command = self.pay(kind, name, to, amount, now, asks_code=asks_code)
        return command, self._note(command, kind, name, to, amount, now, asks_code=asks_code)

    def batch(self, orders: list[tuple[str, str, int, bool]], *, is_all_or_nothing: bool) -> Told:
        parts: list[RequestTransfer] = []
        errors: list[str | None] = []
        before = deepcopy(self.model)
        for name, to, amount, asks_code in orders:
            part = self.pay("transfer", name, to, amount, self.clock, asks_code=asks_code)
            # Only one's own wallets: the token is one person's.
            if name != orders[0][0]:
                part = replace(part, user_id=f"usr_{orders[0][0]}")
                errors.append("not_found")
            else:
                errors.append(self._note(part, "transfer", name, to, amount, self.clock, asks_code=asks_code))
            parts.append(part)
            if errors[-1] is not None and is_all_or_nothing:
                self.model = before
                break
        refused = is_all_or_nothing and any(errors)
        return batch_of(parts, is_all_or_nothing=is_all_or_nothing), "transfer_batch_refused" if refused else None

    def _note(
        self, command: Any, kind: str, name: str, to: str, amount: int, now: datetime, *, asks_code: bool
    ) -> str | None:
        key = command.operation_id if kind == "withdrawal" else command.transfer_id
        recipient = None if kind == "withdrawal" else to[0]
        return self.model.request(kind, key, name, recipient, amount, now, asks_code=asks_code)

    def about(self, what: str, index: int, by: str, slow_ms: int) -> Told | None:
        known = [key for key in self.model.payments if key in self.books.records]
        if not known:
            return None
        key = known[-1 - index % len(known)]
        payment: Any = self.books.records[key]
        now, model = self.now(slow_ms), self.model
        user = {"user_id": f"usr_{by}"}
        if what in ("begin", "settle", "fail") and not isinstance(payment, Operation):
            return None
        if what in ("begin", "settle", "fail") and model.shut[payment.user_id.removeprefix("usr_")] in ("out", "both"):
            # The bank is not told of it any more: that is for the state machine to play.
            return None
        told: dict[str, Callable[[], Told]] = {
            "right": lambda: (
                confirmation_of(payment, now=now, **user), model.confirm(key, by, now, is_right=True),
            ),
            "wrong": lambda: (
                confirmation_of(payment, now=now, code_hash="wrong", **user),
                model.confirm(key, by, now, is_right=False),
            ),
            "cancel": lambda: (cancellation_of(payment, now=now, **user), model.cancel(key, by, now)),
            "lapse": lambda: (lapse_of(payment, now=now), model.lapse(key, now)),
            "begin": lambda: (change_of(NoteAttempt, payment, now=now), model.begin(key)),
            "settle": lambda: (settlement_of(payment, now=now), model.end(key, now, is_paid=True)),
            "fail": lambda: (failure_of(payment, now=now), model.end(key, now, is_paid=False)),
        }  # fmt: skip
        return told[what]()

    def shut(self, name: str, how: str | None) -> None:
        """As an admin would; only what nothing may move any more can be closed."""
        if how == "closed" and self.model.open[name]:
            return
        self.model.shut[name] = how
        status = {None: WalletStatus.ACTIVE, "closed": WalletStatus.CLOSED}.get(how, WalletStatus.FROZEN)
        freeze = None if how is None or how == "closed" else Freeze(how)
        wallet = self.books.wallets[_wallet_id(name)]
        self.books.wallets[wallet.id] = wallet._replace(status=status, freeze=freeze)

    def assert_agreed(self) -> None:
        model = self.model
        for name in _NAMES:
            wallet = self.books.wallets[_wallet_id(name)]
            own = (wallet.available, wallet.held, wallet.open_operations, wallet.updated_at)
            assert own == (model.available[name], model.held[name], model.open[name], model.touched[name])
            at = wallet.updated_at
            usage = wallet.usage
            if usage.hour:
                # What the counters show is of the windows that they name; those that have ended count for nothing.
                windows = {"%Y-%m-%dT%H": usage.hour, "%Y-%m-%d": usage.day, "%Y-%m": usage.month}
                assert all(text <= _named(at, window) for window, text in windows.items())
                counters = (usage.hour_count, usage.day_amount, usage.month_amount)
                assert counters == tuple(self._counted(name, window, text) for window, text in windows.items())
        total = sum(wallet.available + wallet.held for wallet in self.books.wallets.values())
        assert total == len(_NAMES) * _OPENING - model.paid_out
        expected: set[str] = set()
        for key, payment in model.payments.items():
            if payment.state == "waiting":
                expected |= {outbox_id(topic, key) for topic in (OutboxTopic.APPROVAL_CODE, OutboxTopic.EXPIRY)}
            elif payment.state in ("pending", "processing"):
                expected.add(outbox_id(OutboxTopic.BANK_ORDER, key))
        assert self.books.outbox.keys() == expected
        assert_chain(self.books)

    def _counted(self, name: str, window: str, text: str) -> int:
        own = [amount for who, when, amount in self.model.counted if who == name and _named(when, window) == text]
        return len(own) if window.endswith("%H") else sum(own)


def code_of(decided: Decided) -> str | None:
    """What it was refused with."""
    if decided.error is not None:
        return decided.error.code
    if decided.answer is None or decided.answer.status_code < 400:
        return None
    code: str = orjson.loads(decided.answer.body)["error"]
    return code


_NAME = st.sampled_from(_NAMES)
_TO = st.sampled_from((*_NAMES, *_NAMES, "a by address", "b by address"))
_AMOUNT = st.one_of(st.integers(1, 400), st.integers(1, 1_100))
_SLOW_MS = st.sampled_from((0, 0, 0, 400, 1_500))
_STEPS = st.one_of(
    st.tuples(st.just("request"), st.sampled_from(("transfer", "transfer", "withdrawal")), _NAME, _TO, _AMOUNT,
              _SLOW_MS, st.sampled_from((True, True, False))),
    st.tuples(st.just("about"),
              st.sampled_from(("right", "wrong", "wrong", "cancel", "lapse", "begin", "settle", "fail")),
              st.integers(0, 3), st.sampled_from((None, None, None, None, *_NAMES)), _SLOW_MS),
    st.tuples(st.just("wait"), st.sampled_from((0.3, 0.3, 1, 1, 299, 300, 3_600, 86_400))),
    st.tuples(st.just("shut"), _NAME, st.sampled_from((None, None, None, "in", "out", "both", "closed"))),
    st.tuples(st.just("batch"), st.lists(st.tuples(_NAME, _TO, _AMOUNT, st.booleans()), min_size=1, max_size=4),
              st.booleans()),
)  # fmt: skip


class TestPaymentsAgainstAModel:
    @settings(max_examples=200, deadline=None)
    @given(
        limits=st.sampled_from((Limits(), _LIMITS)),
        steps=st.lists(_STEPS, min_size=5, max_size=60),
        batch_sizes=st.lists(st.integers(1, 5), min_size=1, max_size=20),
    )
    def test_balances_counters_and_outbox_agree_after_every_batch(
        self, limits: Limits, steps: list[Any], batch_sizes: list[int]
    ) -> None:
        play = Play(limits)
        told: list[Told] = []
        sizes = iter([*batch_sizes, *([3] * len(steps))])
        size = next(sizes)
        for step in steps:
            match step:
                case ("request", kind, name, to, amount, slow_ms, asks_code):
                    told.append(play.request(kind, name, to, amount, slow_ms, asks_code=asks_code))
                case ("batch", orders, is_all_or_nothing):
                    told.append(play.batch(orders, is_all_or_nothing=is_all_or_nothing))
                case ("about", what, index, by, slow_ms):
                    owner = self._owner(play, index) if by is None else by
                    about = play.about(what, index, owner, slow_ms)
                    told += [] if about is None else [about]
                case ("wait", seconds):
                    play.clock += timedelta(seconds=seconds)
                case ("shut", name, how):
                    # What changes a wallet past its commands has to come between two batches.
                    self._run(play, told)
                    play.shut(name, how)
            if len(told) >= size:
                self._run(play, told)
                size = next(sizes)
        self._run(play, told)

    def _owner(self, play: Play, index: int) -> str:
        known = [payment for key, payment in play.model.payments.items() if key in play.books.records]
        return known[-1 - index % len(known)].name if known else "a"

    def _run(self, play: Play, told: list[Told]) -> None:
        decided = play.books.run([command for command, _ in told])
        assert [code_of(one) for one in decided] == [error for _, error in told]
        told.clear()
        play.assert_agreed()


class TestCounters:
    def test_a_recipient_whose_clock_is_in_the_next_month_keeps_no_money_from_coming_back(self) -> None:
        books = make_books()
        sender, recipient = books.wallets["wal_a"], books.wallets["wal_b"]
        next_month = _START + timedelta(seconds=1)
        books.wallets[recipient.id] = recipient._replace(updated_at=next_month)
        challenge = challenge_until(_START + CODE_LIFETIME)
        books.run([request := transfer_of(sender, recipient, 100, now=_START, challenge=challenge)])
        transfer = books.transfers[request.transfer_id]
        (decided,) = books.run([cancellation_of(transfer, now=next_month)])
        assert code_of(decided) is None
        after = books.wallets[sender.id]
        assert (after.available, after.held) == (_OPENING, 0)
        # MongoDB's validator refuses a counter below zero, and the money would stay held.
        assert min(after.usage.hour_count, after.usage.day_amount, after.usage.month_amount) == 0


class TestTheSumOfADay:
    _POLICY = Policy(step_up_day_above={"INR": 500})

    def _withdraw(self, books: Books, amount: int, now: datetime, **overrides: Any) -> Operation:
        def make() -> Challenge:
            return challenge_until(now + CODE_LIFETIME)

        request = withdrawal_of(books.wallets["wal_a"], amount, now=now, make_challenge=make, **overrides)
        books.run([request])
        return books.operations[request.operation_id]

    def test_asks_for_a_code_beyond_it_and_no_more_on_the_next_day(self) -> None:
        books = make_books(self._POLICY)
        first, second = self._withdraw(books, 500, _START), self._withdraw(books, 1, _START)
        next_day = self._withdraw(books, 100, _START + timedelta(days=1))
        assert [one.challenge is None for one in (first, second, next_day)] == [True, False, True]

    def test_counts_what_was_given_back_no_more(self) -> None:
        books = make_books(self._POLICY)
        books.run([cancellation_of(self._withdraw(books, 500, _START), now=_START)])
        assert self._withdraw(books, 500, _START).challenge is None
