"""A batch in memory: commands decided one after the other against the documents that were read for them.

Pure like the rules: what comes out is the set of writes that one transaction has to make.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import orjson

from service.domain.entries import Entry
from service.domain.idempotency import Answer, IdempotencyRecord
from service.domain.operations import Operation, OperationType, operation_view
from service.domain.outbox import OutboxRow
from service.domain.wallets import Wallet, apply_movement
from service.errors import (
    IdempotencyKeyReused,
    WalletServiceError,
    problem_body,
)
from service.ledger.commands import Command, Needs
from service.ledger.rules import Changes, Refusal, decide

_ACCEPTED = 202


class KnownAnswer(NamedTuple):
    """A record as read from the database, or as just made by an earlier command of the batch."""

    fingerprint: str
    answer: Answer


class Loaded(NamedTuple):
    """The documents that a batch's commands name, as one snapshot."""

    active_users: Mapping[str, int]  # with the version of their tokens
    wallets: Mapping[str, Wallet]
    operations: Mapping[str, Operation]
    answers: Mapping[str, KnownAnswer]


class Decided(NamedTuple):
    """The end of one command: an answer where it came with a key, an error where it was refused without one."""

    operation: Operation | None
    answer: Answer | None
    error: WalletServiceError | None
    refused: bool


class WalletUpdate(NamedTuple):
    before: Wallet
    after: Wallet


class OperationUpdate(NamedTuple):
    before: Operation
    after: Operation


@dataclass(slots=True)
class Writes:
    """One bulk operation for each collection."""

    wallet_updates: list[WalletUpdate] = field(default_factory=list)
    operation_inserts: list[Operation] = field(default_factory=list)
    operation_updates: list[OperationUpdate] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    records: list[IdempotencyRecord] = field(default_factory=list)
    outbox_inserts: list[OutboxRow] = field(default_factory=list)
    outbox_deletes: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(
            self.wallet_updates
            or self.operation_inserts
            or self.operation_updates
            or self.records
            or self.outbox_deletes
        )


def needs_of(commands: Iterable[Command]) -> Needs:
    users: set[str] = set()
    wallets: set[str] = set()
    owned: set[tuple[str, str]] = set()
    operations: set[tuple[OperationType, str]] = set()
    for command in commands:
        needs = command.needs
        users.update(needs.users)
        wallets.update(needs.wallets)
        owned.update(needs.owned_wallets)
        operations.update(needs.operations)
    return Needs(tuple(users), tuple(wallets), tuple(owned), tuple(operations))


class Batch:
    """The state that commands of one batch see, each after those before it."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self._wallets = dict(loaded.wallets)
        self._wallet_ids_by_owner = {(wallet.user_id, wallet.currency): wallet.id for wallet in self._wallets.values()}
        self._operations = dict(loaded.operations)
        self._answers = dict(loaded.answers)
        self._writes = Writes()

    def token_version(self, user_id: str) -> int | None:
        return self._loaded.active_users.get(user_id)

    def wallet(self, wallet_id: str) -> Wallet | None:
        return self._wallets.get(wallet_id)

    def wallet_in(self, user_id: str, currency: str) -> Wallet | None:
        wallet_id = self._wallet_ids_by_owner.get((user_id, currency))
        return None if wallet_id is None else self._wallets[wallet_id]

    def operation(self, operation_id: str) -> Operation | None:
        return self._operations.get(operation_id)

    def run(self, command: Command) -> Decided:
        """Decides one command and takes in what it changes. A key that has an answer gets it again."""
        claim = command.claim
        known = None if claim is None else self._answers.get(claim.id)
        if claim is not None and known is not None:
            if known.fingerprint != claim.fingerprint:
                return Decided(None, None, IdempotencyKeyReused(), refused=True)
            return Decided(None, known.answer._replace(replayed=True), None, refused=False)
        decision = decide(self, command)
        match decision:
            case Changes():
                # Everything that can fail comes before the first change to the batch.
                body = orjson.dumps(operation_view(decision.operation)) if claim is not None else b""
                self._take_in(decision)
                return self._answered(command, decision.operation, None, _ACCEPTED, body)
            case Refusal(error) if not error.is_kept_under_key:
                return Decided(None, None, error, refused=True)
            case Refusal(error):
                body = problem_body(error, command.request_id) if claim is not None else b""
                return self._answered(command, None, error, error.http_status, body)

    def _answered(
        self,
        command: Command,
        operation: Operation | None,
        error: WalletServiceError | None,
        status_code: int,
        body: bytes,
    ) -> Decided:
        claim = command.claim
        if claim is None:
            return Decided(operation, None, error, refused=error is not None)
        answer = Answer(status_code, body)
        self._answers[claim.id] = KnownAnswer(claim.fingerprint, answer)
        self._writes.records.append(
            IdempotencyRecord(claim.id, claim.fingerprint, status_code, body, command.now, claim.expires_at)
        )
        return Decided(operation, answer, None, refused=error is not None)

    def _take_in(self, changes: Changes) -> None:
        """All of a command's changes or, where a movement is impossible, none: the error leaves before any."""
        moved: dict[str, Wallet] = {}
        entries: list[Entry] = []
        for movement in changes.movements:
            before = moved.get(movement.wallet_id) or self._wallets[movement.wallet_id]
            after, entry = apply_movement(before, movement)
            moved[movement.wallet_id] = after
            entries.append(entry)
        self._wallets.update(moved)
        self._operations[changes.operation.id] = changes.operation
        self._writes.entries += entries
        if changes.outbox_row is not None:
            self._writes.outbox_inserts.append(changes.outbox_row)
        if changes.done_outbox_id is not None:
            self._writes.outbox_deletes.append(changes.done_outbox_id)

    def writes(self) -> Writes:
        """What differs from what was read. Wallets in sorted order, so that two batches never wait in a circle."""
        writes = self._writes
        for operation_id, operation in self._operations.items():
            before = self._loaded.operations.get(operation_id)
            if before is None:
                writes.operation_inserts.append(operation)
            elif before is not operation:
                writes.operation_updates.append(OperationUpdate(before, operation))
        for wallet_id in sorted(self._wallets):
            old, new = self._loaded.wallets[wallet_id], self._wallets[wallet_id]
            if new.seq != old.seq:
                writes.wallet_updates.append(WalletUpdate(old, new))
        return writes
