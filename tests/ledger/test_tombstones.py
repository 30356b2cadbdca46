"""Which commands may have made something before, under a key whose answer has expired (without a database)."""

from service.domain.idempotency import IdempotencyClaim
from service.domain.policy import Policy
from service.domain.wallets import new_wallet
from service.errors import AccountDeactivated
from service.ledger.batch import Batch, Loaded
from service.ledger.transfers import TransferBatch
from tests.factories import batch_of, transfer_of
from tests.records import at, build_wallet

_SENDER = build_wallet()
_RECIPIENT = new_wallet("wal_ravi", "usr_ravi", "INR", at(0))
_CLAIM = "usr_asha:key"


def _claim() -> IdempotencyClaim:
    return IdempotencyClaim(_CLAIM, "fingerprint", at(1_000), key_hashes=("hash",))


def _without_tombstone(amounts: tuple[int, ...]) -> bool:
    """Whether the batch left fewer tombstones than it has parts."""
    parts = [transfer_of(_SENDER, _RECIPIENT, amount, now=at(5)) for amount in amounts]
    command: TransferBatch = batch_of(parts, is_all_or_nothing=False, claim=_claim())
    batch = Batch(Loaded({"usr_asha": 0}, {one.id: one for one in (_SENDER, _RECIPIENT)}, {}, {}), Policy())
    batch.run(command)
    assert batch.without_tombstone in ([], [command])
    return bool(batch.without_tombstone)


def test_a_batch_leaves_one_for_each_part() -> None:
    assert not _without_tombstone((1, 2, 3))


def test_one_with_a_refused_part_may_have_made_it_before() -> None:
    assert _without_tombstone((1, 2, 9_999))
    assert _without_tombstone((9_999, 9_998))


def test_somebody_who_may_not_act_any_more_is_not_told_what_it_has_made() -> None:
    transfer = transfer_of(_SENDER, _RECIPIENT, 1, now=at(5), token_version=0, claim=_claim())
    batch = Batch(Loaded({}, {one.id: one for one in (_SENDER, _RECIPIENT)}, {}, {}), Policy())
    first = batch.run(transfer)
    assert isinstance(first.error, AccountDeactivated)
    assert batch.without_tombstone == [], "nothing is looked up for them"
    active = Batch(Loaded({"usr_asha": 0}, {one.id: one for one in (_SENDER, _RECIPIENT)}, {}, {}), Policy())
    made = active.run(transfer).record
    assert made is not None
    again = Batch(
        Loaded({}, {one.id: one for one in (_SENDER, _RECIPIENT)}, {made.id: made}, {}, made={_CLAIM: [made]}), Policy()
    )
    assert isinstance(again.run(transfer).error, AccountDeactivated)
