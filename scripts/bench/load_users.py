"""The data of one measurement: fresh databases with load users, each with a wallet that never runs dry.

Each row starts from the same, small data, so that no row pays for what the rows before it left behind. The money
comes in by the ledger and stands in the bank's journal, so that check-ledger can hold everything against each other.
"""

import asyncio
import json
import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from scripts.bench.report import Traffic
from service.database import Databases, bind_documents, connect, set_up
from service.documents import BankOrder as BankOrderDocument
from service.documents import User
from service.domain.clock import utc_now
from service.domain.identifiers import Prefix, new_id
from service.domain.operations import Operation
from service.domain.policy import Policy
from service.domain.wallets import new_wallet
from service.gateways.bank import BankOrder, OrderKind
from service.gateways.bank_behaviours import paid_row
from service.ledger.committer import Ledger
from service.ledger.orders import NoteAttempt, RequestDeposit, Settle
from service.repositories import wallets as wallet_repository
from service.services.access_tokens import issue_access_token
from service.services.bank_reports import about
from service.services.orders import Order
from service.services.passwords import Passwords
from service.settings import Settings

_FUNDS_MINOR = 10**9
_ACCOUNT = "bank-account-0001"
_BATCH_LIMIT = 500
# As many as a request may hold, from as many people as there are connections.
_BATCH_SIZE = 500
_BATCH_SENDERS = 128
_PATIENCE_S = 30.0


class Payer(NamedTuple):
    """Somebody of the load users who sends requests of their own."""

    token: str
    wallet_id: str
    currency: str


class LoadUsers:
    """The same people in every row; the first of them has the wallet that everybody hits."""

    def __init__(self, settings: Settings, users: Sequence[User]) -> None:
        self._settings = settings
        self._users = users
        now = utc_now()
        currency = settings.default_currency
        self._wallets = [new_wallet(new_id(Prefix.WALLET), user.id, currency, now) for user in users]

    @classmethod
    async def make(cls, settings: Settings, count: int) -> "LoadUsers":
        """On servers that have just been started: sets the database up."""
        await set_up(settings)
        databases = connect(settings.mongo_url.get_secret_value(), settings)
        try:
            await bind_documents(databases)
            password_hash = await _hash_of_nobodys_password()
            return cls(settings, [_user(number, password_hash) for number in range(count + 1)])
        finally:
            await databases.close()

    def write_requests(self, folder: Path) -> dict[Traffic, Path]:
        """A file for each kind of traffic, a request on each line: the token, a tab, the body."""
        now = utc_now()
        hot, *others = (issue_access_token(user, self._settings, now) for user in self._users)
        withdrawal = {"amount": 1, "currency": self._settings.default_currency, "destination": _ACCOUNT}
        hot_wallet, *wallets = (wallet.id for wallet in self._wallets)
        # Everybody pays the next one, so that money goes round and no wallet runs dry or over.
        neighbours = [*wallets[1:], wallets[0]]
        spread = list(zip(others, wallets, neighbours, strict=True))
        requests: dict[Traffic, list[tuple[str, dict[str, Any] | None]]] = {
            Traffic.PING: [(token, None) for token in others],
            Traffic.SPREAD: [(token, withdrawal) for token in others],
            Traffic.ONE: [(hot, withdrawal)],
            Traffic.PLAIN_SPREAD: [(token, withdrawal) for token in others],
            Traffic.PLAIN_ONE: [(hot, withdrawal)],
            Traffic.TRANSFERS_SPREAD: [(token, self._transfer(wallet, to)) for token, wallet, to in spread],
            Traffic.TRANSFERS_INTO_ONE: [(token, self._transfer(wallet, hot_wallet)) for token, wallet, _ in spread],
            Traffic.TRANSFERS_TO_AND_FRO: [
                (others[0], self._transfer(wallets[0], wallets[1])),
                (others[1], self._transfer(wallets[1], wallets[0])),
            ],
            Traffic.TRANSFER_BATCHES: [
                (token, self._batch(wallet, _round(neighbours, number)))
                for number, (token, wallet, _) in enumerate(spread[:_BATCH_SENDERS])
            ],
        }
        files = {}
        for traffic, lines in requests.items():
            files[traffic] = folder / traffic.name.lower()
            text = "".join(f"{token}\t{'' if body is None else json.dumps(body)}\n" for token, body in lines)
            files[traffic].write_text(text)
        return files

    def payers(self, count: int) -> list[Payer]:
        """Returns the first ones."""
        now, currency = utc_now(), self._settings.default_currency
        both = zip(self._users[:count], self._wallets[:count], strict=True)
        return [Payer(issue_access_token(user, self._settings, now), wallet.id, currency) for user, wallet in both]

    def known_emails(self, count: int) -> list[str]:
        return [user.email for user in self._users[:count]]

    def write_face_requests(self, folder: Path) -> dict[str, Path]:
        """Balances, withdrawals and logins that fail: token, body and path on each line."""
        now = utc_now()
        tokens = {user.id: issue_access_token(user, self._settings, now) for user in self._users}
        withdrawal = json.dumps({"amount": 1, "currency": self._settings.default_currency, "destination": _ACCOUNT})
        wrong = [json.dumps({"email": user.email, "password": "not-the-password-41"}) for user in self._users]
        lines = {
            "balances": [f"{token}\t\t/api/v1/users/{user_id}/balance" for user_id, token in tokens.items()],
            "withdrawals": [f"{token}\t{withdrawal}\t/api/v1/withdrawals" for token in tokens.values()],
            "logins": [f"\t{body}\t/api/v1/auth/login" for body in wrong],
        }
        files = {name: folder / f"face_{name}" for name in lines}
        for name, path in files.items():
            path.write_text("".join(line + "\n" for line in lines[name]))
        return files

    def _batch(self, wallet_id: str, to_wallet_ids: Sequence[str]) -> dict[str, Any]:
        return {"mode": "all_or_nothing", "transfers": [self._transfer(wallet_id, to) for to in to_wallet_ids]}

    def _transfer(self, wallet_id: str, to_wallet_id: str) -> dict[str, Any]:
        currency = self._settings.default_currency
        return {"from_wallet_id": wallet_id, "to_wallet_id": to_wallet_id, "amount": 1, "currency": currency}

    async def start_afresh(self) -> None:
        """Drops what there is and makes users, wallets and their funds. The API may be running, but not working."""
        await _drop_databases(self._settings)
        await set_up(self._settings)
        databases = connect(self._settings.mongo_url.get_secret_value(), self._settings)
        try:
            await bind_documents(databases)
            await self._insert(databases)
            await self._fund(databases)
        finally:
            await databases.close()

    async def _insert(self, databases: Databases) -> None:
        rows = [user.model_dump() for user in self._users]
        for row in rows:
            row["_id"] = row.pop("id")
        await User.get_pymongo_collection().insert_many(rows)
        async with databases.client.start_session() as session, await session.start_transaction():
            await wallet_repository.insert_many(self._wallets, session=session)

    async def _fund(self, databases: Databases) -> None:
        ledger = Ledger(
            databases.client,
            policy=Policy(),
            batch_limit=_BATCH_LIMIT,
            queue_limit=len(self._users),
            patience_s=_PATIENCE_S,
            on_committed=lambda _: None,
        )
        ledger.start()
        try:
            currency = self._settings.default_currency
            deposits = await asyncio.gather(
                *(ledger.change(_deposit(user, currency, self._settings), Operation) for user in self._users)
            )
            now = utc_now()
            payments = [paid_row(_order_of(deposit), now, self._settings) for deposit in deposits]
            await BankOrderDocument.get_pymongo_collection().insert_many(payments)
            # Nobody is paid for what was never sent.
            await asyncio.gather(*(ledger.change(NoteAttempt(**about(one)), Operation) for one in deposits))
            settlements = zip(deposits, payments, strict=True)
            await asyncio.gather(*(ledger.change(_settlement(*one), Operation) for one in settlements))
        finally:
            await ledger.close()


