"""One attempt at a batch: read what its commands name, decide them in order, write, all in one transaction."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import structlog
from pymongo.asynchronous.client_session import AsyncClientSession

from service.database import logical_time, start_transaction
from service.domain.accounts import ENTRY_ID_AGE, ENTRY_ID_AHEAD
from service.domain.house_positions import Portion
from service.domain.idempotency import Answer, Tombstone
from service.domain.identifiers import IdWindow, Prefix
from service.domain.policy import Policy
from service.domain.records import Record
from service.domain.returns import Return
from service.domain.user_limits import user_limits_id
from service.domain.wallets import Wallet
from service.errors import InternalError
from service.ledger.batch import Batch, Decided, KnownAnswer, Loaded, Writes
from service.ledger.commands import Command, CompositeCommand, merged_needs
from service.ledger.house_portions import AttemptPortions, PortionCache
from service.repositories import events as event_repository
from service.repositories import idempotency_keys as idempotency_repository
from service.repositories import outbox as outbox_repository
from service.repositories import records as record_repository
from service.repositories import transaction_logs as log_repository
from service.repositories import user_limits as user_limits_repository
from service.repositories import users as user_repository
from service.repositories import wallets as wallet_repository
from service.repositories.users import KnownUsers
from service.turns import Turns

log = structlog.get_logger()


class Prepared(NamedTuple):
    """A transaction that only has to be committed. `portions` are this process's own, as they are afterwards."""

    decided: list[Decided]
    has_outbox_rows: bool
    has_events: bool
    portions: list[Portion]


class GuardMissed(Exception):
    """A document was no longer in the state that was decided on."""


class PortionMissed(GuardMissed):
    """Another process has changed this process's portion of what the house can give."""


class Attempt(NamedTuple):
    """What earlier attempts have met.

    `after_duplicate`: a unique index refused an insert, perhaps because a key was used before and its answer has
    expired. `locks_first`: other processes were quicker, so this attempt locks the wallets, and
    the limits of their owners, before it reads them.
    """

    after_duplicate: bool = False
    locks_first: bool = False


FIRST_ATTEMPT = Attempt()


async def prepare(
    session: AsyncClientSession,
    commands: Sequence[Command],
    policy: Policy,
    cache: PortionCache,
    attempt: Attempt = FIRST_ATTEMPT,
) -> Prepared:
    """Everything but the commit. Raises GuardMissed, or what the driver raises.

    Where nothing has to be written the transaction is left without operations to commit.
    """
    await start_transaction(session)
    if attempt.locks_first:
        await _take_turn(commands, policy, session)
    elif locking := [command for command in commands if command.locks_wallets]:
        await _take_turn(locking, policy, session)
    loaded = await _load(commands, policy, session)
    portions = AttemptPortions(cache, policy)
    batch, decided = await _decide_all(loaded, commands, policy, portions, session)
    # A command that is refused now may have succeeded before under its key. Only for such commands is that looked up.
    doubtful = commands if attempt.after_duplicate else batch.without_tombstone
    made = await _find_made(doubtful, loaded, session) if doubtful else {}
    if made:
        batch, decided = await _decide_all(loaded._replace(made=made), commands, policy, portions, session)
    writes = batch.writes()
    written = await _write(writes, portions, session) if writes else []
    return Prepared(decided, bool(writes.outbox_inserts), bool(writes.events), written)


async def _take_turn(commands: Sequence[Command], policy: Policy, session: AsyncClientSession) -> None:
    """Locks the wallets that the commands name, and the limits of their owners over all wallets where they have any."""
    needs = merged_needs([command.needs for command in commands])
    named = (needs.wallets, needs.owned_wallets, needs.all_wallets_of)
    if not any(named):
        return
    await wallet_repository.take_turn(*named, session=session)
    owners = await wallet_repository.find_owners(
        *named, only_marked=not policy.user_limits.apply_to_everybody, session=session
    )
    if owners:
        await user_limits_repository.take_turn([user_limits_id(owner) for owner in owners], session=session)


async def _decide_all(
    loaded: Loaded,
    commands: Sequence[Command],
    policy: Policy,
    portions: AttemptPortions,
    session: AsyncClientSession,
) -> tuple[Batch, list[Decided]]:
    """Decides the batch by what this process has of the house's money, and again by all of it where that is too little.

    Each turn but the last reads one account more at least, and there are few.
    """
    turns = Turns()
    while True:
        batch = Batch(loaded._replace(headroom=portions.headroom), policy)
        decided = [await _run_alone(batch, command, turns) for command in commands]
        unread = portions.accounts_to_load(batch)
        if not unread:
            return batch, decided
        await portions.load(unread, session=session)


async def _find_made(
    commands: Iterable[Command], loaded: Loaded, session: AsyncClientSession
) -> dict[str, list[Record]]:
    """By the claim's id: records that were made under keys whose answers have expired."""
    claims: dict[str, str] = {}
    prefixes: dict[str, list[str]] = defaultdict(list)
    for command in commands:
        claim, made_id = command.claim, command.made_id
        if claim is None or made_id is None or claim.id in loaded.answers:
            continue
        for tombstone in tombstones_of(command):
            claims |= dict.fromkeys(tombstone.key_hashes, claim.id)
            prefixes[made_id.partition("_")[0]] += tombstone.key_hashes
    made: dict[str, list[Record]] = defaultdict(list)
    for prefix, key_hashes in prefixes.items():
        for record in await record_repository.find_marked(prefix, key_hashes, session=session):
            assert record.tombstone is not None, "it was found by its tombstone"
            made[next(claims[one] for one in record.tombstone.key_hashes if one in claims)].append(record)
    return made


