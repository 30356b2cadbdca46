"""Books without a database: what it would hold, fed with nothing but the writes of batches."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from service.domain.adjustments import Adjustment
from service.domain.day_sums import DaySum
from service.domain.entries import GENESIS_HASH, Entry, entry_hash
from service.domain.holds import Hold
from service.domain.house_positions import AccountCurrency
from service.domain.idempotency import Answer
from service.domain.identifiers import IdWindow
from service.domain.incidents import Incident
from service.domain.operations import Operation
from service.domain.outbox import OutboxRow
from service.domain.policy import Policy
from service.domain.quotes import Quote
from service.domain.records import Marked, Record
from service.domain.returns import Return
from service.domain.transfers import Transfer
from service.domain.user_limits import UserLimits
from service.domain.vouchers import Voucher, VoucherUse
from service.domain.wallets import Wallet
from service.ledger.batch import Batch, Decided, Headroom, KnownAnswer, Loaded, Writes
from service.ledger.commands import Command, merged_needs
from service.ledger.orders import Fail, FlagForReview, NoteAttempt, OnOperation, Settle
from service.ledger.transaction import further_records, tombstones_of

Changing = (
    Operation | Transfer | Hold | Adjustment | Quote | Voucher | VoucherUse | Return | Incident | UserLimits | DaySum
)


@dataclass
class Books:
    """`users` are those who may act, with the version of their tokens.

    `entry_ids` is when entries' ids may have been made; None where ids are made up.
    """

    users: dict[str, int]
    wallets: dict[str, Wallet]
    policy: Policy = field(default_factory=Policy)
    records: dict[str, Record] = field(default_factory=dict)
    answers: dict[str, KnownAnswer] = field(default_factory=dict)
    entries: dict[str, list[Entry]] = field(default_factory=dict)
    outbox: dict[str, OutboxRow] = field(default_factory=dict)
    entry_ids: IdWindow | None = None
    # What accounts of the house can give; None where nobody looks at that.
    headroom: dict[AccountCurrency, int] | None = None
    # Of users who may not act.
    deactivations: dict[str, str] = field(default_factory=dict)

    @property
    def operations(self) -> dict[str, Operation]:
        return {key: record for key, record in self.records.items() if isinstance(record, Operation)}

    @property
    def transfers(self) -> dict[str, Transfer]:
        return {key: record for key, record in self.records.items() if isinstance(record, Transfer)}

    def run(self, commands: Iterable[Command], *, is_bank_asked: bool = True) -> list[Decided]:
        """The commands as one batch. What the bank says of an order comes after a worker has begun to ask it, unless
        the bank is not asked.
        """
        commands = list(commands)
        asking = [asking_before(one) for one in commands if isinstance(one, Settle | Fail | FlagForReview)]
        batch = Batch(self._load([*commands, *asking]), self.policy)
        decided = []
        for command in commands:
            if is_bank_asked and isinstance(command, Settle | Fail | FlagForReview):
                batch.run(asking_before(command))
            decided.append(batch.run(command))
        self._take_in(batch.writes())
        return decided

    def _load(self, commands: Sequence[Command]) -> Loaded:
        """No more than what the commands name, as the transaction reads it."""
        needs = merged_needs([command.needs for command in commands])
        claims = {command.claim.id for command in commands if command.claim is not None}
        wallets = {
            wallet.id: wallet
            for wallet in self.wallets.values()
            if wallet.id in needs.wallets
            or (wallet.user_id, wallet.currency) in needs.owned_wallets
            or wallet.user_id in needs.all_wallets_of
        }
        named = {*needs.records, *further_records(wallets.values(), self.policy)}
        users = {*needs.users, *(self.wallets[one].user_id for one in needs.owners_of if one in self.wallets)}
        return Loaded(
            {name: version for name, version in self.users.items() if name in users},
            wallets,
            {key: record for key, record in self.records.items() if key in named},
            {key: answer for key, answer in self.answers.items() if key in claims},
            entry_ids=self.entry_ids,
            made=self._find_made(commands),
            waiting_returns=self._find_waiting_returns(needs.waiting_returns_of, named),
            deactivations={name: event for name, event in self.deactivations.items() if name in users},
            headroom=None if self.headroom is None else Headroom({}, self.headroom),
        )

    def _find_waiting_returns(self, wallets: Sequence[str], named: set[str]) -> list[Return]:
        """One for each wallet, beside those that are named."""
        returns = [one for one in self.records.values() if isinstance(one, Return) and one.id not in named]
        waiting = {one.wallet_id: one for one in reversed(returns) if one.waits_to_take}
        return [waiting[name] for name in wallets if name in waiting]

    def _find_made(self, commands: Sequence[Command]) -> dict[str, list[Record]]:
        """By claim, with every part of a batch: what has its tombstone."""
        made: dict[str, list[Record]] = defaultdict(list)
        for command in commands:
            if command.claim is not None and command.made_id is not None:
                hashes = {key_hash for mark in tombstones_of(command) for key_hash in mark.key_hashes}
                for record in self.records.values():
                    tombstone = record.tombstone if isinstance(record, Marked) else None
                    if tombstone is not None and not hashes.isdisjoint(tombstone.key_hashes):
                        made[command.claim.id].append(record)
        return made

    def _take_in(self, writes: Writes) -> None:
        if self.headroom is not None:
            for pair, change in writes.headroom_changes.items():
                self.headroom[pair] = self.headroom.get(pair, 0) + change
        for wallet_update in writes.wallet_updates:
            assert self.wallets[wallet_update.after.id] == wallet_update.before
            self.wallets[wallet_update.after.id] = wallet_update.after
        for record in writes.record_inserts:
            assert record.id not in self.records
            self.records[record.id] = record
        for record_update in writes.record_updates:
            before, after = record_update
            assert self.records[after.id] == before
            # The rest is written once.
            assert isinstance(before, Changing)
            assert isinstance(after, Changing)
            self.records[after.id] = after._replace(version=before.version + 1)
        for entry in writes.entries:
            self.entries.setdefault(entry.wallet_id, []).append(entry)
        for answer in writes.answers:
            assert answer.id not in self.answers
            self.answers[answer.id] = KnownAnswer(answer.fingerprint, Answer(answer.status_code, answer.body))
        for row_id in writes.outbox_deletes:
            self.outbox.pop(row_id, None)
        for row in writes.outbox_inserts:
            assert row.id not in self.outbox
            self.outbox[row.id] = row


def asking_before(command: OnOperation) -> NoteAttempt:
    """A worker has begun to ask before the bank says anything, or nothing for so long that a person has to look."""
    return NoteAttempt(
        now=command.now,
        transaction_id=command.transaction_id,
        operation_id=command.operation_id,
        wallet_id=command.wallet_id,
    )


def assert_chain(books: Books) -> None:
    """Each wallet is the end of its entries, which follow one another without a gap."""
    for wallet in books.wallets.values():
        head, available, held = GENESIS_HASH, 0, 0
        entries = books.entries.get(wallet.id, [])
        for seq, entry in enumerate(entries, start=1):
            assert (entry.seq, entry.prev_hash, entry.hash) == (seq, head, entry_hash(entry))
            assert (entry.available_before, entry.held_before) == (available, held)
            assert min(entry.available_after, entry.held_after) >= 0
            head, available, held = entry.hash, entry.available_after, entry.held_after
        assert (wallet.seq, wallet.head_hash, wallet.available, wallet.held) == (len(entries), head, available, held)
        times = [entry.created_at for entry in entries]
        assert times == sorted(times)
