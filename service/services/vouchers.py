"""Vouchers: keeping the catalogue, looking at it, redeeming."""

import secrets
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

import orjson
import structlog

from service.domain.clock import utc_now
from service.domain.idempotency import Answer, IdempotencyClaim
from service.domain.identifiers import Prefix, new_id
from service.domain.sealed import SealedField, Unreadable
from service.domain.vouchers import CODE_BITS, Redemption, Voucher, redemption_code
from service.errors import InternalError
from service.ledger.committer import Ledger
from service.ledger.vouchers import CreateVoucher, RedeemVoucher, UpdateVoucher
from service.repositories import records as record_repository
from service.repositories import vouchers as voucher_repository
from service.repositories.records import RecordFilter
from service.services.orders import Requester
from service.services.records import get_owned
from service.services.sealing import open_sealed, seal
from service.settings import Settings

log = structlog.get_logger()

_FIRST_ERROR_STATUS = 400


class ShownRedemption(NamedTuple):
    """With the code in clear, for its owner."""

    redemption: Redemption
    code: str


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
    """Creates a voucher; the caller knows who may. A refusal is an answer too. Raises what Ledger.execute raises."""
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
            audit_event_id=new_id(Prefix.AUDIT_EVENT),
            reason=None,
            **user._asdict(),
            voucher=voucher,
        )
    )
    if decided.record is not None:
        log.info("voucher.created", voucher_id=decided.record.id, user_id=user.user_id, stock=order.stock)
    return decided.given


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
    answer = await ledger.answer(
        UpdateVoucher(
            now=utc_now(),
            transaction_id=new_id(Prefix.TRANSACTION),
            request_id=request_id,
            claim=claim,
            audit_event_id=new_id(Prefix.AUDIT_EVENT),
            reason=None,
            **user._asdict(),
            voucher_id=voucher_id,
            changes=changes,
            add_stock=add_stock,
        )
    )
    log.info(
        "voucher.updated",
        voucher_id=voucher_id,
        user_id=user.user_id,
        fields=sorted(changes),
        add_stock=add_stock,
        status=answer.status_code,
    )
    return answer


async def redeem_voucher(
    ledger: Ledger,
    user: Requester,
    voucher_id: str,
    claim: IdempotencyClaim,
    request_id: str | None,
    settings: Settings,
) -> Answer:
    """Points for a code, all of it or nothing; the same code for the same key. The code is in no log."""
    redemption_id = new_id(Prefix.REDEMPTION)
    code = redemption_code(secrets.randbits(CODE_BITS))
    decided = await ledger.execute(
        RedeemVoucher(
            now=utc_now(),
            transaction_id=new_id(Prefix.TRANSACTION),
            request_id=request_id,
            claim=claim,
            **user._asdict(),
            voucher_id=voucher_id,
            redemption_id=redemption_id,
            entry_id=new_id(Prefix.ENTRY),
            code_sealed=seal(settings, code, SealedField.VOUCHER_CODE, redemption_id),
        )
    )
    if decided.record is not None:
        log.info("voucher.redeemed", voucher_id=voucher_id, redemption_id=decided.record.id, user_id=user.user_id)
    return await _with_code(decided.given, user.user_id, settings)


async def _with_code(answer: Answer, user_id: str, settings: Settings) -> Answer:
    """The receipt as its owner gets it, to the byte the same each time: kept with the key, it has no code."""
    if answer.status_code >= _FIRST_ERROR_STATUS:
        return answer
    receipt = orjson.loads(answer.body)
    shown = await get_redemption(receipt["id"], user_id, settings)
    return answer._replace(body=orjson.dumps(receipt | {"code": shown.code}))


async def list_redeemable_vouchers(*, before_id: str | None, limit: int) -> list[Voucher]:
    """Lists what can be redeemed at this moment, by those who have the points; newest first."""
    return await voucher_repository.find_redeemable(utc_now(), before_id=before_id, limit=limit)


async def list_vouchers(*, before_id: str | None, limit: int) -> list[Voucher]:
    """Lists all there are, newest first."""
    return await record_repository.find_newest(Prefix.VOUCHER, Voucher, None, before_id=before_id, limit=limit)


async def get_redemption(redemption_id: str, user_id: str, settings: Settings) -> ShownRedemption:
    """Raises NotFound where there is none or it is somebody else's."""
    return _show(await get_owned(redemption_id, Redemption, user_id), settings)


async def list_redemptions(
    user_id: str, settings: Settings, *, before_id: str | None, limit: int
) -> list[ShownRedemption]:
    """Lists those of a user, newest first."""
    found = await record_repository.find_of_user(
        Prefix.REDEMPTION, Redemption, user_id, RecordFilter(), before_id=before_id, limit=limit
    )
    return [_show(redemption, settings) for redemption in found]


def _show(redemption: Redemption, settings: Settings) -> ShownRedemption:
    try:
        code = open_sealed(settings, redemption.code_sealed, SealedField.VOUCHER_CODE, redemption.id)
    except Unreadable as error:
        # Without its key nobody can be shown it, and it isn't lost either.
        log.critical("voucher.code_unreadable", redemption_id=redemption.id, key_id=redemption.code_sealed.key_id)
        raise InternalError from error
    return ShownRedemption(redemption, code)
