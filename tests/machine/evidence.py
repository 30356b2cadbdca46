"""What the database holds of a sequence, beside what paper says that it should."""

import asyncio
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from datetime import datetime, timedelta
from typing import NamedTuple

import orjson

from service.domain.clock import to_rfc3339, utc_now
from service.domain.day_sums import day_sum_id
from service.domain.identifiers import Prefix, first_id_at, made_at
from service.domain.policy import Policy
from service.domain.records import Record
from service.domain.user_limits import user_limits_id
from service.ledger.audit_events import Unchanged
from service.ledger.batch import Decided
from service.ledger.commands import Command, CompositeCommand
from tests.machine.books import Accounts, Books, Row, collection_of
from tests.model.books import REFERENCE, Paper, local

_GENESIS = "0" * 64
_SIGNS: Mapping[str, tuple[int, int]] = {
    "DEPOSIT": (1, 0), "TRANSFER_IN": (1, 0), "CREDIT": (1, 0), "REVERSAL_IN": (1, 0), "CONVERSION_IN": (1, 0),
    "POINTS_EARNED": (1, 0), "TRANSFER_OUT": (-1, 0), "DEBIT": (-1, 0), "REVERSAL_OUT": (-1, 0),
    "CONVERSION_OUT": (-1, 0), "VOUCHER": (-1, 0), "WITHDRAWAL": (-1, 1), "HOLD": (-1, 1),
    "WITHDRAWAL_RETURN": (1, 0), "DEPOSIT_RETURN": (-1, 0), "POINTS_RETURN": (-1, 0),
    "WITHDRAWAL_SETTLEMENT": (0, -1), "HOLD_CAPTURE": (0, -1), "WITHDRAWAL_REFUND": (1, -1), "HOLD_RELEASE": (1, -1),
}  # fmt: skip
_AN_HOUR = timedelta(hours=1)
_ONE_IN = 4
_SHUT = {None: ("active", None), "closed": ("closed", None)}


class Heard(NamedTuple):
    """How a command ended, and what its client was told."""

    code: str | None
    is_again: bool
    body: bytes | None


def heard(decided: Decided) -> Heard:
    if isinstance(decided.error, Unchanged):
        # It has no code: services take it for success.
        return Heard("unchanged", False, None)
    if decided.error is not None:
        return Heard(decided.error.code, False, None)
    answer = decided.answer
    if answer is None:
        return Heard(None, False, None)
    refused = answer.status_code >= 400
    return Heard(orjson.loads(answer.body)["error"] if refused else None, answer.replayed, answer.body)


def _late(command: Command) -> Command:
    """One in a few was made three hours ago, by a process that was suspended since or has a clock that is behind."""
    if isinstance(command, CompositeCommand):
        return replace(command, parts=[_late(part) for part in command.parts])
    if int(command.transaction_id[-1], 16) % _ONE_IN:
        return command
    started = first_id_at(Prefix.ENTRY, utc_now() - 3 * _AN_HOUR)
    names = [one.name for one in fields(command) if one.name.endswith("entry_id")]
    late = {name: started + made[len(started) :] for name in names if (made := getattr(command, name)) is not None}
    return replace(command, **late)


