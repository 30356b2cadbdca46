"""A batch in memory: commands decided one after the other against the documents that were read for them.

Pure like the rules: what comes out is the set of writes that one transaction has to make.
"""

from collections import defaultdict
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from service.domain.audit_events import AuditEvent
from service.domain.entries import Entry, EntryType
from service.domain.events import Event, EventType, event_of, life_news_of, news_of, status_of
from service.domain.exact_json import to_json
from service.domain.house_positions import (
    AccountCurrency,
    floor_of,
    headroom_change,
    headroom_change_of_debt,
    is_refusable,
)
from service.domain.idempotency import Answer, IdempotencyClaim, IdempotencyRecord, Tombstone
from service.domain.identifiers import IdWindow
from service.domain.lockdowns import StandingLockdown
from service.domain.outbox import OutboxRow
from service.domain.policy import Policy
from service.domain.records import Marked, Record, RecordUpdate
from service.domain.returns import Return
from service.domain.user_counts import Sent, apply_charge, limit_charge_of
from service.domain.user_limits import UserLimits, user_limits_id
from service.domain.wallets import Movement, Wallet, apply_movement, wallet_view
from service.errors import HouseFundsExhausted, IdempotencyKeyReused, WalletServiceError, problem_body
from service.ledger.commands import Changes, Command, CompositeCommand, PersonalCommand
from service.ledger.debts import assert_debts_explained, pay_oldest

_Kind = TypeVar("_Kind", bound=Record)

# Refusals of the asker: whoever may not ask is told nothing of what the key has made.
_BARRED = (401, 403)

# A rule may not change these fields in a wallet that it returns. Movements change the first four, the kernel changes
# `event_sequence`, and nothing changes the rest.
_protected_fields = attrgetter(
    "available", "held", "seq", "head_hash", "event_sequence", "id", "user_id", "currency", "created_at"
)


class KnownAnswer(NamedTuple):
    """A record as read from the database, or as just made by an earlier command of the batch."""

    fingerprint: str
    answer: Answer


class Headroom(NamedTuple):
    """What accounts can still pay out.

    `own`: this process's portions that it may spend alone. `totals`: sums over all portions, where they were loaded.
    `floors`: the stored floors, as far as they were loaded; an account without one has None.
    """

    own: Mapping[AccountCurrency, int]
    totals: Mapping[AccountCurrency, int]
    floors: Mapping[AccountCurrency, int | None] = MappingProxyType({})

    def is_guarded(self, pair: AccountCurrency, policy: Policy) -> bool:
        """By the stored floor, since the settings of this process may be older. By them until that is loaded."""
        return self.floors.get(pair, floor_of(pair, policy.house_floors)) is not None


class Loaded(NamedTuple):
    """The documents that a batch's commands name, as one snapshot.

    `entry_ids` is the range of time that an entry's id may carry, and `headroom` what accounts can still give. None
    skips the check, as in tests of single rules.
    """

    active_users: Mapping[str, int]  # with the version of their tokens
    wallets: Mapping[str, Wallet]
    records: Mapping[str, Record]
    answers: Mapping[str, KnownAnswer]
    entry_ids: IdWindow | None = None
    # By the claim's id: records made under keys whose answers have expired. Empty unless somebody looked for them.
    made: Mapping[str, Sequence[Record]] = MappingProxyType({})
    headroom: Headroom | None = None
    # One for each wallet that has any, beside those in `records`.
    waiting_returns: Sequence[Return] = ()
    # Of users who may not act: the audit events of their deactivations.
    deactivations: Mapping[str, str] = MappingProxyType({})
    # By user: of those who are locked down.
    lockdowns: Mapping[str, StandingLockdown] = MappingProxyType({})


class Decided(NamedTuple):
    """The end of one command: an answer where it came with a key, an error where it was refused without one."""

    record: Record | None
    answer: Answer | None
    error: WalletServiceError | None
    refused: bool

    @property
    def given(self) -> Answer:
        """The answer of a command that came with a key: such a one always has one, if only that it was refused."""
        assert self.answer is not None, "it came without a key"
        return self.answer


class WalletUpdate(NamedTuple):
    before: Wallet
    after: Wallet


