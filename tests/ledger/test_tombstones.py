"""Which commands may have made something before, under a key whose answer has expired (without a database)."""

from service.domain.idempotency import IdempotencyClaim
from service.domain.policy import Policy
from service.domain.wallets import new_wallet
from service.ledger.batch import Batch, Loaded
from service.ledger.transfers import TransferBatch
from tests.factories import batch_of, transfer_of
from tests.records import at, build_wallet

_SENDER = build_wallet()
_RECIPIENT = new_wallet("wal_ravi", "usr_ravi", "INR", at(0))


def _without_tombstone(amounts: tuple[int, ...]) -> bool:
    """Whether the batch left fewer tombstones than it has parts."""
    claim = IdempotencyClaim("usr_asha:key", "fingerprint", at(1_000), key_hashes=("hash",))
    parts = [transfer_of(_SENDER, _RECIPIENT, amount, now=at(5)) for amount in amounts]
    command: TransferBatch = batch_of(parts, is_all_or_nothing=False, claim=claim)
    batch = Batch(Loaded({"usr_asha": 0}, {one.id: one for one in (_SENDER, _RECIPIENT)}, {}, {}), Policy())
    batch.run(command)
    assert batch.without_tombstone in ([], [command])
    return bool(batch.without_tombstone)


def test_a_batch_leaves_one_for_each_part() -> None:
    assert not _without_tombstone((1, 2, 3))


def test_one_with_a_refused_part_may_have_made_it_before() -> None:
    assert _without_tombstone((1, 2, 9_999))
    assert _without_tombstone((9_999, 9_998))
