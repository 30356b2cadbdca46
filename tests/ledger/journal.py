"""Commands said to books in memory, and all that they come to: answers, refusals, and each document that is written.

`outcomes/` has a file for each story. A test says the story's commands and compares everything with its file, so that
no field can be lost, swapped or changed unseen. What has its default or is None is left out, and so are hashes, which
tests of the chain compute anew. `TEST_WRITE_OUTCOMES=1` writes the files anew: read the difference before it is kept.
"""

import json
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from service.domain.clock import to_rfc3339
from service.domain.entries import entry_hash
from service.domain.idempotency import IdempotencyClaim
from service.domain.limits import Limits
from service.domain.money import POINTS
from service.domain.policy import Policy
from service.domain.records import Record
from service.domain.rewards import EarningEvent, EarningRule
from service.domain.sealed import Sealed
from service.domain.step_up import Challenge
from service.domain.wallets import Wallet, new_wallet
from service.errors import problem_document
from service.ledger.batch import Decided, Writes
from service.ledger.commands import Command
from tests.books import Books
from tests.records import METADATA, at

_FOLDER = Path(__file__).parent / "outcomes"
_HASHES = {"hash", "prev_hash", "head_hash"}
# Above 1,000 a code, above 100 a second admin; a point for each 50 that come in, two for each 50 that go out.
POLICY = Policy(
    limits={"INR": Limits(per_transaction=5_000, per_day=6_000)},
    step_up_above={"INR": 1_000},
    adjustment_approval_above={"INR": 100},
    earning_rules=(
        EarningRule("saving", EarningEvent.DEPOSIT, "INR", 50, 1, 1_000),
        EarningRule("giving", EarningEvent.TRANSFER, "INR", 50, 2, 1_000),
        EarningRule("paying", EarningEvent.WITHDRAWAL, "INR", 50, 3, 1_000),
    ),
    currencies=frozenset({"INR", "USD"}),
)
_WALLETS = (
    ("wal_asha", "usr_asha", "INR"),
    ("wal_asha_usd", "usr_asha", "USD"),
    ("wal_asha_points", "usr_asha", POINTS),
    ("wal_ravi", "usr_ravi", "INR"),
    ("wal_ravi_usd", "usr_ravi", "USD"),
    ("wal_admin", "usr_admin", "INR"),
)


class _WatchedBooks(Books):
    """Remembers what the last batch wrote."""

    last: Writes

    def _take_in(self, writes: Writes) -> None:
        self.last = writes
        super()._take_in(writes)


class Journal:
    """Each command comes a minute after the one before it, with ids and a key of its own."""

    def __init__(self, policy: Policy = POLICY) -> None:
        users = ("usr_asha", "usr_ravi", "usr_admin", "usr_boss", "usr_shop")
        wallets = {name: new_wallet(name, owner, currency, at(0)) for name, owner, currency in _WALLETS}
        self.books = _WatchedBooks(dict.fromkeys(users, 7), wallets, policy)
        self.lines: list[dict[str, Any]] = []
        self.number = 0

    # --- what commands are made of

    def common(self) -> dict[str, Any]:
        """Of any command."""
        self.number += 1
        name = f"{self.number:032x}"
        return {"now": at(self.number), "transaction_id": f"txn_{name}", "request_id": f"req_{self.number}"}

    def by(self, user: str, *, key: str | None = None) -> dict[str, Any]:
        """Of one that somebody asks for, with a key."""
        common = self.common()
        key = key or f"key-{self.number}"
        claim = IdempotencyClaim(f"{user}:{key}", f"fingerprint of {key}", at(10_000), key_hashes=(f"hash of {key}",))
        return common | {"user_id": user, "token_version": 7, "claim": claim}

    def audited(self, user: str, *, key: str | None = None) -> dict[str, Any]:
        by = self.by(user, key=key)
        return by | {"audit_event_id": f"aud_{self.number}", "reason": f"Reason {self.number}"}

    def entry(self, which: str = "") -> str:
        """Of the command that is being made; `which` of its entries."""
        return f"ent_{self.number}{which}"

    # --- what is said

    def say(self, *commands: Command, why: str = "") -> tuple[Decided, ...]:
        """As one batch. Notes what each came to, and what was written."""
        before = dict(self.books.records)
        decided = self.books.run(commands, is_bank_asked=False)
        line: dict[str, Any] = {"says": [type(command).__name__ for command in commands]}
        if why:
            line["why"] = why
        line["comes_to"] = [_outcome(one, command) for one, command in zip(decided, commands, strict=True)]
        self.lines.append(line | _written(self.books.last, before))
        _assert_sealed(self.books.last)
        return tuple(decided)

    def begin(self, *commands: Command) -> None:
        """Commands that have to be accepted and are another story's: nothing is noted."""
        assert not any(one.refused for one in self.books.run(commands, is_bank_asked=False))

    def forget_answers(self) -> None:
        """The keys' answers have expired."""
        self.books.answers.clear()

    def made(self, record_id: str) -> Any:
        return self.books.records[record_id]

    def wallet(self, wallet_id: str) -> Wallet:
        return self.books.wallets[wallet_id]

    def change(self, wallet_id: str, **fields: Any) -> None:
        """Past the ledger: as something else has left the wallet."""
        self.books.wallets[wallet_id] = self.wallet(wallet_id)._replace(**fields)

    def put(self, *records: Record) -> None:
        """Past the ledger."""
        self.books.records |= {record.id: record for record in records}

    def compare(self, story: str) -> None:
        path = _FOLDER / f"{story}.json"
        if os.environ.get("TEST_WRITE_OUTCOMES"):
            _FOLDER.mkdir(exist_ok=True)
            path.write_text(_as_text(self.lines))
        expected = json.loads(path.read_text())
        for line, wanted in zip(self.lines, expected, strict=True):
            assert line == wanted, f"{story}: {line['says']} {line.get('why', '')} (meant? TEST_WRITE_OUTCOMES=1)"


