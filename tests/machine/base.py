"""The machine that says commands to the ledger and to paper alike, some at a time, and compares the two."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, ClassVar, NamedTuple, TypeVar

import orjson
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from service.domain.idempotency import IdempotencyClaim
from service.domain.identifiers import Prefix, new_id
from service.domain.limits import Limits
from service.domain.money import POINTS
from service.domain.policy import Policy
from service.domain.quotes import Rate
from service.domain.rewards import EarningEvent, EarningRule
from service.domain.user_limits import ReferenceLimits
from service.ledger import debts as debt_rules
from service.ledger.commands import Command
from tests.machine.books import Accounts, Books
from tests.machine.evidence import Evidence, Heard, compare_accounts
from tests.model.books import REFERENCE, Said, Thing
from tests.model.ledger import LedgerPaper
from tests.model.rewards import Earning

# Shortly before a day and a month end in India, so that little waiting passes over both. So far ahead that no
# worker of another test takes a row for due, and MongoDB no key for expired.
START = datetime(2099, 10, 31, 18, 29, 40, tzinfo=UTC)
CURRENCIES = ("INR", "USD", "JPY")
# Of four people, who has what: ten wallets.
_PURSES = (
    (0, "INR"), (0, "USD"), (0, "JPY"), (0, POINTS), (1, "INR"), (1, "USD"), (1, POINTS), (2, "INR"), (2, "JPY"),
    (3, "INR"),
)  # fmt: skip
# Some are never filled, so that they can be closed at once.
EMPTY = ((0, "JPY"), (2, "JPY"))
OPENING = 1_000
# Accounts of the house with a floor, and as much money of its own as nobody here can use up.
HOUSE = ("bank", "house:fx")
PLENTY = 2**61
# In a third of the sequences one of the two has little. Not drawn by itself, so that a seed plays what it always did.
_HOUSES = {(False, 0): (0, PLENTY), (True, 3): (PLENTY, 500)}
_SECOND_ADMIN_ABOVE = 100
# Of services too, which have no other bound; of the other currencies nobody counts it.
_ALONE_ABOVE = 900
_LIMITS: Mapping[str, int] = {"per_transaction": 600, "per_day": 1_500, "per_month": 3_000, "count_per_hour": 6}
_OVERALL_LIMITS: Mapping[str, int] = {"per_transaction": 1_100, "per_day": 2_000, "per_month": 4_000}
# As on paper, but for major units: 100 minor units each, of JPY one.
_RATES = {
    "INR": Rate(1, 1, "test", START),
    "USD": Rate(7, 3, "test", START),
    "JPY": Rate(3, 200, "test", START),
}
_EARNINGS = (
    Earning("paying in", "deposit", "INR", 100, 5, 40, 0),
    Earning("paying in much", "deposit", "INR", 500, 50, 200, 500),
    Earning("paying out", "withdrawal", "INR", 10, 1, 1_000, 0),
    Earning("giving", "transfer", "USD", 50, 20, 100, 100),
    Earning("giving", "transfer", "INR", 50, 20, 100, 100),
)
# What the database is given to answer; a sequence that hangs must not hang the run.
_PATIENCE_S = 60.0

WALLETS = st.integers(0, len(_PURSES) - 1)
USERS = st.integers(0, 3)
# Mostly who may, and sometimes somebody else. What is rare stands in the middle: Hypothesis likes both ends best.
ACTORS = st.sampled_from((None,) * 14 + (0, 1, 2, 3) + (None,) * 14)
TOKENS = st.sampled_from((None, 0) * 8 + (7,) + (None, 0) * 8)
# That of the wallet, or another.
OTHER_MONEY = st.sampled_from((None,) * 14 + CURRENCIES + (None,) * 14)
AMOUNTS = st.one_of(st.integers(1, 300), st.integers(1, 1_200))
MONEY = st.sampled_from((CURRENCIES[0], CURRENCIES[0], *CURRENCIES))
# Which of those that there are: 0 is the one that most can be done with, or else the newest.
WHICH = st.sampled_from((0, 0, 0, 0, 1, 1, 5, 2, 3, 1, 0, 0, 0))
# Whom money goes to: others in that currency come first, then the wallet itself, then those in other currencies.
PEERS = st.sampled_from((0, 0, 0, 0, 1, 1, 3, 2, 9, 2, 1, 1, 0, 0, 0))
CODES = st.booleans()
# Whether what was said so far is one batch.
ENDS = st.sampled_from((True, False))

Built = Callable[[dict[str, Any]], Command]
Acted = Callable[[], Mapping[str, object]]
_Result = TypeVar("_Result")
_Method = TypeVar("_Method", bound=Callable[..., None])


def _is_live(thing: Thing) -> bool:
    """Something may still become of it."""
    return thing.status in ("requires_approval", "pending", "processing", "requires_review", "blocked", "held", "open")


def has_live(*kinds: type[Thing]) -> Callable[[Any], bool]:
    """For a precondition: there is one of these from which the rule may lead on."""
    return lambda machine: any(_is_live(machine.paper.things[name]) for name in machine.paper.of(*kinds))


class Table(NamedTuple):
    """What machines of one run share: the books, and the loop on which their client lives."""

    books: Books
    loop: asyncio.AbstractEventLoop
    # The last trial balance that was drawn up.
    accounts: list[Accounts]
    # How often which command came to what.
    seen: Counter[tuple[str, str | None]]

    def wait_for(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(_PATIENCE_S)


class Wording(NamedTuple):
    """A command as it can be said again: by a client with the same key, by a worker or the bank without one."""

    build: Built
    act: Acted
    key: str | None
    about: tuple[str, ...]


@dataclass(frozen=True, repr=False)
class Move:
    """A method of the machine, and what it is called with."""

    name: str
    arguments: Mapping[str, Any]

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(f'{name}={value!r}' for name, value in self.arguments.items())})"


class Choice(NamedTuple):
    """When a move is possible, and how often it is chosen beside others."""

    when: Callable[[Any], object]
    often: int
    moves: st.SearchStrategy[Move]


def move(
    *, when: Callable[[Any], object] = lambda _: True, often: int = 1, **arguments: st.SearchStrategy[Any]
) -> Callable[[_Method], _Method]:
    """Like Hypothesis' own rules. Those are switched off by the half in each sequence, so that most of thirty meet
    nothing that they could lead on from.
    """

    def mark(method: _Method) -> _Method:
        name = method.__name__
        moves = st.fixed_dictionaries(arguments).map(partial(Move, name))
        _CHOICES[name] = Choice(when, often, moves)
        return method

    return mark


_CHOICES: dict[str, Choice] = {}


@dataclass
class Pending:
    """What was said and is not yet a batch."""

    commands: list[Command] = field(default_factory=list)
    expected: list[Said] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    names: set[str] = field(default_factory=set)


class LedgerMachine(RuleBasedStateMachine):
    """Each noun is a subclass with its rules; all of them together are the machine."""

    table: ClassVar[Table]

    def __init__(self) -> None:
        super().__init__()
        self.paper = LedgerPaper(START, {})
        self.pending = Pending()
        self.wordings: list[Wording] = []
        self.keys_given = 0
        self.bodies: dict[str, bytes] = {}
        self.names: set[str] = set()
        # Nothing more is compared once something was wrong.
        self.is_sound = False
        self.evidence: Evidence

    @initialize(
        limited=st.booleans(),
        overall=st.booleans(),
        code_above=st.sampled_from((None, 400)),
        yen=st.sampled_from((True, True, False)),
        debts=st.sampled_from((0, 1, 3)),
    )
    def open_books(self, *, limited: bool, overall: bool, code_above: int | None, yen: bool, debts: int) -> None:
        paper = self.paper
        self.users = [new_id(Prefix.USER) for _ in range(4)]
        self.api_key = new_id(Prefix.API_KEY)
        wallets = {new_id(Prefix.WALLET): (self.users[index], currency) for index, currency in _PURSES}
        paper.open(self.users, wallets)
        paper.limits = {"INR": dict(_LIMITS)} if limited else {}
        paper.overall_limits = dict(_OVERALL_LIMITS) if overall else {}
        paper.code_above = {} if code_above is None else {"INR": code_above, "USD": code_above}
        paper.second_admin_above = dict.fromkeys(CURRENCIES, _SECOND_ADMIN_ABOVE)
        paper.alone_above = {"INR": _ALONE_ABOVE}
        paper.earnings = list(_EARNINGS)
        # Nobody has any, and wallets in it are there to be closed.
        paper.not_dealt_in = set() if yen else {"JPY"}
        for account, own in zip(HOUSE, _HOUSES.get((limited, debts), (PLENTY, PLENTY)), strict=True):
            paper.house_money |= {(account, currency): own for currency in CURRENCIES}
        self.allow_debts(debts)
        self.wallets = list(wallets)
        self.evidence = Evidence(self.table.books, self.policy())
        if not self.table.accounts:
            self.table.accounts.append(self.table.wait_for(self.table.books.draw_up()))
        self.table.wait_for(self.evidence.open(self.users, wallets, START, paper.house_money))
        self.is_sound = True
        self.fund()

    def allow_debts(self, most: int) -> None:
        """Fewer than the service allows, or they would hardly ever be used up. `play` puts it back."""
        self.paper.debts_at_most = most
        vars(debt_rules)["MAX_DEBTS"] = most

    def policy(self) -> Policy:
        paper = self.paper
        return Policy(
            limits={currency: Limits(**limits) for currency, limits in paper.limits.items()},
            user_limits=ReferenceLimits(REFERENCE, Limits(**paper.overall_limits), _RATES),
            currencies=frozenset(CURRENCIES) - paper.not_dealt_in,
            step_up_above=paper.code_above,
            adjustment_approval_above=paper.second_admin_above,
            adjustment_day_above=paper.alone_above,
            earning_rules=tuple(
                EarningRule(
                    one.name, EarningEvent(one.on), one.currency, one.per_amount, one.points, one.at_most, one.minimum
                )
                for one in paper.earnings
            ),
        )

    def fund(self) -> None:
        raise NotImplementedError

    # --- what rules are made of

    def say(
        self, build: Built, act: Acted, *about: str, by: str | None = None, ends: bool = True, key: str | None = None
    ) -> None:
        """`by` is the client whose key it comes with; `about` are the records that it may make or change."""
        if by is not None and key is None:
            self.keys_given += 1
            key = f"{by}:{self.keys_given}"
        wording = Wording(build, act, key, about)
        self.wordings.append(wording)
        self._say(wording, f"fingerprint of {key}", ends=ends)

    def _say(self, wording: Wording, fingerprint: str, *, ends: bool) -> None:
        now = self.paper.now
        claim = None
        if wording.key is not None:
            claim = IdempotencyClaim(
                wording.key, fingerprint, now + timedelta(days=1), key_hashes=(f"hash of {wording.key}",)
            )
        common = {"now": now, "transaction_id": new_id(Prefix.TRANSACTION), "claim": claim}
        self.pending.commands.append(wording.build(common))
        self.pending.expected.append(self.paper.hear(wording.key, fingerprint, wording.act))
        self.pending.keys.append(wording.key)
        self.pending.names.update(wording.about)
        if ends:
            self.commit()

    def commit(self) -> None:
        """All that was said as one batch, and then everything is compared."""
        pending, self.pending = self.pending, Pending()
        if not pending.commands:
            return
        self.is_sound = False
        self.table.wait_for(self._commit(pending))
        self.is_sound = True

    async def _commit(self, pending: Pending) -> None:
        found = await self.evidence.run(pending.commands)
        for command, key, said, heard in zip(
            pending.commands, pending.keys, pending.expected, found, strict=True
        ):  # fmt: skip
            name = type(command).__name__
            assert (heard.code, heard.is_again) == said[:2], f"{name} came to {heard}, on paper {said}"
            self._compare_answer(name, key, said, heard)
            self.table.seen[name, "again" if heard.is_again else heard.code] += 1
        self.names |= pending.names
        await self.evidence.compare(self.paper, pending.names)

    def _compare_answer(self, name: str, key: str | None, said: Said, heard: Heard) -> None:
        """The first one to a key shows what it should, and every later one is the same to the byte."""
        if key is None or heard.body is None:
            return
        if heard.is_again and key in self.bodies:
            assert heard.body == self.bodies[key], f"{name} got another answer for the same key"
            return
        self.bodies[key] = heard.body
        if said.code is None:
            body = orjson.loads(heard.body)
            found = {fact: body.get(fact) for fact in said.shows}
            assert found == said.shows, f"{name} was answered {found}, on paper {said.shows}"

    def newest(self, which: int, *kinds: type[Thing], best: Callable[[Any], bool] = _is_live) -> str:
        known = sorted(self.paper.of(*kinds), key=lambda name: best(self.paper.things[name]))
        return known[-1 - which % len(known)]

    def purse(self, index: int) -> str:
        return self.wallets[index]

    def peer(self, index: int, of: str) -> str:
        currency = self.paper.purses[of].currency
        others = sorted(self.wallets, key=lambda name: (self.paper.purses[name].currency != currency, name == of))
        return others[index]

    def actor(self, index: int | None, owner: str) -> str:
        return owner if index is None else self.users[index]

    def possible_moves(self) -> st.SearchStrategy[Move]:
        names = [name for name, choice in _CHOICES.items() if choice.when(self) for _ in range(choice.often)]
        return st.sampled_from(names).flatmap(lambda name: _CHOICES[name].moves)

    @rule(move=st.runner().flatmap(lambda machine: machine.possible_moves()))
    def do(self, move: Move) -> None:
        getattr(self, move.name)(**move.arguments)

    # --- what is about no noun

    @move(seconds=st.sampled_from((0.25, 0.25, 0.25, 1, 1, 30, 30, 299.75, 300, 3_600, 86_400)))
    def wait(self, seconds: float) -> None:
        """Commands of one batch may be older than the ones before them were when they were said."""
        self.paper.wait(timedelta(seconds=seconds))

    @move(user=USERS, is_active=st.sampled_from((True, False, True, True)))
    def let_act(self, user: int, *, is_active: bool) -> None:
        """No command either, and so between two batches."""
        self.commit()
        self.paper.people = {name: 0 for name in self.users if name in self.paper.people or name == self.users[user]}
        if not is_active:
            del self.paper.people[self.users[user]]
            self.paper.persons[self.users[user]].deactivations += 1
        self.table.wait_for(self.evidence.let_act(self.users[user], is_active=is_active))

    @move(when=lambda self: self.wordings, which=WHICH, ends=ENDS)
    def say_again(self, which: int, *, ends: bool) -> None:
        """The same request under the same key, or the same report of the bank."""
        wording = self.wordings[-1 - which % len(self.wordings)]
        self._say(wording, f"fingerprint of {wording.key}", ends=ends)

    @move(when=lambda self: self.paper.made)
    def forget_keys(self) -> None:
        """MongoDB removes answers whose time is over. What was made under their keys is not made again."""
        self.commit()
        self.table.wait_for(self.evidence.books.forget_keys(self.paper.answers))
        self.paper.forget_answers()
        self.bodies.clear()
        # A voucher may be put into the catalogue twice; said again, it would be under the same id.
        self.wordings = [one for one in self.wordings if not any(name.startswith("vch_") for name in one.about)]

    @move(when=lambda self: self.bodies, which=WHICH, ends=ENDS)
    def use_key_for_another_request(self, which: int, *, ends: bool) -> None:
        keys = list(self.bodies)
        key = keys[-1 - which % len(keys)]
        wording = next(wording for wording in reversed(self.wordings) if wording.key == key)
        self._say(wording, "fingerprint of another", ends=ends)

    def teardown(self) -> None:
        """The end of every sequence: the last batch, all records, and the trial balance."""
        if not self.is_sound:
            return
        self.commit()
        self.table.wait_for(self._conclude())

    async def _conclude(self) -> None:
        await self.evidence.compare(self.paper, self.names)
        await self.evidence.conclude(self.paper)
        await self.evidence.forget_awaited(self.paper)
        accounts = await self.table.books.draw_up()
        compare_accounts(self.table.accounts[-1], accounts, self.paper)
        self.table.accounts[-1] = accounts
