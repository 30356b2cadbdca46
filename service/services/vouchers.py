"""Vouchers: keeping the catalogue, looking at it, redeeming."""

import secrets
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

import structlog

from service.domain.clock import utc_now
from service.domain.idempotency import Answer, IdempotencyClaim
from service.domain.identifiers import Prefix, new_id
from service.domain.vouchers import CODE_BITS, Redemption, Voucher, redemption_code
from service.errors import NotFound
from service.ledger.committer import Ledger
from service.ledger.vouchers import CreateVoucher, RedeemVoucher, UpdateVoucher
from service.repositories import records as record_repository
from service.repositories import vouchers as voucher_repository
from service.repositories.records import RecordFilter
from service.services.orders import Requester

log = structlog.get_logger()


class VoucherOrder(NamedTuple):
    """A voucher to be: `cost` in points, times as they count (valid_until excluded), None for no limit."""

    title: str
    description: str | None
    cost: int
    stock: int
    per_user_limit: int | None
    valid_from: datetime | None
    valid_until: datetime | None
    is_active: bool


async def create_voucher(
    ledger: Ledger, user: Requester, order: VoucherOrder, claim: IdempotencyClaim, request_id: str | None
) -> Answer:
    """Who may do it is the caller's to know. A refusal is an answer too. Raises what Ledger.execute raises."""
    now = utc_now()
    voucher = Voucher(
        id=new_id(Prefix.VOUCHER),
        **order._asdict(),
        stocked_total=order.stock,
        created_at=now,
        updated_at=now,
    )
    decided = await ledger.execute(
        CreateVoucher(
            now=now,
            transaction_id=new_id(Prefix.TRANSACTION),
            request_id=request_id,
            claim=claim,
            **user._asdict(),
            voucher=voucher,
        )
    )
    assert decided.answer is not None, "a command with a key has an answer"  # noqa: S101 a defect of the ledger
    if decided.record is not None:
        log.info("voucher.created", voucher_id=decided.record.id, user_id=user.user_id, stock=order.stock)
    return decided.answer


async def update_voucher(
    ledger: Ledger,
    user: Requester,
    voucher_id: str,
    changes: Mapping[str, Any],
    add_stock: int,
    claim: IdempotencyClaim,
    request_id: str | None,
) -> Answer:
    """`changes` are fields of a voucher with their new values. A refusal is an answer too."""
    decided = await ledger.execute(
        UpdateVoucher(
            now=utc_now(),
            transaction_id=new_id(Prefix.TRANSACTION),
            request_id=request_id,
            claim=claim,
            **user._asdict(),
            voucher_id=voucher_id,
            changes=changes,
            add_stock=add_stock,
        )
    )
    assert decided.answer is not None, "a command with a key has an answer"  # noqa: S101 a defect of the ledger
    log.info(
        "voucher.updated",
        voucher_id=voucher_id,
        user_id=user.user_id,
        fields=sorted(changes),
        add_stock=add_stock,
        status=decided.answer.status_code,
    )
    return decided.answer


async def redeem_voucher(
    ledger: Ledger, user: Requester, voucher_id: str, claim: IdempotencyClaim, request_id: str | None
) -> Answer:
    """Points for a code, all of it or nothing; the same code for the same key. The code is in no log."""
    decided = await ledger.execute(
        RedeemVoucher(
            now=utc_now(),
            transaction_id=new_id(Prefix.TRANSACTION),
            request_id=request_id,
            claim=claim,
            **user._asdict(),
            voucher_id=voucher_id,
            redemption_id=new_id(Prefix.REDEMPTION),
            entry_id=new_id(Prefix.ENTRY),
            code=redemption_code(secrets.randbits(CODE_BITS)),
        )
    )
    assert decided.answer is not None, "a command with a key has an answer"  # noqa: S101 a defect of the ledger
    if decided.record is not None:
        log.info("voucher.redeemed", voucher_id=voucher_id, redemption_id=decided.record.id, user_id=user.user_id)
    return decided.answer


async def get_voucher(voucher_id: str) -> Voucher:
    """Whether it can be redeemed or not. Raises NotFound."""
    voucher = await record_repository.find(voucher_id, Voucher)
    if voucher is None:
        raise NotFound(f"There is no voucher {voucher_id}")
    return voucher


async def list_redeemable_vouchers(*, before_id: str | None, limit: int) -> list[Voucher]:
    """What can be redeemed at this moment, by those who have the points; newest first."""
    return await voucher_repository.find_redeemable(utc_now(), before_id=before_id, limit=limit)


async def list_vouchers(*, before_id: str | None, limit: int) -> list[Voucher]:
    """All there are, newest first."""
    return await voucher_repository.find_all(before_id=before_id, limit=limit)


async def get_redemption(redemption_id: str, user_id: str) -> Redemption:
    """Raises NotFound where there is none or it is somebody else's."""
    redemption = await record_repository.find_owned(redemption_id, Redemption, user_id)
    if redemption is None:
        raise NotFound(f"There is no redemption {redemption_id}")
    return redemption


async def list_redemptions(user_id: str, *, before_id: str | None, limit: int) -> list[Redemption]:
    """Those of a user, newest first."""
    return await record_repository.find_of_user(
        Prefix.REDEMPTION, Redemption, user_id, RecordFilter(), before_id=before_id, limit=limit
    )
