"""Wallets: opening them, and what is and was in them."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import structlog
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import DuplicateKeyError

from service.database import Client, run_in_transaction
from service.domain.clock import utc_now
from service.domain.entries import Entry, EntryType
from service.domain.identifiers import Prefix, new_id
from service.domain.money import EXPONENTS, POINTS
from service.domain.wallets import Wallet, new_wallet
from service.errors import AccountDeactivated, FieldError, InvalidFields, NotFound, Unauthenticated, WalletExists
from service.repositories import transaction_logs as log_repository
from service.repositories import users as user_repository
from service.repositories import wallets as wallet_repository
from service.services.orders import Requester

log = structlog.get_logger()

# A user has one wallet in a currency, so nobody has more than this.
_WALLETS_LIMIT = len(EXPONENTS)


class EntryFilter(NamedTuple):
    """Created from `created_from` on and before `created_to`; no types means all."""

    types: Sequence[EntryType] = ()
    created_from: datetime | None = None
    created_to: datetime | None = None


async def open_wallet(client: Client, user: Requester, currency: str) -> Wallet:
    """An empty wallet. Raises InvalidFields, AccountDeactivated, Unauthenticated, WalletExists, Unavailable."""
    if currency not in EXPONENTS:
        raise InvalidFields(fields=(FieldError("/currency", "unknown_currency", "Send an ISO 4217 code, e.g. INR"),))
    wallet = new_wallet(new_id(Prefix.WALLET), user.user_id, currency, utc_now())

    async def insert_for_active_user(session: AsyncClientSession) -> None:
        # A deactivation at this very moment may still let an empty wallet through; money asks again.
        token_version = (await user_repository.find_active([user.user_id], session=session)).get(user.user_id)
        if token_version is None:
            raise AccountDeactivated
        if user.token_version not in (None, token_version):
            raise Unauthenticated("The access token is no longer valid")
        await wallet_repository.insert(wallet, session=session)

    try:
        await run_in_transaction(client, insert_for_active_user)
    except DuplicateKeyError as error:
        raise WalletExists(currency=currency) from error
    log.info("wallet.opened", wallet_id=wallet.id, user_id=user.user_id, currency=currency)
    return wallet


async def list_wallets(user_id: str, *, before_id: str | None, limit: int) -> list[Wallet]:
    """Newest first."""
    return await wallet_repository.find_of_user(user_id, before_id=before_id, limit=limit)


async def get_wallet(wallet_id: str, user_id: str) -> Wallet:
    """Raises NotFound where there is none or it is somebody else's."""
    wallet = await wallet_repository.find_owned(wallet_id, user_id)
    if wallet is None:
        raise NotFound(f"There is no wallet {wallet_id}")
    return wallet


async def get_balances(user_id: str) -> list[Wallet]:
    """All wallets of a user, newest first; points, which are no money, at the end."""
    found = await wallet_repository.find_of_user(user_id, before_id=None, limit=_WALLETS_LIMIT)
    return sorted(found, key=lambda wallet: wallet.currency == POINTS)


async def list_wallet_entries(
    wallet_id: str, user_id: str, wanted: EntryFilter, *, before_seq: int | None, limit: int
) -> list[Entry]:
    """A wallet's history, newest first. Raises NotFound where there is no such wallet or it is somebody else's."""
    await get_wallet(wallet_id, user_id)
    return await log_repository.find_of_wallet(wallet_id, **wanted._asdict(), before_seq=before_seq, limit=limit)


async def list_user_entries(
    user_id: str, wanted: EntryFilter, currency: str | None, *, before_id: str | None, limit: int
) -> list[Entry]:
    """The history of all of a user's wallets, newest first."""
    return await log_repository.find_of_user(
        user_id, **wanted._asdict(), currency=currency, before_id=before_id, limit=limit
    )
