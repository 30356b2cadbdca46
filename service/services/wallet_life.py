"""Freezing, unfreezing, closing and reopening wallets. Each may be repeated: what is so already is no new event."""

from typing import Any

import structlog

from service.domain.clock import utc_now
from service.domain.identifiers import Prefix, new_id
from service.domain.money import EXPONENTS, POINTS
from service.domain.wallets import Freeze, Wallet
from service.errors import NotFound
from service.ledger.audit_events import Unchanged
from service.ledger.committer import Ledger
from service.ledger.wallet_life import CloseWallet, FreezeWallet, OnWallet, ReopenWallet, UnfreezeWallet
from service.repositories import wallets as wallet_repository
from service.services.breaks import require_books_agree
from service.services.orders import Requester

log = structlog.get_logger()


async def freeze_wallet(
    ledger: Ledger, user: Requester, wallet_id: str, freeze: Freeze, reason: str, request_id: str | None
) -> Wallet:
    """For an admin. Raises NotFound, WalletClosed, SecondAdminRequired where it would open one's own one way,
    WalletBooksDisagree where it would open a wallet that is shut for a break, WalletOwes where it would let money out
    that is owed, and what Ledger.execute raises.
    """
    if freeze is not Freeze.BOTH:
        await require_books_agree(wallet_id)
    fields = await _opening(user, wallet_id, reason, request_id)
    return await _turn(ledger, FreezeWallet(**fields, freeze=freeze))


async def unfreeze_wallet(
    ledger: Ledger, user: Requester, wallet_id: str, reason: str, request_id: str | None
) -> Wallet:
    """For an admin, of anybody's but their own. Raises NotFound, WalletClosed, SecondAdminRequired,
    WalletBooksDisagree while a break of its books is open, WalletOwes, and what Ledger.execute raises.
    """
    await require_books_agree(wallet_id)
    return await _turn(ledger, UnfreezeWallet(**await _opening(user, wallet_id, reason, request_id)))


async def close_wallet(
    ledger: Ledger, user: Requester, wallet_id: str, reason: str | None, request_id: str | None, *, is_admin: bool
) -> Wallet:
    """Raises NotFound where it is somebody else's and no admin asks, WalletNotEmpty, WalletHasOpenOperations,
    WalletOwes, WalletFrozen, InvalidFields, WalletBooksDisagree while a break of its books is open, and what
    Ledger.execute raises.
    """
    if is_admin or await wallet_repository.find_owned(wallet_id, user.user_id) is not None:
        await require_books_agree(wallet_id)
    return await _turn(ledger, CloseWallet(**_by(user, wallet_id, reason, request_id), is_admin=is_admin))


async def reopen_wallet(ledger: Ledger, user: Requester, wallet_id: str, reason: str, request_id: str | None) -> Wallet:
    """For an admin, of anybody's but their own. Raises NotFound, WalletFrozen where it is not closed but frozen,
    CurrencyNotOffered, SecondAdminRequired, WalletNotEmpty, WalletOwes where another wallet of its owner does,
    WalletBooksDisagree while a break of its books is open, and what Ledger.execute raises.
    """
    await require_books_agree(wallet_id)
    return await _turn(ledger, ReopenWallet(**await _opening(user, wallet_id, reason, request_id)))


async def money_beside(wallet_id: str) -> tuple[str, ...]:
    """Returns the ids of the owner's other wallets that hold money; points are none."""
    wallet = await wallet_repository.find(wallet_id)
    if wallet is None:
        return ()
    owned = await wallet_repository.find_of_user(wallet.user_id, before_id=None, limit=len(EXPONENTS))
    return tuple(one.id for one in owned if one.id != wallet_id and one.currency != POINTS)


async def _opening(user: Requester, wallet_id: str, reason: str | None, request_id: str | None) -> dict[str, Any]:
    return _by(user, wallet_id, reason, request_id) | {"beside": await money_beside(wallet_id)}


def _by(user: Requester, wallet_id: str, reason: str | None, request_id: str | None) -> dict[str, Any]:
    return {
        "now": utc_now(),
        "transaction_id": new_id(Prefix.TRANSACTION),
        "request_id": request_id,
        "audit_event_id": new_id(Prefix.AUDIT_EVENT),
        "wallet_id": wallet_id,
        "reason": reason,
        **user._asdict(),
    }


async def _turn(ledger: Ledger, command: OnWallet) -> Wallet:
    """Returns the wallet as it stands afterwards."""
    try:
        await ledger.execute(command)
    except Unchanged:
        log.info("wallet.unchanged", wallet_id=command.wallet_id, command=type(command).__name__)
    else:
        log.info("wallet.turned", wallet_id=command.wallet_id, command=type(command).__name__, by=command.user_id)
    wallet = await wallet_repository.find(command.wallet_id)
    if wallet is None:
        raise NotFound(f"There is no wallet {command.wallet_id}")
    return wallet