class Evidence:
    """`_last` is the newest entry that was seen of each wallet."""

    def __init__(self, books: Books, policy: Policy) -> None:
        self.books, self.policy = books, policy
        self.outside: Counter[tuple[str, str]] = Counter()
        self._last: dict[str, Row] = {}

    async def open(
        self,
        users: Sequence[str],
        wallets: Mapping[str, tuple[str, str]],
        now: datetime,
        headroom: Mapping[tuple[str, str], int],
    ) -> None:
        """Wallets by id, with owner and currency; what accounts of the house can give."""
        await self.books.open(users, wallets, now)
        await self.books.set_headroom(headroom)

    async def insert(self, record: Record) -> None:
        """One that no command makes."""
        await self.books.insert(record)

    async def let_act(self, user: str, *, is_active: bool) -> None:
        await self.books.let_act(user, is_active=is_active)

    async def run(self, commands: Sequence[Command]) -> list[Heard]:
        return [heard(decided) for decided in await self.books.run([_late(one) for one in commands], self.policy)]

    async def compare(self, paper: Paper, names: Iterable[str]) -> None:
        """Every wallet, all that is awaited, and the records of these names."""
        rows = await self.books.find("wallets", paper.purses)
        await asyncio.gather(
            self._compare_entries(rows), self._compare_records(paper, names), self._compare_outbox(paper)
        )
        house = await self.books.find_headroom(paper.house_money)
        expected_house = {pair: paper.house_has(*pair) for pair in paper.house_money}
        assert house == expected_house, f"the house can give {house}, on paper {expected_house}"
        for name, purse in paper.purses.items():
            row = rows[name]
            status, freeze = _SHUT.get(purse.shut, ("frozen", purse.shut))
            owes = sum(purse.owes.values()), list(purse.owes)
            expected = (purse.free, purse.aside, *owes, len(purse.open), status, freeze, purse.used(paper.now))
            is_now = _used(row["usage"], paper.now, purse.zone or purse.currency)
            found = (
                *(row["available"], row["held"], row["owed"], list(row["debts"])),
                *(row["open_operations"], row["status"], row["freeze"], is_now),
            )
            assert found == expected, f"{name} of {purse.owner} in {purse.currency}: {found}, on paper {expected}"
            own = {limit: value for limit, value in (row["limits"] or {}).items() if value is not None}
            assert own == (purse.own_limits or {})
            assert row["owner_time_zone"] == purse.zone
            assert min(value for value in row["usage"].values() if isinstance(value, int)) >= 0
        await self._compare_persons(paper)
        await self._compare_moved_alone(paper)

    async def _compare_moved_alone(self, paper: Paper) -> None:
        """The last day of each that moved something alone, and nobody else's."""
        last = {(actor, currency): day for actor, currency, day in sorted(paper.moved_alone, key=lambda key: key[2])}
        expected = {
            day_sum_id(actor, currency): (day, paper.moved_alone[actor, currency, day])
            for (actor, currency), day in last.items()
        }
        pairs = {(actor, purse.currency) for actor in paper.persons for purse in paper.purses.values()}
        rows = await self.books.find("day_sums", [day_sum_id(*pair) for pair in sorted(pairs | last.keys())])
        found = {name: (row["day"], row["amount"]) for name, row in rows.items()}
        assert found == expected, f"moved alone is {found}, on paper {expected}"

    async def _compare_persons(self, paper: Paper) -> None:
        """What was counted over all of somebody's wallets."""
        ids = {user_limits_id(user): user for user in paper.persons}
        rows = await self.books.find("user_limits", ids)
        for name, user in ids.items():
            person, row = paper.persons[user], rows.get(name)
            if row is None:
                assert (person.zone, person.own_limits, person.sheet.spent) == (None, None, {})
                continue
            own = {limit: value for limit, value in (row["limits"] or {}).items() if value is not None}
            assert (row["time_zone"], own) == (person.zone, person.own_limits or {})
            used = _used(row["usage"], paper.now, person.zone or REFERENCE)
            assert used == person.used(paper.now), f"{user} has used {used}, on paper {person.used(paper.now)}"
            assert min(value for value in row["usage"].values() if isinstance(value, int)) >= 0

    async def _compare_entries(self, wallets: Mapping[str, Row]) -> None:
        """What has come since: one chain for each wallet, which ends in what the wallet holds."""
        last_seq = {name: self._last[name]["seq"] if name in self._last else 0 for name in wallets}
        moved = [name for name in wallets if wallets[name]["seq"] != last_seq[name]]
        entries: list[Row] = []
        if moved:
            entries = await self.books.find_entries({name: last_seq[name] for name in moved})
        between: dict[str, int] = defaultdict(int)
        for entry in entries:
            self._follow(entry)
            taken = entry["available_before"] + entry["held_before"] - entry["available_after"] - entry["held_after"]
            if entry["counterparty"].startswith("wal_"):
                between[entry["currency"]] += taken
            else:
                self.outside[entry["counterparty"], entry["currency"]] += taken
        assert not any(between.values()), f"wallets gave one another {dict(between)} more than they took"
        for name in moved:
            wallet, last = wallets[name], self._last[name]
            assert (wallet["seq"], wallet["head_hash"]) == (last["seq"], last["hash"])
            assert (wallet["available"], wallet["held"]) == (last["available_after"], last["held_after"])
            assert wallet["updated_at"] >= last["created_at"]

    def _follow(self, entry: Row) -> None:
        last = self._last.get(entry["wallet_id"])
        if last is None:
            at, expected = entry["created_at"], (1, _GENESIS, 0, 0)
        else:
            at = last["created_at"]
            expected = (last["seq"] + 1, last["hash"], last["available_after"], last["held_after"])
        before = entry["available_before"], entry["held_before"]
        assert (entry["seq"], entry["prev_hash"], *before) == expected, f"the chain of {entry['wallet_id']} is broken"
        assert entry["created_at"] >= at
        free, aside = _SIGNS[entry["type"]]
        after = before[0] + free * entry["amount"], before[1] + aside * entry["amount"]
        assert (entry["available_after"], entry["held_after"]) == after
        assert min(*after, entry["amount"] - 1) >= 0
        assert entry["hash"] == _hash_of(entry)
        made = made_at(entry["_id"])
        assert made is not None, f"{entry['_id']} tells no time"
        assert made > utc_now() - _AN_HOUR, f"{entry['_id']} is of an hour whose sums may be closed"
        self._last[entry["wallet_id"]] = entry

    async def _compare_records(self, paper: Paper, names: Iterable[str]) -> None:
        """Those that were refused are not there."""
        by_collection: dict[str, list[str]] = defaultdict(list)
        for name in names:
            by_collection[collection_of(name)].append(name)
        for collection, wanted in by_collection.items():
            rows = await self.books.find(collection, wanted)
            for name in wanted:
                thing = paper.things.get(name)
                assert (thing is None) == (name not in rows), f"{name} is {'missing' if thing else 'there'}"
                if thing is not None:
                    row = rows[name]
                    row["tries_left"] = row["challenge"]["tries_left"] if row.get("challenge") else None
                    expected = dict(thing.shown())
                    found = {fact: row.get(fact) for fact in expected}
                    assert found == expected, f"{name} is {found}, on paper {expected}"

    async def _compare_outbox(self, paper: Paper) -> None:
        rows = await self.books.find_awaited(paper.things)
        found = {(row["_id"], row["due_at"]) for row in rows}
        expected = set(paper.awaited.items())
        assert found == expected, f"awaited are also {found - expected}, and not {expected - found}"

    async def conclude(self, paper: Paper) -> None:
        """What only has to be looked at once, at the end."""
        await self.compare(paper, paper.things)
        held = {account: balance for account, balance in self.outside.items() if balance}
        assert held == {account: balance for account, balance in paper.outside.items() if balance}
        users = {name.partition(":")[0] for name in paper.answers}
        assert await self.books.find_keys(users) == set(paper.answers)
        rows = await self.books.find_audit_events({purse.owner for purse in paper.purses.values()})
        assert [(row["actor_id"], row["action"], row["subject_id"]) for row in rows] == paper.audited

    async def forget_awaited(self, paper: Paper) -> None:
        """Nobody will ever come for it."""
        await self.books.forget_awaited(paper.awaited)


