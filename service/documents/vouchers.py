"""Vouchers, who has redeemed how many, and each redemption: shaped like their records in the domain."""

from typing import Any, ClassVar

from beanie import Document
from pymongo import IndexModel

from service.documents.operations import MADE_ONCE, USER_NEWEST
from service.documents.validation import POSITIVE_AMOUNT, TEXT, validator_of
from service.domain.vouchers import Redemption, Voucher, VoucherUse


class VoucherDocument(Document):
    """The last one of a stock is fought for here: `stock` can't go below 0, whatever a rule has let through."""

    class Settings:
        name = "vouchers"
        indexes: ClassVar = [IndexModel([("is_active", 1), ("_id", -1)], name="active_newest")]
        validator: ClassVar[dict[str, Any]] = validator_of(Voucher, title=TEXT, cost=POSITIVE_AMOUNT)


class VoucherUseDocument(Document):
    class Settings:
        name = "voucher_uses"
        indexes: ClassVar = [IndexModel("voucher_id", name="voucher")]
        validator: ClassVar[dict[str, Any]] = validator_of(VoucherUse, redeemed=POSITIVE_AMOUNT)


class RedemptionDocument(Document):
    class Settings:
        name = "redemptions"
        indexes: ClassVar = [USER_NEWEST, IndexModel("voucher_id", name="voucher"), MADE_ONCE]
        validator: ClassVar[dict[str, Any]] = validator_of(Redemption, cost=POSITIVE_AMOUNT)
