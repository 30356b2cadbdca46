"""Books on paper: what anybody would write down of wallets, in plain numbers. Nothing of the service is imported here.

A purse is a wallet, a thing is a record. What a purse has spent is kept as a list, and what is awaited as a dict of
rows; nothing is counted in passing, so that no counter can be wrong in the same way as the service's.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from math import ceil
from typing import NamedTuple, TypeVar

# What a JSON number carries exactly.
MOST = 2**53 - 1

_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
_WINTER_BEGINS = datetime(2099, 11, 1, 6, tzinfo=UTC)

# Refusals that are about who asks and when: the same request may fare better another time, so no key keeps them.
_FORGOTTEN = {
    "account_deactivated",
    "unauthenticated",
    "forbidden",
    "second_admin_required",
    "invalid_code",
    "hold_guaranteed",
    "house_funds_exhausted",
    "rate_unavailable",
}
# Of them those about when. They do not hide what the key has made.
_FOR_NOW = {"invalid_code", "house_funds_exhausted", "rate_unavailable"}

# Deposits, withdrawals, transfers, holds, adjustments and redemptions: whoever asks twice would get two.
_MADE_ONCE = ("dep_", "wdr_", "trf_", "hld_", "adj_", "rdm_")


# Zones that people may choose, and how far ahead of UTC their clocks are, all the year.
CHOSEN_ZONES = {"Pacific/Kiritimati": 14.0, "Pacific/Pago_Pago": -11.0, "Asia/Tokyo": 9.0}


def local(at: datetime, where: str) -> datetime:
    """What the clocks show in a chosen zone, or where a currency is at home: in India, in New York, in Japan."""
    homes = {"INR": 5.5, "USD": -4 if at < _WINTER_BEGINS else -5, "JPY": 9}
    return at + timedelta(hours=(homes | CHOSEN_ZONES).get(where, 0))


# What one minor unit of each money is worth, in minor units of the one in which a person's limits are.
REFERENCE = "INR"
WORTHS = {"INR": Fraction(1), "USD": Fraction(7, 3), "JPY": Fraction(3, 2)}


class Refused(Exception):
    """By its code. Whoever raises it after a change means the change to stay."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass
class Spending:
    """What counts for the limits: so much at that time, and as one operation unless it came to nothing.

    `day` and `month` are the dates under which it was written down.
    """

    at: datetime
    amount: int
    day: str = ""
    month: str = ""
    number: int = 1


@dataclass
class Sheet:
    """What was spent, each thing on the page of its day and month. A page that was turned stays turned."""

    spent: dict[str, Spending] = field(default_factory=dict)
    page: tuple[str, str] = "", ""
    # When the day and the month would have been turned before the zone was changed.
    turns: list[datetime] = field(default_factory=lambda: [_LONG_AGO, _LONG_AGO])

    def page_at(self, at: datetime, where: str) -> tuple[str, str]:
        here = local(at, where)
        return max(self.page[0], f"{here:%Y-%m-%d}"), max(self.page[1], f"{here:%Y-%m}")

    def write(self, thing: str, amount: int, at: datetime, where: str) -> None:
        before, self.page = self.page, self.page_at(at, where)
        self.turns = [
            _LONG_AGO if new != old else turns for new, old, turns in zip(self.page, before, self.turns, strict=True)
        ]
        self.spent[thing] = Spending(at, amount, *self.page)

    def move(self, at: datetime, was: str, where: str) -> None:
        """Keeps the page open until it would have been turned, and from then to the end of that day over there.

        When it would have been turned is kept until then: who goes on moving moves no end.
        """
        if self.page == ("", ""):
            return
        open_page = self.page_at(at, was)
        for which in (0, 1):
            if self.page[which] != open_page[which] or self.turns[which] <= at:
                self.turns[which] = self._turns(at, was, which)
        last = [local(turns - timedelta(microseconds=1), where) for turns in self.turns]
        self.page = f"{last[0]:%Y-%m-%d}", f"{last[1]:%Y-%m}"
        for one in self.spent.values():
            one.day = self.page[0] if one.day == open_page[0] else one.day
            one.month = self.page[1] if one.month == open_page[1] else one.month

    def _turns(self, at: datetime, where: str, which: int) -> datetime:
        """Tries each half hour until the day (0) or the month (1) is another."""
        then = at.replace(minute=0, second=0, microsecond=0)
        while self.page_at(then, where)[which] <= self.page_at(at, where)[which]:
            then += timedelta(minutes=30)
        return then

    def used_at(self, at: datetime, where: str) -> tuple[int, int, int]:
        """Operations in this hour, and amounts of this day and this month where those clocks are."""
        today, this_month = self.page_at(at, where)
        hour = [one.number for one in self.spent.values() if f"{one.at:%Y%m%d%H}" == f"{at:%Y%m%d%H}"]
        day = [one.amount for one in self.spent.values() if one.day == today]
        month = [one.amount for one in self.spent.values() if one.month == this_month]
        return sum(hour), sum(day), sum(month)