def compare_accounts(before: Accounts, after: Accounts, paper: Paper) -> None:
    """What a sequence did to the books of all, which other tests may have left unbalanced."""
    for currency, left_over in after.left_over.items():
        assert left_over == before.left_over.get(currency, (0, 0)), f"{currency} no longer adds up: {left_over}"
    for account, balance in after.accounts.items():
        assert balance - before.accounts.get(account, 0) == paper.outside[account], f"{account} has {balance}"


def _used(usage: Row, now: datetime, where: str) -> tuple[int, int, int]:
    """Of the windows that still run."""
    here = local(now, where)
    hour = usage["hour_count"] if usage["hour"] == f"{now:%Y-%m-%dT%H}" else 0
    day = usage["day_amount"] + usage["day_carry"] * 2**53 if usage["day"] >= f"{here:%Y-%m-%d}" else 0
    month = usage["month_amount"] + usage["month_carry"] * 2**53 if usage["month"] >= f"{here:%Y-%m}" else 0
    return hour, day, month


def _hash_of(entry: Row) -> str:
    """As the README has it: JSON, its keys sorted, no white space, without the hash and a category that is null."""
    sealed = {name: value for name, value in entry.items() if name not in ("_id", "hash")}
    sealed |= {"id": entry["_id"], "created_at": to_rfc3339(entry["created_at"])}
    if sealed.get("category") is None:
        sealed.pop("category", None)
    text = json.dumps(sealed, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