@dataclass(slots=True)
class Writes:
    """One bulk operation for each collection."""

    wallet_updates: list[WalletUpdate] = field(default_factory=list)
    record_inserts: list[Record] = field(default_factory=list)
    record_updates: list[RecordUpdate] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    answers: list[IdempotencyRecord] = field(default_factory=list)
    outbox_inserts: list[OutboxRow] = field(default_factory=list)
    outbox_deletes: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    headroom_changes: dict[AccountCurrency, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(
            self.wallet_updates or self.record_inserts or self.record_updates or self.answers or self.outbox_deletes
        )


class Draft:
    """State after one command, layered over the state before it. Discarded if the command is refused."""

    def __init__(
        self, below: "Draft | None", loaded: Loaded, owners: Mapping[tuple[str, str], str], policy: Policy
    ) -> None:
        self._below = below
        self._loaded = loaded
        self._owners = owners
        self.policy = policy
        self.wallets: dict[str, Wallet] = {}
        self.records: dict[str, Record] = {}
        self.entries: list[Entry] = []
        self.events: list[Event] = []
        self.outbox_inserts: dict[str, OutboxRow] = {}
        self.outbox_deletes: list[str] = []
        self.tombstone_count = 0
        self.headroom_changes: dict[AccountCurrency, int] = {}
        # Accounts whose known headroom was too small for a command.
        self.exhausted: set[AccountCurrency] = set()

    def on_top(self) -> "Draft":
        return Draft(self, self._loaded, self._owners, self.policy)

    def emptied(self) -> "Draft":
        return Draft(self._below, self._loaded, self._owners, self.policy)

    def token_version(self, user_id: str) -> int | None:
        return self._loaded.active_users.get(user_id)

    def deactivation_event_id(self, user_id: str) -> str | None:
        return self._loaded.deactivations.get(user_id)

    def lockdown(self, user_id: str) -> StandingLockdown | None:
        return self._loaded.lockdowns.get(user_id)

    def wallet(self, wallet_id: str) -> Wallet | None:
        found = self.wallets.get(wallet_id)
        if found is not None:
            return found
        return self._loaded.wallets.get(wallet_id) if self._below is None else self._below.wallet(wallet_id)

    def wallet_in(self, user_id: str, currency: str) -> Wallet | None:
        wallet_id = self._owners.get((user_id, currency))
        return None if wallet_id is None else self.wallet(wallet_id)

    def wallets_of(self, user_id: str) -> tuple[Wallet, ...]:
        names = sorted(wallet_id for (owner, _), wallet_id in self._owners.items() if owner == user_id)
        return tuple(wallet for wallet in map(self.wallet, names) if wallet is not None)

    def record(self, record_id: str, kind: type[_Kind]) -> _Kind | None:
        found = self.any_record(record_id)
        return found if isinstance(found, kind) else None

    def any_record(self, record_id: str) -> Record | None:
        found = self.records.get(record_id)
        if found is not None:
            return found
        return self._loaded.records.get(record_id) if self._below is None else self._below.any_record(record_id)

    def waiting_return(self, wallet_id: str) -> Return | None:
        returns = self.known_returns().values()
        return next((one for one in returns if one.wallet_id == wallet_id and one.waits_to_take), None)

    def known_returns(self) -> dict[str, Return]:
        """Returns that were read, or made and changed since, as they are now."""
        if self._below is not None:
            known, later = self._below.known_returns(), self.records
        else:
            known = {one.id: one for one in self._loaded.waiting_returns}
            later = {**self._loaded.records, **self.records}
        return known | {name: record for name, record in later.items() if isinstance(record, Return)}

    def take_in(self, changes: Changes, command: Command) -> None:
        """Raises ImpossibleMovement or AssertionError for what a rule should have refused.

        Raises HouseFundsExhausted where the house cannot pay it: what this draft has is then to be forgotten.
        """
        wallets_before = [self._require_unmoved(wallet) for wallet in changes.wallets]
        records = {record.id: record for record in (changes.record, *changes.also)}
        for wallet, was in zip(changes.wallets, wallets_before, strict=True):
            if (was.owed, was.debts) != (wallet.owed, wallet.debts):
                assert_debts_explained(was, wallet, records)
            self.wallets[wallet.id] = wallet
        self._move(changes)
        self._require_accounted_for(changes, command)
        for wallet_id in self.wallets:
            self._pay_debts(wallet_id, records, command)
        self._require_headroom(records)
        for wallet_before in wallets_before:
            self._tell_of_wallet(wallet_before, command)
        for record in records.values():
            before = self.any_record(record.id)
            self._tell_of_record(before, record, command)
            self.records[record.id] = record
            if limit_charge_of(record) is not None:
                self._count_for_owner(before, record)
        for row_id in changes.done_outbox_ids:
            # A row that this batch made and is done with already never gets to be one.
            if self.outbox_inserts.pop(row_id, None) is None:
                self.outbox_deletes.append(row_id)
        # After them: what one command is done with it may make anew.
        for row in changes.outbox_rows:
            self.outbox_inserts[row.id] = (
                row if command.traceparent is None else row._replace(traceparent=command.traceparent)
            )

    def leave_tombstone(self, record_id: str, tombstone: Tombstone) -> None:
        """Puts the key's tombstone on the record that the command made."""
        made = self.records[record_id]
        assert isinstance(made, Marked), f"{record_id} has no place for a tombstone"
        self.records[record_id] = made._replace(tombstone=tombstone)
        self.tombstone_count += 1

    def _require_accounted_for(self, changes: Changes, command: Command) -> None:
        """Requires an audit event of whoever moves money in another user's wallet, in the same transaction.

        A payment that comes in is its payer's movement and needs none. Raises AssertionError where a rule wrote none.
        """
        if not isinstance(command, PersonalCommand):
            return
        moved = [one.wallet_id for one in changes.movements if one.type is not EntryType.TRANSFER_IN]
        others = [name for name in moved if self.wallets[name].user_id != command.user_id]
        actors = {one.actor_id for one in changes.also if isinstance(one, AuditEvent)}
        assert not others or command.user_id in actors, f"{command.user_id} moves money of {others} unrecorded"

    def _require_unmoved(self, wallet: Wallet) -> Wallet:
        """The wallet as it was before a rule returned it. Raises AssertionError where the rule moved it by itself."""
        before = self.wallet(wallet.id)
        assert before is not None, f"{wallet.id} was not named as needed"
        assert _protected_fields(wallet) == _protected_fields(before), f"{wallet.id} changes by movements alone"
        return before

    def _with_current_id(self, movement: Movement) -> Movement:
        """Renews an entry id of an hour whose sums may be closed: its command was late (domain/accounts.py)."""
        entry_ids = self._loaded.entry_ids
        if entry_ids is None:
            return movement
        current = entry_ids.admit(movement.entry_id)
        return movement if current is movement.entry_id else movement._replace(entry_id=current)

    def _move(self, changes: Changes) -> None:
        between_wallets: dict[str, int] = defaultdict(int)
        for movement in map(self._with_current_id, changes.movements):
            before = self.wallet(movement.wallet_id)
            assert before is not None, f"{movement.wallet_id} was not named as needed"
            after, entry = apply_movement(before, movement)
            self.wallets[after.id] = after
            self.entries.append(entry)
            if movement.counterparty.startswith("wal_"):
                between_wallets[after.currency] += after.available + after.held - before.available - before.held
        assert not any(between_wallets.values()), f"what moves between wallets adds up to {dict(between_wallets)}"

    def _pay_debts(self, wallet_id: str, records: dict[str, Record], command: Command) -> None:
        """Whatever has come into a wallet that owes goes to its oldest return, before anybody could spend it."""
        wallet = self.wallets[wallet_id]
        while wallet.owed and wallet.available:
            return_id = wallet.debts[0]
            returned = records.get(return_id) or self.any_record(return_id)
            assert isinstance(returned, Return), f"{wallet_id} owes {return_id}, which is no return"
            owing, records[return_id], movement = pay_oldest(wallet, returned, command)
            wallet, entry = apply_movement(owing, self._with_current_id(movement))
            self.entries.append(entry)
        assert bool(wallet.owed) == bool(wallet.debts), f"{wallet_id} owes {wallet.owed} for {wallet.debts}"
        self.wallets[wallet_id] = wallet

    def _require_headroom(self, records: Mapping[str, Record]) -> None:
        """Counts what the command takes from accounts of the bank and the house and gives to them.

        Raises HouseFundsExhausted where it takes what an account does not have. What only books what others have
        decided is let through, and whoever takes more after that is refused.
        """
        changes = self.headroom_changes
        refusable: dict[AccountCurrency, int] = {}
        for entry in self.entries:
            account = entry.counterparty
            if not account.startswith("wal_"):
                pair, change = (account, entry.currency), headroom_change(account, entry.type, entry.amount)
                changes[pair] = changes.get(pair, 0) + change
                if is_refusable(entry.type):
                    refusable[pair] = refusable.get(pair, 0) + change
        for wallet in self.wallets.values():
            owed = wallet.owed - self._read(wallet.id).owed
            if owed:
                self._count_debt(wallet.currency, owed)
        for record in records.values():
            if isinstance(record, Return):
                before = self.record(record.id, Return)
                waiting = record.taken_unbooked - (0 if before is None else before.taken_unbooked)
                if waiting:
                    self._count_debt(record.currency, waiting)
        lacking = [pair for pair, change in refusable.items() if change < 0 and self._lacks(pair)]
        if lacking:
            currencies = sorted({currency for _, currency in lacking})
            several = f"The house has not enough of {' and '.join(currencies)} at the moment"
            raise HouseFundsExhausted(several if len(currencies) > 1 else None, currency=currencies[0])

    def _count_debt(self, currency: str, amount: int) -> None:
        for pair, change in headroom_change_of_debt(currency, amount).items():
            self.headroom_changes[pair] = self.headroom_changes.get(pair, 0) + change

    def _read(self, wallet_id: str) -> Wallet:
        """Returns the wallet as it was before this command."""
        before = self._loaded.wallets.get(wallet_id) if self._below is None else self._below.wallet(wallet_id)
        assert before is not None, f"{wallet_id} was not named as needed"
        return before

    def _lacks(self, pair: AccountCurrency) -> bool:
        headroom = self._loaded.headroom
        if headroom is None or not headroom.is_guarded(pair, self.policy):
            return False
        known = headroom.totals.get(pair, headroom.own.get(pair))
        if known is not None and known + self.headroom_change(pair) >= 0:
            return False
        self.note_exhausted(pair)
        return True

    def headroom_change(self, pair: AccountCurrency) -> int:
        """Returns the change of this account's headroom by the batch so far."""
        below = 0 if self._below is None else self._below.headroom_change(pair)
        return below + self.headroom_changes.get(pair, 0)

    def note_exhausted(self, pair: AccountCurrency) -> None:
        """Notes it on the batch's draft: this one may be discarded."""
        if self._below is None:
            self.exhausted.add(pair)
        else:
            self._below.note_exhausted(pair)

    def _count_for_owner(self, before: Record | None, after: Record) -> None:
        """Counts a payment for its sender's limits over all wallets, and gives back what of it has come to nothing."""
        assert isinstance(after, Sent), "it counts"
        assert before is None or isinstance(before, Sent), f"{after.id} was something else"
        name = user_limits_id(after.user_id)
        changed = apply_charge(before, after, self.record(name, UserLimits))
        if changed is None:
            return
        self.records[name] = changed
        wallet = self.wallets[after.wallet_id]
        # From now on whatever is about the wallet has these counters read with it.
        self.wallets[wallet.id] = wallet._replace(counts_for_owner=True)

    def _tell_of_wallet(self, before: Wallet, command: Command) -> None:
        after = self.wallets[before.id]
        event_type = life_news_of(before, after)
        if event_type is not None:
            self._tell(after, event_type, after.id, after.status, before.status, wallet_view(after), command)

    def _tell_of_record(self, before: Record | None, after: Record, command: Command) -> None:
        for wallet_id, event_type, data in news_of(before, after):
            wallet = self.wallet(wallet_id)
            assert wallet is not None, f"{wallet_id} was not named as needed, and is told of {after.id}"
            was = None if before is None else status_of(before)
            self._tell(wallet, event_type, after.id, status_of(after) or "", was, data, command)

    def _tell(
        self,
        wallet: Wallet,
        event_type: EventType,
        subject_id: str,
        status: str,
        previous_status: str | None,
        data: Mapping[str, Any],
        command: Command,
    ) -> None:
        """Numbered by the wallet's own counter, so that whoever else writes the wallet is in the way of this too."""
        event = event_of(wallet, event_type, subject_id, status, previous_status, data, command.request_id, command.now)
        self.events.append(event)
        self.wallets[wallet.id] = wallet._replace(event_sequence=event.sequence)

    def settle_into(self, below: "Draft") -> None:
        below.wallets |= self.wallets
        below.records |= self.records
        below.tombstone_count += self.tombstone_count
        below.entries += self.entries
        below.events += self.events
        for pair, change in self.headroom_changes.items():
            below.headroom_changes[pair] = below.headroom_changes.get(pair, 0) + change
        for row_id in self.outbox_deletes:
            if below.outbox_inserts.pop(row_id, None) is None:
                below.outbox_deletes.append(row_id)
        below.outbox_inserts |= self.outbox_inserts


class _Outcome(NamedTuple):
    """What a command comes to: its draft, its subject, and what to answer with."""

    draft: Draft
    record: Record | None
    answer: tuple[int, Mapping[str, Any] | None] | None
    error: WalletServiceError | None


class Batch:
    """The state that commands of one batch see, each after those before it."""

    def __init__(self, loaded: Loaded, policy: Policy) -> None:
        self._loaded = loaded
        owners = {(wallet.user_id, wallet.currency): wallet.id for wallet in loaded.wallets.values()}
        self._state = Draft(None, loaded, owners, policy)
        self._answers = dict(loaded.answers)
        self._records: list[IdempotencyRecord] = []
        # Commands that left fewer tombstones than they could: an earlier use of the key may have made the records.
        self.without_tombstone: list[Command] = []

    def run(self, command: Command) -> Decided:
        """Decides one command and takes in what it changes. A key that has an answer gets it again."""
        steps = self.steps(command)
        while True:
            try:
                next(steps)
            except StopIteration as ended:
                decided: Decided = ended.value
                return decided

    def steps(self, command: Command) -> Generator[None, None, Decided]:
        """`run` in steps, one for each part of a command that has parts: others may have a turn between them.

        Until the last step nothing of it is in the batch.
        """
        claim = command.claim
        known = None if claim is None else self._answers.get(claim.id)
        if claim is not None and known is not None:
            if not claim.is_of(known.fingerprint):
                return Decided(None, None, IdempotencyKeyReused(), refused=True)
            return Decided(None, known.answer._replace(replayed=True), None, refused=False)
        draft, tombstone = self._state.on_top(), None if claim is None else claim.tombstone
        if isinstance(command, CompositeCommand):
            outcome = yield from _decide_parts(command, draft, tombstone)
        else:
            outcome = _decide(command, draft, tombstone)
        error = outcome.error
        if claim is None:
            outcome.draft.settle_into(self._state)
            return Decided(outcome.record, None, error, refused=error is not None)
        is_barred = error is not None and error.http_status in _BARRED
        # Before any other refusal, also one that no key keeps: who is told that nothing was done pays again.
        made = None if is_barred else self._loaded.made.get(claim.id)
        if made:
            return self._answer_made(command, claim, made)
        if command.made_id is not None and not is_barred and outcome.draft.tombstone_count < command.weight:
            self.without_tombstone.append(command)
        if error is not None and not error.is_kept_under_key:
            outcome.draft.settle_into(self._state)
            return Decided(outcome.record, None, error, refused=True)
        # Everything that can fail comes before the first change to the batch.
        if error is not None:
            answer = Answer(error.http_status, problem_body(error, command.request_id))
        else:
            assert outcome.answer is not None, "what is not refused has an answer"
            status_code, body = outcome.answer
            answer = Answer(status_code, to_json(body))
        outcome.draft.settle_into(self._state)
        self._keep(claim, answer, command)
        return Decided(outcome.record, answer, None, refused=error is not None)

    def _answer_made(self, command: Command, claim: IdempotencyClaim, made: Sequence[Record]) -> Decided:
        """Answers a repeated key whose answer has expired with the records that it made. Makes nothing new."""
        tombstones = [one.tombstone for one in made if isinstance(one, Marked) and one.tombstone is not None]
        if not all(claim.is_of(tombstone.fingerprint) for tombstone in tombstones):
            return Decided(None, None, IdempotencyKeyReused(), refused=True)
        state = self._state
        status_code, body = command.answer_made([state.any_record(one.id) or one for one in made], state)
        answer = Answer(status_code, to_json(body))
        self._keep(claim, answer, command)
        return Decided(None, answer._replace(replayed=True), None, refused=False)

    def _keep(self, claim: IdempotencyClaim, answer: Answer, command: Command) -> None:
        self._answers[claim.id] = KnownAnswer(claim.fingerprint, answer)
        self._records.append(
            IdempotencyRecord(
                claim.id, claim.fingerprint, answer.status_code, answer.body, command.now, claim.expires_at
            )
        )

    @property
    def headroom_changes(self) -> Mapping[AccountCurrency, int]:
        """Returns what the commands take from accounts of the bank and the house, below 0, and give to them."""
        return {pair: change for pair, change in self._state.headroom_changes.items() if change}

    @property
    def exhausted(self) -> frozenset[AccountCurrency]:
        """Accounts of which somebody was refused what may be there, in other processes' portions or in all."""
        return frozenset(self._state.exhausted)

    def writes(self) -> Writes:
        """Lists what differs from what was read. Wallets in sorted order, so that two batches never wait in a circle.

        Raises AssertionError where a wallet's entries do not lead from what was read to what is to be written.
        """
        state = self._state
        _require_explained(self._loaded.wallets, state.wallets, state.entries)
        writes = Writes(
            entries=state.entries,
            answers=self._records,
            events=state.events,
            outbox_inserts=list(state.outbox_inserts.values()),
            outbox_deletes=state.outbox_deletes,
            headroom_changes=dict(self.headroom_changes),
        )
        for record_id, record in state.records.items():
            before = self._loaded.records.get(record_id)
            if before is None:
                writes.record_inserts.append(record)
            elif before != record:
                writes.record_updates.append(RecordUpdate(before, record))
        for wallet_id in sorted(state.wallets):
            old, new = self._loaded.wallets[wallet_id], state.wallets[wallet_id]
            if new != old:
                writes.wallet_updates.append(WalletUpdate(old, new))
        return writes


def _require_explained(before: Mapping[str, Wallet], after: Mapping[str, Wallet], entries: Sequence[Entry]) -> None:
    """Holds each wallet against its last entry: two statements write them, and they have to agree."""
    counts: dict[str, int] = defaultdict(int)
    last: dict[str, Entry] = {}
    for entry in entries:
        counts[entry.wallet_id] += 1
        last[entry.wallet_id] = entry
    assert counts.keys() <= after.keys(), "a wallet that does not change has its entries"
    for wallet_id, new in after.items():
        old, explanation = before[wallet_id], last.get(wallet_id)
        if explanation is None:
            explained = (old.seq, old.head_hash, old.available, old.held)
        else:
            explained = (explanation.seq, explanation.hash, explanation.available_after, explanation.held_after)
        assert (new.seq, new.head_hash, new.available, new.held) == explained, (
            f"{wallet_id} is not what its entries say"
        )
        assert new.seq - old.seq == counts[wallet_id], f"{wallet_id} is not as far on as its entries are many"


def _decide(command: Command, draft: Draft, tombstone: Tombstone | None) -> _Outcome:
    try:
        changes = command.decide(draft)
    except WalletServiceError as refusal:
        return _Outcome(draft, None, None, refusal)
    try:
        draft.take_in(changes, command)
    except HouseFundsExhausted as refusal:
        return _Outcome(draft.emptied(), None, None, refusal)
    if tombstone is not None and changes.record.id == command.made_id:
        draft.leave_tombstone(changes.record.id, tombstone)
    body = None if changes.answer is None else changes.answer(draft)
    # As it is now: a return may have been paid meanwhile.
    return _Outcome(draft, draft.any_record(changes.record.id), (changes.status_code, body), changes.error)


def _decide_parts(
    command: CompositeCommand, draft: Draft, tombstone: Tombstone | None
) -> Generator[None, None, _Outcome]:
    """Each part on what those before it left; a refused one leaves nothing. No part has parts of its own."""
    results: list[Mapping[str, Any] | WalletServiceError] = []
    for position, part in enumerate(command.parts):
        outcome = _decide(part, draft.on_top(), None if tombstone is None else tombstone.of_part(position))
        if outcome.error is None:
            outcome.draft.settle_into(draft)
            assert outcome.answer is not None, "a part that is not refused has an answer"
            results.append(outcome.answer[1] or {})
        elif command.is_all_or_nothing or not outcome.error.is_kept_under_key:
            # From the bottom again: what the parts before it did is forgotten.
            return _Outcome(draft.emptied(), None, None, command.refusal_of_whole(position, outcome.error))
        else:
            results.append(outcome.error)
        yield
    return _Outcome(draft, None, command.conclude(results), None)