@dataclass
class Person:
    """What somebody's purses have spent together, for others. `own_limits` take the place of everybody's."""

    zone: str | None = None
    deactivations: int = 0
    own_limits: "dict[str, int] | None" = None
    sheet: Sheet = field(default_factory=Sheet)
    # What each thing on the sheet was worth as a whole, and its amount in the purse's money.
    whole: dict[str, tuple[int, int]] = field(default_factory=dict)

    def used(self, at: datetime) -> tuple[int, int, int]:
        return self.sheet.used_at(at, self.zone or REFERENCE)


@dataclass
class Purse(Sheet):
    """`free` can be spent, `aside` is set aside; `shut` is in, out, both or closed; `open` names what may move it."""

    owner: str = ""
    currency: str = ""
    free: int = 0
    aside: int = 0
    shut: str | None = None
    # How often it was frozen, one way or another.
    freezes: int = 0
    open: set[str] = field(default_factory=set)
    # Deposits that were taken back, the oldest first, with what each still lacks.
    owes: dict[str, int] = field(default_factory=dict)
    own_limits: "dict[str, int] | None" = None
    # The zone that its owner has chosen.
    zone: str | None = None

    def used(self, at: datetime) -> tuple[int, int, int]:
        return self.used_at(at, self.zone or self.currency)


@dataclass
class Thing:
    """Anything that commands make. `owner` asked for it."""

    owner: str
    purse: str
    amount: int
    status: str

    def shown(self) -> Mapping[str, object]:
        """What its record has to say of it."""
        return {"status": self.status}


_Kind = TypeVar("_Kind", bound=Thing)


class Said(NamedTuple):
    """What a command comes to: the code of its refusal, and whether that is an earlier answer given again."""

    code: str | None
    is_again: bool
    # What the answer's body has to show.
    shows: Mapping[str, object]