ACCOUNT: dict[str, Any] = {"account_sealed": Sealed("00000000", b"sealed"), "account_masked": "•••• 0001"}
DETAILS: dict[str, Any] = {"category": "gift", "description": "As agreed", "metadata": METADATA}


def challenge(minute: int, tries_left: int = 5) -> Challenge:
    """Answered by 'right', before that minute."""
    return Challenge("0" * 32, "right", at(minute), tries_left)


def _as_text(lines: Sequence[Mapping[str, Any]]) -> str:
    """A line for each document, so that a difference shows which ones have changed."""
    parts = [",\n".join(f'"{name}": {_part_as_text(part)}' for name, part in line.items()) for line in lines]
    return "[\n{" + "\n},\n{".join(parts) + "\n}\n]\n"


def _part_as_text(part: Any) -> str:
    match part:
        case [_, _, *_]:
            return "[\n  " + ",\n  ".join(_one_line(one) for one in part) + "]"
        case Mapping() if len(part) > 1:
            return "{\n  " + ",\n  ".join(f'"{name}": {_one_line(one)}' for name, one in part.items()) + "}"
        case _:
            return _one_line(part)


def _one_line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _outcome(decided: Decided, command: Command) -> dict[str, Any]:
    outcome: dict[str, Any] = {}
    if decided.answer is not None:
        outcome["status"] = decided.answer.status_code
        outcome["body"] = json.loads(decided.answer.body)
        if decided.answer.replayed:
            outcome["replayed"] = True
    if decided.error is not None:
        document = problem_document(decided.error, command.request_id)
        outcome["error"] = {"class": type(decided.error).__name__, **document}
    if decided.refused is not False:
        outcome["refused"] = decided.refused
    if decided.record is not None:
        outcome["record"] = decided.record.id
    return outcome


def _written(writes: Writes, before: Mapping[str, Record]) -> dict[str, Any]:
    """Documents that are new, and of others what has changed."""
    parts: dict[str, Any] = {
        "wallets": {new.id: _difference(old, new) for old, new in writes.wallet_updates},
        "made": {record.id: plain(record) for record in writes.record_inserts},
        "changed": {new.id: _difference(before[new.id], new) for _, new in writes.record_updates},
        "entries": [plain(entry) for entry in writes.entries],
        "events": [plain(event) for event in writes.events],
        "keys": [plain(answer._replace(body=b"")) for answer in writes.answers],
        "outbox": [plain(row) for row in writes.outbox_inserts],
        "outbox_done": list(writes.outbox_deletes),
    }
    return {name: part for name, part in parts.items() if part}


def _assert_sealed(writes: Writes) -> None:
    """Each wallet's new entries lead from its old head to its new one."""
    for old, new in writes.wallet_updates:
        head = old.head_hash
        for entry in writes.entries:
            if entry.wallet_id == new.id:
                assert (entry.prev_hash, entry.hash) == (head, entry_hash(entry))
                head = entry.hash
        assert new.head_hash == head


def _difference(old: Any, new: Any) -> dict[str, Any]:
    return {
        name: plain(after)
        for name, before, after in zip(new._fields, old, new, strict=True)
        if before != after and name not in _HASHES
    }


def plain(value: Any) -> Any:
    """As JSON has it."""
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        defaults = getattr(value, "_field_defaults", {})
        return {
            name: plain(one)
            for name, one in value._asdict().items()
            if one is not None and name not in _HASHES and not (name in defaults and one == defaults[name])
        }
    match value:
        case datetime():
            return to_rfc3339(value)
        case bytes():
            return value.decode()
        case Mapping():
            return {name: plain(one) for name, one in value.items()}
        case list() | tuple():
            return [plain(one) for one in value]
        case _:
            # Enumerations are texts.
            return value
