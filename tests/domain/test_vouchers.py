"""Vouchers by themselves: when they can be redeemed, and codes that people can read."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.domain.vouchers import CODE_BITS, Availability, Voucher, redemption_code, voucher_use_id

_NOW = datetime(2026, 2, 24, 12, 34, 56, 789000, tzinfo=UTC)
_TICK = timedelta(milliseconds=1)
_VOUCHER = Voucher(
    "vch_1", "Coffee", None, 100, 5, 5, None, None, None, is_active=True, created_at=_NOW, updated_at=_NOW
)


class TestAvailability:
    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({}, Availability.REDEEMABLE),
            ({"valid_from": _NOW, "valid_until": _NOW + _TICK}, Availability.REDEEMABLE),
            ({"valid_from": _NOW + _TICK}, Availability.NOT_YET_VALID),
            ({"valid_until": _NOW}, Availability.OVER),
            ({"stock": 0}, Availability.SOLD_OUT),
            ({"is_active": False}, Availability.INACTIVE),
            ({"stock": 0, "valid_until": _NOW}, Availability.OVER),
        ],
        ids=str,
    )
    def test_at_a_time(self, changes: dict[str, Any], expected: Availability) -> None:
        assert _VOUCHER._replace(**changes).availability(_NOW) is expected


class TestCodes:
    @pytest.mark.parametrize(
        ("number", "code"),
        [
            (0, "00000-00000-00000-00000-000000"),
            (31, "00000-00000-00000-00000-00000Z"),
            (32, "00000-00000-00000-00000-000010"),
            (2**CODE_BITS - 1, "7ZZZZ-ZZZZZ-ZZZZZ-ZZZZZ-ZZZZZZ"),
        ],
    )
    def test_carry_all_128_bits_in_letters_that_cannot_be_mistaken(self, number: int, code: str) -> None:
        assert redemption_code(number) == code
        assert not set(code) & set("ILOU")


class TestTheCountOfAPerson:
    def test_has_one_id_for_each_person_and_voucher(self) -> None:
        ids = {voucher_use_id(voucher, user) for voucher in ("vch_1", "vch_2") for user in ("usr_1", "usr_2")}
        assert len(ids) == 4
        assert voucher_use_id("vch_1", "usr_1") in ids