@dataclass
class Paper:
    """The books themselves, and what every noun needs of them."""

    now: datetime
    # By currency: per_transaction, per_day, per_month, count_per_hour.
    limits: dict[str, dict[str, int]]
    # Currencies in which no money is taken in any more.
    not_dealt_in: set[str] = field(default_factory=set)
    people: dict[str, int] = field(default_factory=dict)
    purses: dict[str, Purse] = field(default_factory=dict)
    things: dict[str, Thing] = field(default_factory=dict)
    # What the bank and the house have, by account and currency.
    outside: Counter[tuple[str, str]] = field(default_factory=Counter)
    # How much of its own the house lets go out of an account, in each currency.
    house_money: dict[tuple[str, str], int] = field(default_factory=dict)
    awaited: dict[str, datetime] = field(default_factory=dict)
    answers: dict[str, tuple[str, Said]] = field(default_factory=dict)
    # By key, with its request: what was made under it and would be made again, as far as its answer shows it for ever.
    made: dict[str, tuple[str, Mapping[str, object]]] = field(default_factory=dict)
    persons: dict[str, Person] = field(default_factory=dict)
    # Of each person, over all of their purses.
    overall_limits: dict[str, int] = field(default_factory=dict)
    # Who did what to what, of the deeds that are accounted for.
    audited: list[tuple[str, str, str]] = field(default_factory=list)
    # By person or key, currency and day: what moved without somebody else's approval, where that is bounded.
    moved_alone: dict[tuple[str, str, str], int] = field(default_factory=dict)

    # --- commands in general

    def hear(self, key: str | None, fingerprint: str, act: Callable[[], Mapping[str, object]]) -> Said:
        """One command, with the client's key where there is a client."""
        if key is not None and key in self.answers:
            known, said = self.answers[key]
            return said._replace(is_again=True) if known == fingerprint else Said("idempotency_key_reused", False, {})
        if key is not None and key in self.made:
            return self._hear_of_made(key, fingerprint, act)
        known_things = set(self.things)
        try:
            shows = act()
        except Refused as refusal:
            said = Said(refusal.code, False, {})
        else:
            said = Said(None, False, shows)
        self.pay_debts()
        if key is not None and said.code not in _FORGOTTEN:
            self.answers[key] = fingerprint, said
        made = [name for name in self.things if name not in known_things and name.startswith(_MADE_ONCE)]
        if key is not None and made:
            self.made[key] = fingerprint, said.shows if "accepted" in said.shows else {"id": made[0]}
        return said

    def pay_debts(self) -> None:
        """What is there in a purse that owes goes to whom it owes, at the end of each command."""

    def _hear_of_made(self, key: str, fingerprint: str, act: Callable[[], Mapping[str, object]]) -> Said:
        """The key's answer is forgotten, what it made is not: shown to whoever may still ask, and not made again."""
        known, shows = self.made[key]
        before = deepcopy(self.__dict__)
        try:
            act()
        except Refused as refusal:
            if refusal.code in _FORGOTTEN - _FOR_NOW:
                return Said(refusal.code, False, {})
        finally:
            self.__dict__.update(before)
        if known != fingerprint:
            return Said("idempotency_key_reused", False, {})
        self.answers[key] = fingerprint, Said(None, False, shows)
        return Said(None, True, shows)

    def forget_answers(self) -> None:
        """The time for which keys are kept is over."""
        self.answers.clear()

    @contextmanager
    def undone_when_refused(self) -> Iterator[None]:
        before = deepcopy(self.__dict__)
        try:
            yield
        except Refused:
            self.__dict__.update(before)
            raise

    def require_asker(self, user: str, token: int | None) -> None:
        if user not in self.people:
            raise Refused("account_deactivated")
        if token is not None and token != self.people[user]:
            raise Refused("unauthenticated")

    def of(self, *kinds: type[_Kind]) -> list[str]:
        """The ids of the things of these kinds, oldest first."""
        return [name for name, thing in self.things.items() if isinstance(thing, kinds)]

    def thing(self, name: str, kind: type[_Kind]) -> _Kind:
        thing = self.things.get(name)
        if not isinstance(thing, kind):
            raise Refused("not_found")
        return thing

    # --- purses

    def purse_of(self, owner: str | None, currency: str) -> str | None:
        for name, purse in self.purses.items():
            if (purse.owner, purse.currency) == (owner, currency):
                return name
        return None

    def require_way_out(self, name: str) -> None:
        shut = self.purses[name].shut
        if shut == "closed":
            raise Refused("wallet_closed")
        self.require_nothing_owed(name)
        if shut in ("out", "both"):
            raise Refused("wallet_frozen")

    def require_nothing_owed(self, name: str) -> None:
        if self.purses[name].owes:
            raise Refused("wallet_owes")

    def require_way_in(self, name: str) -> None:
        shut = self.purses[name].shut
        if shut == "closed":
            raise Refused("wallet_closed")
        if shut in ("in", "both"):
            raise Refused("wallet_frozen")

    def require_room(self, name: str, amount: int, code: str = "balance_overflow") -> None:
        if self.purses[name].free + self.purses[name].aside + amount > MOST:
            raise Refused(code)

    def require_money(self, name: str, amount: int) -> None:
        if self.purses[name].free < amount:
            raise Refused("insufficient_funds")

    def require_may_spend(self, name: str, amount: int, *, to_others: bool = True) -> None:
        """What the owner wants to let out of it: way, money, limits. What they keep counts for the purse alone."""
        self.require_way_out(name)
        self.require_money(name, amount)
        _require_within(self.ceilings(name), self.purses[name].used(self.now), amount)
        if to_others and self.counts_for_owner(name):
            owner = self.purses[name].owner
            _require_within(self.overall_ceilings(owner), self.persons[owner].used(self.now), self.worth(name, amount))

    def counts_for_owner(self, name: str) -> bool:
        purse = self.purses[name]
        return purse.currency in WORTHS and any(self.overall_ceilings(purse.owner).values())

    def overall_ceilings(self, owner: str) -> dict[str, int]:
        return self.overall_limits | (self.persons[owner].own_limits or {})

    def worth(self, name: str, amount: int) -> int:
        return ceil(amount * WORTHS[self.purses[name].currency])

    def ceilings(self, name: str) -> dict[str, int]:
        purse = self.purses[name]
        return self.limits.get(purse.currency, {}) | (purse.own_limits or {})

    def house_has(self, account: str, currency: str) -> int:
        """What the account can still give."""
        has, own = self.outside[account, currency], self.house_money[account, currency]
        if account != "bank":
            return own + has
        owed = sum(sum(one.owes.values()) for one in self.purses.values() if one.currency == currency)
        return own - has - owed - self.promised(currency) - self.unbooked(currency)

    def promised(self, currency: str) -> int:
        """What the bank has yet to pay out."""
        raise NotImplementedError

    def unbooked(self, currency: str) -> int:
        """What the bank has taken back that no purse has given or owes."""
        raise NotImplementedError

    def require_house_has(self, account: str, currency: str, amount: int) -> None:
        if self.house_has(account, currency) < amount:
            raise Refused("house_funds_exhausted")

    def require_payee(self, name: str | None, amount: int, currency: str) -> str:
        if name is None or name not in self.purses or self.purses[name].shut == "closed":
            raise Refused("recipient_not_found")
        if self.purses[name].currency != currency:
            raise Refused("currency_mismatch")
        if self.purses[name].shut in ("in", "both"):
            raise Refused("recipient_wallet_frozen")
        self.require_room(name, amount, "recipient_balance_overflow")
        return name

    # --- money

    def give(self, name: str, amount: int, *, account: str | None = None) -> None:
        """Into a purse; out of the account, where it is none of the purses that it comes from."""
        self.purses[name].free += amount
        if account is not None:
            self.outside[account, self.purses[name].currency] -= amount

    def take(self, name: str, amount: int, *, account: str | None = None) -> None:
        self.give(name, -amount, account=account)

    def set_aside(self, name: str, thing: str, amount: int) -> None:
        self.purses[name].free -= amount
        self.purses[name].aside += amount
        self.purses[name].open.add(thing)
        self.spend(name, thing, amount)

    def put_back(self, name: str, thing: str, amount: int, *, still_counts: bool = False) -> None:
        """All that was set aside: nothing has been spent, though it may count as one operation."""
        self.purses[name].free += amount
        self.purses[name].aside -= amount
        self.purses[name].open.remove(thing)
        if still_counts:
            self.spend_only(name, thing, 0)
        else:
            self.unspend(name, thing)

    def let_go(self, name: str, thing: str, amount: int, *, account: str | None = None) -> None:
        """Out of what was set aside, for good; what was set aside beyond it has to be seen to by who calls."""
        self.purses[name].aside -= amount
        self.purses[name].open.remove(thing)
        if account is not None:
            self.outside[account, self.purses[name].currency] += amount

    def spend(self, name: str, thing: str, amount: int, *, to_others: bool = True) -> None:
        purse = self.purses[name]
        purse.write(thing, amount, self.now, purse.zone or purse.currency)
        if to_others and self.counts_for_owner(name):
            person = self.persons[purse.owner]
            person.whole[thing] = self.worth(name, amount), amount
            person.sheet.write(thing, self.worth(name, amount), self.now, person.zone or REFERENCE)

    def spend_only(self, name: str, thing: str, amount: int) -> None:
        """So much of it after all, which still is one operation."""
        purse = self.purses[name]
        purse.spent[thing].amount = amount
        person = self.persons[purse.owner]
        if thing in person.whole:
            worth, whole = person.whole[thing]
            person.sheet.spent[thing].amount = ceil(Fraction(worth * amount, whole))

    def unspend(self, name: str, thing: str) -> None:
        purse = self.purses[name]
        del purse.spent[thing]
        self.persons[purse.owner].sheet.spent.pop(thing, None)

    # --- what is awaited

    def await_bank(self, thing: str) -> None:
        self.awaited[f"bank_order:{thing}"] = self.now

    def await_answer(self, thing: str, until: datetime) -> None:
        self.awaited[f"approval_code:{thing}"] = self.now
        self.awaited[f"expiry:{thing}"] = until

    def await_end(self, thing: str, until: datetime) -> None:
        self.awaited[f"expiry:{thing}"] = until

    def nothing_awaited(self, thing: str, *topics: str) -> None:
        for topic in topics or ("bank_order", "approval_code", "expiry"):
            self.awaited.pop(f"{topic}:{thing}", None)

    def wait(self, time: timedelta) -> None:
        self.now += time


def _require_within(ceilings: Mapping[str, int], used: tuple[int, int, int], amount: int) -> None:
    number, today, this_month = used
    wanted = {
        "per_transaction": amount,
        "count_per_hour": number + 1,
        "per_day": today + amount,
        "per_month": this_month + amount,
    }
    if any(ceilings.get(limit) and total > ceilings[limit] for limit, total in wanted.items()):
        raise Refused("limit_exceeded")
