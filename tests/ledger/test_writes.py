"""When there is something to write."""

from typing import Any

import pytest

from service.domain.records import RecordUpdate
from service.ledger.batch import WalletUpdate, Writes
from tests.records import build_voucher, build_wallet

_WALLET, _VOUCHER = build_wallet(), build_voucher()


@pytest.mark.parametrize(
    ("part", "document"),
    [
        ("wallet_updates", WalletUpdate(_WALLET, _WALLET)),
        ("record_inserts", _VOUCHER),
        ("record_updates", RecordUpdate(_VOUCHER, _VOUCHER)),
        ("answers", "an answer"),
        ("outbox_deletes", "reward:dep_1"),
    ],
)
def test_each_document_is_a_reason_to_write(part: str, document: Any) -> None:
    parts: dict[str, Any] = {part: [document]}
    assert Writes(**parts)


def test_nothing_is_none() -> None:
    assert not Writes()
