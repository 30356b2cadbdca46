"""Wallets: opening them, and what is and was in them."""

from datetime import datetime

import structlog
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import DuplicateKeyError, ExecutionTimeout

from service.database import Client, run_in_transaction
from service.domain.clock import utc_now
from service.domain.entries import Entry
from service.domain.history import BalancePoint, EntryFilter
from service.domain.identifiers import Prefix, new_id
from service.domain.money import EXPONENTS, POINTS
from service.domain.policy import Policy
from service.domain.wallets import Wallet, new_wallet
from service.errors import (
    AccountDeactivated,
    FieldError,
    InvalidFields,
    NotFound,
    SearchTooLong,
    Unauthenticated,
    WalletExists,
)
from service.ledger.rules import require_none_waits, require_nothing_owed, require_offered
from service.repositories import records as record_repository
from service.repositories import transaction_logs as log_repository
from service.repositories import user_limits as user_limits_repository
from service.repositories import users as user_repository
from service.repositories import wallets as wallet_repository
from service.services.orders import Requester

log = structlog.get_logger()

# A user has one wallet in a currency, so nobody has more than this.
_WALLETS_LIMIT = len(EXPONENTS)


async def open_wallet(client: Client, user: Requester, currency: str, policy: Policy) -> Wallet:
    """Opens an empty wallet.

    Raises InvalidFields, CurrencyNotOffered, AccountDeactivated, Unauthenticated, WalletExists, WalletOwes while
    another wallet of the user does or a return waits to take from it, and Unavailable.
    """
    if currency not in EXPONENTS:
        raise InvalidFields(fields=(FieldError("/currency", "unknown_currency", "Send an ISO 4217 code, e.g. INR"),))
    require_offered(currency, policy)
    opened_at = utc_now()
    wallet = new_wallet(new_id(Prefix.WALLET), user.user_id, currency, opened_at)

    async def insert_for_active_user(session: AsyncClientSession) -> Wallet:
        # A deactivation at this very moment may still let an empty wallet through; money asks again.
        token_version = (await user_repository.find_known([user.user_id], session=session)).active.get(user.user_id)
        if token_version is None:
            raise AccountDeactivated
        if user.token_version not in (None, token_version):
            raise Unauthenticated("The access token is no longer valid")
        # A return that is booked at this very moment changes one of these wallets too: the two conflict, so that
        # either the return freezes the new wallet or it is not opened.
        await wallet_repository.take_turn((), (), (user.user_id,), session=session)
        for other in (await wallet_repository.find_named((), (), (user.user_id,), session=session)).values():
            if other.currency != POINTS:
                require_nothing_owed(other)
                require_none_waits(await record_repository.find_return_that_waits(other.id, but=(), session=session))
        user_limits = await user_limits_repository.read_for_new_wallet(user.user_id, opened_at, session=session)
        opened = wallet._replace(owner_time_zone=user_limits.time_zone, counts_for_owner=user_limits.has_counters)
        await wallet_repository.insert(opened, session=session)
        return opened

    try:
        wallet = await run_in_transaction(client, insert_for_active_user)
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
    """Returns all wallets of a user, newest first; points, which are no money, at the end."""
    found = await wallet_repository.find_of_user(user_id, before_id=None, limit=_WALLETS_LIMIT)
    return sorted(found, key=lambda wallet: wallet.currency == POINTS)


async def get_wallet_at(wallet_id: str, user_id: str, at: datetime) -> tuple[Wallet, BalancePoint]:
    """The wallet, and what was in it at that time. Raises NotFound where there is none or it is somebody else's."""
    wallet = await get_wallet(wallet_id, user_id)
    return wallet, (await log_repository.find_points_at([wallet_id], at))[wallet_id]


async def get_balances_at(user_id: str, at: datetime) -> list[tuple[Wallet, BalancePoint]]:
    """Returns all wallets that a user has by now, newest first, and what was in them at that time."""
    found = await get_balances(user_id)
    points = await log_repository.find_points_at([wallet.id for wallet in found], at)
    return [(wallet, points[wallet.id]) for wallet in found]


async def list_wallet_entries(
    wallet_id: str, user_id: str, wanted: EntryFilter, *, before_seq: int | None, limit: int
) -> list[Entry]:
    """Lists a wallet's history, newest first.

    Raises NotFound where there is no such wallet or it is somebody else's, and SearchTooLong.
    """
    await get_wallet(wallet_id, user_id)
    try:
        return await log_repository.find_of_wallet(wallet_id, wanted, before_seq=before_seq, limit=limit)
    except ExecutionTimeout as error:
        raise SearchTooLong from error


async def list_user_entries(
    user_id: str, wanted: EntryFilter, currency: str | None, *, before_id: str | None, limit: int
) -> list[Entry]:
    """Lists the history of all of a user's wallets, newest first. Raises SearchTooLong."""
    try:
        return await log_repository.find_of_user(user_id, wanted, currency, before_id=before_id, limit=limit)
    except ExecutionTimeout as error:
        raise SearchTooLong from error