def tombstones_of(command: Command) -> list[Tombstone]:
    """Returns the tombstones that the command may leave; a batch leaves one on each part."""
    tombstone = None if command.claim is None else command.claim.tombstone
    if tombstone is None:
        return []
    parts = len(command.parts) if isinstance(command, CompositeCommand) else 0
    return [tombstone, *(tombstone.of_part(position) for position in range(parts))]


async def _run_alone(batch: Batch, command: Command, turns: Turns) -> Decided:
    """A defect in one command's rule must not take its neighbours down; the command itself changes nothing.

    Nobody changes what is decided on meanwhile: it is one snapshot, and batches of a process come one after another.
    """
    try:
        steps = batch.steps(command)
        while True:
            await turns.rest()
            try:
                next(steps)
            except StopIteration as ended:
                decided: Decided = ended.value
                return decided
    except Exception:
        log.exception("ledger.rule_failed", command=type(command).__name__, request_id=command.request_id)
        return Decided(None, None, InternalError(), refused=True)


async def _load(commands: Sequence[Command], policy: Policy, session: AsyncClientSession) -> Loaded:
    needs = merged_needs([command.needs for command in commands])
    claims = [command.claim.id for command in commands if command.claim is not None]
    answers: dict[str, KnownAnswer] = {}
    if claims:
        for row in await idempotency_repository.find_named(claims, session=session):
            answers[row["_id"]] = KnownAnswer(row["fingerprint"], Answer(row["status_code"], bytes(row["body"])))
    records: dict[str, Record] = {}
    if needs.records:
        records = await record_repository.find_named(needs.records, session=session)
    wallets: dict[str, Wallet] = {}
    if needs.wallets or needs.owned_wallets or needs.all_wallets_of:
        wallets = await wallet_repository.find_named(
            needs.wallets, needs.owned_wallets, needs.all_wallets_of, session=session
        )
    further = further_records(wallets.values(), policy) - records.keys()
    if further:
        records = records | await record_repository.find_named(further, session=session)
    users = KnownUsers({}, {}, {})
    owners = {wallets[wallet_id].user_id for wallet_id in needs.owners_of if wallet_id in wallets}
    if needs.users or owners:
        users = await user_repository.find_known((*needs.users, *owners), session=session)
    waiting_returns = await _find_waiting_returns(needs.waiting_returns_of, records, session)
    # Only now: the transaction has read, so it has begun, and the server counts its lifetime from here or earlier.
    began = logical_time(session)
    entry_ids = IdWindow.around(Prefix.ENTRY, began, before=ENTRY_ID_AGE, after=ENTRY_ID_AHEAD)
    return Loaded(
        users.active,
        wallets,
        records,
        answers,
        entry_ids,
        waiting_returns=waiting_returns,
        deactivations=users.deactivations,
        lockdowns=users.lockdowns,
    )


async def _find_waiting_returns(
    wallet_ids: Iterable[str], records: Mapping[str, Record], session: AsyncClientSession
) -> list[Return]:
    """One for each wallet, of those that no command names: what is named may be collected in this batch."""
    found: list[Return] = []
    for wallet_id in wallet_ids:
        waiting = await record_repository.find_return_that_waits(wallet_id, but=records, session=session)
        found += [] if waiting is None else [waiting]
    return found


def further_records(wallets: Collection[Wallet], policy: Policy) -> set[str]:
    """Names what is read because of the wallets that the commands name.

    Whatever comes into a wallet that owes pays those returns. Whatever leaves, or comes to nothing, changes the
    counters of an owner who has limits over all wallets.
    """
    debts = {return_id for wallet in wallets for return_id in wallet.debts}
    counts_all = policy.user_limits.apply_to_everybody
    return debts | {user_limits_id(one.user_id) for one in wallets if counts_all or one.counts_for_owner}


async def _write(writes: Writes, portions: AttemptPortions, session: AsyncClientSession) -> list[Portion]:
    """One bulk operation for each collection. Wallets, which other processes may want too, come first.

    MongoDB lets nobody wait: of two transactions that want one wallet the second fails at once. Early, that costs
    it the reads; last, it would have done all its work for nothing, and would have had the longer to lose the race.
    Returns this process's portions of the house's money as they then are. Raises GuardMissed.
    """
    if writes.wallet_updates and not await wallet_repository.update_guarded(writes.wallet_updates, session=session):
        raise GuardMissed
    written = await portions.write(writes.headroom_changes, session=session)
    if written is None:
        raise PortionMissed
    if writes.answers:
        await idempotency_repository.insert_many(writes.answers, session=session)
    if writes.record_inserts:
        await record_repository.insert_many(writes.record_inserts, session=session)
    if writes.record_updates and not await record_repository.update_guarded(writes.record_updates, session=session):
        raise GuardMissed
    # A row that one command is done with, and that a later one makes anew, has to be there in the end.
    if writes.outbox_deletes:
        await outbox_repository.delete_many(writes.outbox_deletes, session=session)
    if writes.outbox_inserts:
        await outbox_repository.insert_many(writes.outbox_inserts, session=session)
    if writes.entries:
        await log_repository.insert_many(writes.entries, session=session)
    if writes.events:
        await event_repository.insert_many(writes.events, session=session)
    return written
