"""Proofs: what somebody needs to see, without trusting us, that an entry or a wallet's head is under a checkpoint."""

from datetime import timedelta
from typing import NamedTuple

from service.domain.entries import Entry
from service.domain.wallets import Wallet
from service.errors import NotCheckpointed, NotFound, WalletCheckpointed
from service.repositories import checkpoints as checkpoint_repository
from service.repositories import transaction_logs as log_repository
from service.services.checkpoints import Missing, Sealed, find_missing, find_sealed
from service.services.wallets import get_wallet
from service.settings import Settings

# The clocks of API and workers are seconds apart at most. Were it more, another checkpoint than the very first after
# an entry would be found, and would prove it just as well.
_CLOCKS_APART = timedelta(seconds=60)


class WalletProof(NamedTuple):
    """`entries` lead from the leaf, or from where the page before ended, to the wallet's head, or to the next page."""

    head: Wallet
    sealed: Sealed
    entries: list[Entry]
    has_more: bool


class EntryProof(NamedTuple):
    """`following` leads from the entry to the leaf, or to the wallet's `head` where no checkpoint seals it yet."""

    entry: Entry
    sealed: Sealed | None
    head: Wallet | None
    following: list[Entry]
    has_more: bool


async def prove_wallet(
    wallet_id: str,
    user_id: str,
    settings: Settings,
    *,
    number: int | None,
    since: int | None = None,
    after_seq: int | None,
    limit: int,
) -> WalletProof:
    """Proves the wallet under the checkpoint with that number, or under the latest. Raises NotFound, NotCheckpointed.

    With `since`, the entries begin where the wallet stood under that earlier checkpoint: from there to the leaf they
    show that it has only grown.
    """
    await get_wallet(wallet_id, user_id)
    sealed = await _find_sealed(wallet_id, number)
    if sealed is None:
        raise NotCheckpointed(retry_after_s=settings.checkpoint_interval_s)
    # Once more, and after the leaf: the head must not be older than what was sealed.
    head = await get_wallet(wallet_id, user_id)
    earlier = None if since is None else await find_sealed(wallet_id, since)
    seen_seq = 0 if earlier is None else earlier.leaf.seq
    start = max(sealed.leaf.seq if since is None else min(seen_seq, sealed.leaf.seq), after_seq or 0)
    entries = await log_repository.find_following(wallet_id, after_seq=start, up_to_seq=head.seq, limit=limit)
    return WalletProof(head, sealed, entries, start + len(entries) < head.seq)


async def prove_absence(wallet_id: str, user_id: str, *, number: int | None) -> Missing:
    """That the checkpoint with that number, or the latest, saw no such wallet. Raises NotFound, WalletCheckpointed."""
    await get_wallet(wallet_id, user_id)
    if number is None:
        latest = await checkpoint_repository.find_latest()
        if latest is None:
            raise NotFound("There is no checkpoint yet")
        number = latest.number
    missing = await find_missing(wallet_id, number)
    if missing is None:
        raise WalletCheckpointed
    return missing


async def prove_entry(wallet_id: str, entry_id: str, user_id: str, *, after_seq: int | None, limit: int) -> EntryProof:
    """Proves the entry under the first checkpoint that seals it. Raises NotFound.

    An entry's hash can only be recomputed from the whole entry, and each holds only the hash before; so nothing
    shorter than all entries up to the leaf links the two. Checkpoints keep that to what one wallet does in an hour.
    """
    await get_wallet(wallet_id, user_id)
    entry = await log_repository.find_in_wallet(entry_id, wallet_id)
    if entry is None:
        raise NotFound(f"There is no entry {entry_id}")
    sealed = await _find_first_sealed(entry)
    head = None
    if sealed is None:
        head = await get_wallet(wallet_id, user_id)
        end = head.seq
    else:
        end = sealed.leaf.seq
    start = max(entry.seq, after_seq or 0)
    following = await log_repository.find_following(wallet_id, after_seq=start, up_to_seq=end, limit=limit)
    return EntryProof(entry, sealed, head, following, start + len(following) < end)


async def _find_sealed(wallet_id: str, number: int | None) -> Sealed | None:
    if number is not None:
        return await find_sealed(wallet_id, number)
    latest = await checkpoint_repository.find_latest()
    return None if latest is None else await find_sealed(wallet_id, latest.number)


async def _find_first_sealed(entry: Entry) -> Sealed | None:
    """Forward from the first checkpoint that may have it, by its time, to the first that does."""
    latest = await checkpoint_repository.find_latest()
    if latest is None:
        return None
    first = await checkpoint_repository.find_first_number_since(entry.created_at - _CLOCKS_APART)
    for number in range(latest.number if first is None else first, latest.number + 1):
        try:
            sealed = await find_sealed(entry.wallet_id, number)
        except NotFound:
            # The signer left this number out: a forged checkpoint had it.
            continue
        if sealed is not None and sealed.leaf.seq >= entry.seq:
            return sealed
    return None