def _round(wallets: Sequence[str], start: int) -> list[str]:
    """The next 500 from there on, around and around, without the sender's own."""
    return [wallets[(start + step) % len(wallets)] for step in range(_BATCH_SIZE + 1) if (step + 1) % len(wallets)][
        :_BATCH_SIZE
    ]


async def _drop_databases(settings: Settings) -> None:
    admin_url = settings.mongo_admin_url or settings.mongo_url
    databases = connect(admin_url.get_secret_value(), settings)
    try:
        for database in (databases.wallet, databases.bank):
            await databases.client.drop_database(database)
    finally:
        await databases.close()


async def _hash_of_nobodys_password() -> str:
    """Their tokens are issued here; whoever logs in for them gets it wrong, after as much work as anywhere."""
    with ThreadPoolExecutor(1) as executor:
        return await Passwords(executor).hash(secrets.token_urlsafe())


def _user(number: int, password_hash: str) -> User:
    now = utc_now()
    return User(
        id=new_id(Prefix.USER),
        first_name="Load",
        last_name=str(number),
        email=f"load-{number}@example.com",
        password_hash=password_hash,
        roles=["user"],
        is_active=True,
        token_version=1,
        created_at=now,
        updated_at=now,
    )


def _deposit(user: User, currency: str, settings: Settings) -> RequestDeposit:
    deposit_id = new_id(Prefix.DEPOSIT)
    order = Order(_FUNDS_MINOR, currency, _ACCOUNT, None, None, {})
    return RequestDeposit(
        now=utc_now(),
        transaction_id=new_id(Prefix.TRANSACTION),
        operation_id=deposit_id,
        user_id=user.id,
        token_version=None,
        **order.sealed_for(deposit_id, settings),
    )


def _order_of(deposit: Operation) -> BankOrder:
    return BankOrder(deposit.id, OrderKind.COLLECTION, deposit.amount, deposit.currency, _ACCOUNT)


def _settlement(deposit: Operation, order: dict[str, Any]) -> Settle:
    return Settle(
        now=utc_now(),
        transaction_id=new_id(Prefix.TRANSACTION),
        operation_id=deposit.id,
        wallet_id=deposit.wallet_id,
        entry_id=new_id(Prefix.ENTRY),
        amount=deposit.amount,
        currency=deposit.currency,
        bank_reference=order["bank_reference"],
    )
