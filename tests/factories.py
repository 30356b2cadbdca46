"""Users, wallets and money for tests: sensible defaults, keyword overrides, and never two alike."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache
from typing import Any, NamedTuple, TypeVar
from uuid import uuid4

import pytest
from pymongo.errors import PyMongoError

from service.database import Databases, session_in_transaction
from service.documents import User
from service.domain.adjustments import AdjustmentType
from service.domain.breaks import Break, BreakKind, BreakState
from service.domain.checkpoints import LISTS, TILE_LEAVES, Checkpoint, Leaf, TileName, make_checkpoint, make_tile
from service.domain.clock import utc_now
from service.domain.dead_letters import DeadLetter, Queue
from service.domain.entries import EntryType
from service.domain.idempotency import IdempotencyClaim
from service.domain.identifiers import Prefix, first_id_at, new_id
from service.domain.money import POINTS
from service.domain.operations import Operation
from service.domain.outbox import OutboxTopic, outbox_row
from service.domain.policy import Policy
from service.domain.quotes import Quote, QuoteStatus, Rate
from service.domain.rewards import EarningEvent, EarningRule, Settled
from service.domain.sealed import SealedField
from service.domain.step_up import CODE_TRIES, Challenge
from service.domain.transfers import Transfer
from service.domain.vouchers import Voucher
from service.domain.wallets import Freeze, Movement, Wallet, apply_movement, new_wallet
from service.ledger import transaction
from service.ledger.adjustments import RequestAdjustment
from service.ledger.approvals import CancelPayment, ConfirmPayment, LapsePayment, Payment
from service.ledger.batch import Decided
from service.ledger.blocked_withdrawals import CancelWithdrawal, ReleaseWithdrawal
from service.ledger.commands import Command
from service.ledger.committer import is_duplicate
from service.ledger.conversions import ConvertMoney
from service.ledger.house_portions import PortionCache
from service.ledger.orders import (
    Fail,
    FlagForReview,
    NoteAttempt,
    OnOperation,
    RequestDeposit,
    RequestWithdrawal,
    Settle,
)
from service.ledger.rewards import EarnPoints
from service.ledger.transaction import Attempt, GuardMissed, prepare
from service.ledger.transfers import RequestTransfer, TransferBatch
from service.ledger.vouchers import RedeemVoucher
from service.ledger.wallet_life import FreezeWallet, UnfreezeWallet
from service.repositories import breaks as break_repository
from service.repositories import checkpoints as checkpoint_repository
from service.repositories import outbox as outbox_repository
from service.repositories import records as record_repository
from service.repositories import transaction_logs as log_repository
from service.repositories import users as user_repository
from service.repositories import wallets as wallet_repository
from service.services import passwords
from service.services.access_tokens import issue_access_token
from service.services.checkpoints import signing_key
from service.services.dead_letters import Claimed, Reason, bury
from service.services.sealing import seal
from service.services.users import ensure_users
from service.settings import Settings
from tests.books import asking_before

_Change = TypeVar("_Change", bound=OnOperation)

PASSWORD = "violet-kettle-harbour-41"
# Those of development, as the tests' stacks have them.
_KEYS = Settings(_env_file=None)

# A point for each minor unit that comes in.
GENEROUS = Policy(earning_rules=(EarningRule("tests", EarningEvent.DEPOSIT, "INR", 1, 1, 1_000_000),))
# Somebody else may be first so often; a guard that misses for ever is a defect, to be seen and not waited for.
_TIMES_SECOND = 50


class Account(NamedTuple):
    """A user with one wallet."""

    user: User
    wallet: Wallet


def make_email() -> str:
    return f"{new_id(Prefix.USER)}@example.com"


def make_registration(**overrides: Any) -> dict[str, Any]:
    """The body of a registration."""
    return {"first_name": "Asha", "last_name": "Rao", "email": make_email(), "password": PASSWORD} | overrides


@cache
def _hash_of(password: str) -> str:
    """Made once: it is slow on purpose."""
    return passwords._hash(password)


def build_user(*, password: str = PASSWORD, **overrides: Any) -> User:
    """Active, without a wallet, and not in the database yet."""
    now = utc_now()
    fields: dict[str, Any] = {
        "id": new_id(Prefix.USER),
        "first_name": "Asha",
        "last_name": "Rao",
        "email": make_email(),
        "password_hash": _hash_of(password),
        "roles": ["user"],
        "is_active": True,
        "token_version": 0,
        "created_at": now,
        "updated_at": now,
        "email_verified_at": now,
    }
    return User(**(fields | overrides))


async def make_user(databases: Databases, **overrides: Any) -> User:
    """An active user without a wallet."""
    user = build_user(**overrides)
    async with session_in_transaction(databases.client) as session:
        await user_repository.insert(user, session=session)
    return user


async def make_wallet(databases: Databases, user: User, *, currency: str = "INR", **overrides: Any) -> Wallet:
    """Empty. A balance given as an override has no entries behind it; fund_wallet's has."""
    wallet = new_wallet(new_id(Prefix.WALLET), user.id, currency, utc_now())._replace(**overrides)
    async with session_in_transaction(databases.client) as session:
        await wallet_repository.insert(wallet, session=session)
    return wallet


async def make_account(databases: Databases, *, balance: int = 0, currency: str = "INR", **overrides: Any) -> Account:
    """A user (the overrides are theirs) with one wallet that holds `balance` minor units."""
    user = await make_user(databases, **overrides)
    wallet = await make_wallet(databases, user, currency=currency)
    if balance:
        await fund_wallet(databases, wallet, balance)
    return Account(user, await current(wallet))


async def make_funded_wallet(databases: Databases, balance: int = 10_000, **overrides: Any) -> Wallet:
    return (await make_account(databases, balance=balance, **overrides)).wallet


async def current(wallet: Wallet) -> Wallet:
    """The wallet as it stands now."""
    found = await wallet_repository.find_owned(wallet.id, wallet.user_id)
    assert found is not None
    return found


def bearer(user: User, settings: Settings) -> dict[str, str]:
    """The headers of somebody who has just logged in."""
    return {"Authorization": f"Bearer {issue_access_token(user, settings, utc_now())}"}


@contextmanager
def entries_of_any_time() -> Iterator[None]:
    """Inside, an entry keeps an id that was made long ago, as none does otherwise: for days that are over."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transaction, "ENTRY_ID_AGE", timedelta(days=10_000))
        yield


async def run(
    databases: Databases,
    *commands: Command,
    policy: Policy | None = None,
    is_bank_asked: bool = True,
    own: PortionCache | None = None,
) -> list[Decided]:
    """The commands as one batch, in one transaction, without a committer; by a process with these portions.

    What the bank says of an order comes after a worker has begun to ask it, unless the bank is not asked.
    Where somebody else has been first it begins anew, as the committer does.
    """
    said: list[Command] = []
    own = own or PortionCache("tests")
    duplicates = 0
    for command in commands:
        if is_bank_asked and isinstance(command, Settle | Fail | FlagForReview):
            said.append(asking_before(command))
        said.append(command)
    for is_last in (*[False] * _TIMES_SECOND, True):
        try:
            async with databases.client.start_session() as session:
                attempt = Attempt(after_duplicate=duplicates > 0)
                prepared = await prepare(session, said, policy or Policy(), own, attempt)
                await session.commit_transaction()
        except GuardMissed:
            own.forget()
            if is_last:
                raise
        except PyMongoError as error:
            own.forget()
            duplicates += is_duplicate(error)
            if is_last or not (is_duplicate(error) or error.has_error_label("TransientTransactionError")):
                raise
        else:
            own.remember(prepared.portions)
            break
    asked = {id(command) for command in commands}
    return [decided for command, decided in zip(said, prepared.decided, strict=True) if id(command) in asked]


async def change(databases: Databases, command: Command, *, is_bank_asked: bool = True) -> Operation:
    """`run` for one command that has to be accepted: the operation afterwards."""
    (decided,) = await run(databases, command, is_bank_asked=is_bank_asked)
    assert isinstance(decided.record, Operation), decided
    return decided.record


async def take_list_checkpoint(databases: Databases, settings: Settings) -> Checkpoint:
    """One of the first version, as releases took them before there were maps."""
    rows = await databases.wallet["wallets"].find(sort=[("_id", 1)]).to_list()
    leaves = [Leaf(row["_id"], int(row["seq"]), row["head_hash"]) for row in rows]
    tiles = [make_tile(leaves[at : at + TILE_LEAVES], LISTS) for at in range(0, len(leaves), TILE_LEAVES)]
    names = [TileName(tile.id, tile.leaves[0].wallet_id) for tile in tiles]
    before = await checkpoint_repository.find_latest()
    made = make_checkpoint(before, names, len(leaves), utc_now(), signing_key(settings), LISTS)
    await checkpoint_repository.insert_missing_tiles(tiles)
    assert await checkpoint_repository.insert(made, names)
    return made


async def fund_wallet(databases: Databases, wallet: Wallet, amount: int = 10_000) -> Operation:
    """A settled deposit, with its entry."""
    return await change(databases, settlement_of(await change(databases, deposit_of(wallet, amount))))


def deposit_of(wallet: Wallet, amount: int = 1_000, **overrides: Any) -> RequestDeposit:
    operation_id = new_id(Prefix.DEPOSIT)
    account = sealed_account(operation_id)
    return RequestDeposit(**({"operation_id": operation_id} | account | _order(wallet, amount) | overrides))


def withdrawal_of(wallet: Wallet, amount: int = 1_000, **overrides: Any) -> RequestWithdrawal:
    operation_id = new_id(Prefix.WITHDRAWAL)
    ids = {"operation_id": operation_id, "entry_id": new_id(Prefix.ENTRY)}
    return RequestWithdrawal(**(ids | sealed_account(operation_id) | _order(wallet, amount) | overrides))


def sealed_account(operation_id: str) -> dict[str, Any]:
    """An account at the bank as commands and records have it, under the key of development."""
    sealed = seal(_KEYS, "bank-account-0001", SealedField.ACCOUNT, operation_id)
    return {"account_sealed": sealed, "account_masked": "•••• 0001"}


def _order(wallet: Wallet, amount: int) -> dict[str, Any]:
    """With a key of its own."""
    now = utc_now()
    key = new_id(Prefix.TRANSACTION)
    return {
        "now": now,
        "transaction_id": new_id(Prefix.TRANSACTION),
        "claim": IdempotencyClaim(f"{wallet.user_id}:{key}", f"fingerprint of {key}", now + timedelta(days=1)),
        "user_id": wallet.user_id,
        "token_version": None,
        "amount": amount,
        "currency": wallet.currency,
        "category": None,
        "description": None,
        "metadata": {},
    }


def transfer_of(sender: Wallet, recipient: Wallet | None, amount: int = 1_000, **overrides: Any) -> RequestTransfer:
    """To the recipient's wallet; to nobody, unless the overrides say to whom, where there is none."""
    order = _order(sender, amount)
    fields = {
        "transfer_id": new_id(Prefix.TRANSFER),
        "wallet_id": sender.id,
        "to_wallet_id": None if recipient is None else recipient.id,
        "to_user_id": None,
        "out_entry_id": new_id(Prefix.ENTRY),
        "in_entry_id": new_id(Prefix.ENTRY),
    }
    return RequestTransfer(**(fields | order | overrides))


def batch_of(parts: Sequence[RequestTransfer], *, is_all_or_nothing: bool, **overrides: Any) -> TransferBatch:
    """The transfers under one key: what they had of their own is forgotten."""
    first = parts[0]
    fields: dict[str, Any] = {
        "now": first.now,
        "transaction_id": new_id(Prefix.TRANSACTION),
        "claim": first.claim,
        "batch_id": new_id(Prefix.TRANSFER_BATCH),
    }
    alone = [replace(part, claim=None) for part in parts]
    return TransferBatch(parts=alone, is_all_or_nothing=is_all_or_nothing, **(fields | overrides))


def challenge_until(expires_at: datetime, right: str = "right", tries_left: int = CODE_TRIES) -> Challenge:
    """`right` is the hash of the code that answers it."""
    return Challenge("0" * 32, right, expires_at, tries_left)


def confirmation_of(payment: Payment, **overrides: Any) -> ConfirmPayment:
    entries = {"out_entry_id": new_id(Prefix.ENTRY), "in_entry_id": new_id(Prefix.ENTRY)}
    code = {"code_hash": "right", "is_verified": False}
    return ConfirmPayment(**(_about_own(payment) | entries | code | overrides))


def cancellation_of(payment: Payment, **overrides: Any) -> CancelPayment:
    return CancelPayment(**(_about_own(payment) | overrides))


def lapse_of(payment: Payment, **overrides: Any) -> LapsePayment:
    return LapsePayment(**(_about_payment(payment) | overrides))


def _about_own(payment: Payment) -> dict[str, Any]:
    """By whoever asked for it, under a key of its own."""
    key = new_id(Prefix.TRANSACTION)
    now = utc_now()
    claim = IdempotencyClaim(f"{payment.user_id}:{key}", f"fingerprint of {key}", now + timedelta(days=1))
    return {**_about_payment(payment), "claim": claim, "user_id": payment.user_id, "token_version": None}


def _about_payment(payment: Payment) -> dict[str, Any]:
    return {
        "now": utc_now(),
        "transaction_id": new_id(Prefix.TRANSACTION),
        "payment_id": payment.id,
        "wallet_id": payment.wallet_id,
        "to_wallet_id": payment.to_wallet_id if isinstance(payment, Transfer) else None,
        "release_entry_id": new_id(Prefix.ENTRY),
    }


def asking_of(operation: Operation) -> NoteAttempt:
    """A worker is about to submit it: from here on the bank may know of it."""
    return change_of(NoteAttempt, operation)


def settlement_of(operation: Operation, **overrides: Any) -> Settle:
    """The bank has paid."""
    said = {"amount": operation.amount, "currency": operation.currency, "bank_reference": "bnk_test"}
    return Settle(**(_about(operation) | said | overrides))


def failure_of(operation: Operation, **overrides: Any) -> Fail:
    """The bank has declined."""
    said = {
        "amount": operation.amount,
        "currency": operation.currency,
        "bank_reference": "bnk_test",
        "failure_code": "declined",
        "failure_message": "Declined",
    }
    return Fail(**(_about(operation) | said | overrides))


def change_of(kind: type[_Change], operation: Operation, **overrides: Any) -> _Change:
    """A command about an operation that needs no entry."""
    about = _about(operation)
    del about["entry_id"]
    return kind(**(about | overrides))


def _about(operation: Operation) -> dict[str, Any]:
    return {
        "now": utc_now(),
        "transaction_id": new_id(Prefix.TRANSACTION),
        "entry_id": new_id(Prefix.ENTRY),
        "operation_id": operation.id,
        "wallet_id": operation.wallet_id,
    }


def release_of(operation: Operation, admin: User, *, is_forced: bool = False, **overrides: Any) -> ReleaseWithdrawal:
    """By an admin; without a key."""
    return ReleaseWithdrawal(**(_decided_by(operation, admin) | {"is_forced": is_forced} | overrides))


def blocked_cancellation_of(operation: Operation, admin: User, **overrides: Any) -> CancelWithdrawal:
    return CancelWithdrawal(**(_decided_by(operation, admin) | {"entry_id": new_id(Prefix.ENTRY)} | overrides))


def _decided_by(operation: Operation, admin: User) -> dict[str, Any]:
    about = _about(operation)
    del about["entry_id"]
    by = {"user_id": admin.id, "token_version": None, "audit_event_id": new_id(Prefix.AUDIT_EVENT)}
    return about | by | {"reason": "Looked into"}


async def freeze(databases: Databases, wallet: Wallet, admin: User, direction: Freeze = Freeze.OUT) -> None:
    """By an admin."""
    (decided,) = await run(databases, FreezeWallet(**_on_wallet(wallet, admin), freeze=direction))
    assert decided.error is None, decided


async def unfreeze(databases: Databases, wallet: Wallet, admin: User) -> None:
    """By an admin."""
    (decided,) = await run(databases, UnfreezeWallet(**_on_wallet(wallet, admin)))
    assert decided.error is None, decided


def _on_wallet(wallet: Wallet, admin: User) -> dict[str, Any]:
    fields: dict[str, Any] = {"now": utc_now(), "transaction_id": new_id(Prefix.TRANSACTION), "wallet_id": wallet.id}
    by = {"user_id": admin.id, "token_version": None, "audit_event_id": new_id(Prefix.AUDIT_EVENT)}
    return fields | by | {"reason": "Fraud?"}


async def book(
    databases: Databases, wallet: Wallet, entry_type: EntryType, amount: int, counterparty: str, **overrides: Any
) -> Wallet:
    """One entry past the ledger, and the wallet as it leaves it. With `at` its id is made then too."""
    at = overrides.get("at", utc_now())
    fields: dict[str, Any] = {
        "status": "success",
        "reference": new_id(Prefix.TRANSFER),
        "transaction_id": new_id(Prefix.TRANSACTION),
        "entry_id": first_id_at(Prefix.ENTRY, at) + uuid4().hex[12:],
        "at": at,
    }
    movement = Movement(wallet.id, entry_type, amount, counterparty=counterparty, **(fields | overrides))
    before = await current(wallet)
    after, entry = apply_movement(before, movement)
    async with session_in_transaction(databases.client) as session:
        assert await wallet_repository.update_guarded([(before, after)], session=session)
        await log_repository.insert_many([entry], session=session)
    return after


def build_quote(user_id: str, **overrides: Any) -> Quote:
    """Open for half a minute, and not in the database yet: 100.00 INR bring 1.20 USD."""
    now = utc_now()
    fields: dict[str, Any] = {
        "id": new_id(Prefix.QUOTE),
        "user_id": user_id,
        "from_currency": "INR",
        "to_currency": "USD",
        "amount": 10_000,
        "to_amount": 120,
        "rate": Rate(12, 1_000, "table", now),
        "margin_bp": 0,
        "status": QuoteStatus.OPEN,
        "conversion_id": None,
        "request_id": None,
        "expires_at": now + timedelta(seconds=30),
        "created_at": now,
        "updated_at": now,
    }
    return Quote(**(fields | overrides))


async def make_quote(databases: Databases, user: User, **overrides: Any) -> Quote:
    quote = build_quote(user.id, **overrides)
    async with session_in_transaction(databases.client) as session:
        await record_repository.insert_many([quote], session=session)
    return quote


def conversion_of(quote: Quote, **overrides: Any) -> ConvertMoney:
    """With a key of its own."""
    now = utc_now()
    key = new_id(Prefix.TRANSACTION)
    fields: dict[str, Any] = {
        "now": now,
        "transaction_id": new_id(Prefix.TRANSACTION),
        "claim": IdempotencyClaim(f"{quote.user_id}:{key}", f"fingerprint of {key}", now + timedelta(days=1)),
        "user_id": quote.user_id,
        "token_version": None,
        "conversion_id": new_id(Prefix.CONVERSION),
        "quote_id": quote.id,
        "currencies": (quote.from_currency, quote.to_currency),
        "category": None,
        "description": None,
        "metadata": {},
        "out_entry_id": new_id(Prefix.ENTRY),
        "in_entry_id": new_id(Prefix.ENTRY),
    }
    return ConvertMoney(**(fields | overrides))


def earning_of(operation: Settled, **overrides: Any) -> EarnPoints:
    """A worker has found the operation's row in the outbox."""
    fields: dict[str, Any] = {
        "now": utc_now(),
        "transaction_id": new_id(Prefix.TRANSACTION),
        "operation_id": operation.id,
        "user_id": operation.user_id,
        "entry_id": new_id(Prefix.ENTRY),
    }
    return EarnPoints(**(fields | overrides))


def gift_of(wallet: Wallet, amount: int, giver_id: str) -> RequestAdjustment:
    """From the house, by hand: earned ones want a deposit, and that wants a bank that has paid it."""
    return RequestAdjustment(
        now=utc_now(),
        transaction_id=new_id(Prefix.TRANSACTION),
        user_id=giver_id,
        token_version=None,
        audit_event_id=new_id(Prefix.AUDIT_EVENT),
        reason="A test needs them",
        adjustment_id=new_id(Prefix.ADJUSTMENT),
        entry_id=new_id(Prefix.ENTRY),
        type=AdjustmentType.CREDIT,
        wallet_id=wallet.id,
        amount=amount,
        currency=wallet.currency,
        category=None,
        description=None,
        metadata={},
        is_admin=False,
    )


def _saving(wallet: Wallet, points: int) -> tuple[Command, ...]:
    """Asked for, settled, and its points credited."""
    deposit = deposit_of(wallet, points)
    about: dict[str, Any] = {"now": utc_now(), "operation_id": deposit.operation_id}
    settlement = Settle(
        **about,
        transaction_id=new_id(Prefix.TRANSACTION),
        entry_id=new_id(Prefix.ENTRY),
        wallet_id=wallet.id,
        amount=points,
        currency=wallet.currency,
        bank_reference="bnk_test",
    )
    earning = EarnPoints(
        **about,
        transaction_id=new_id(Prefix.TRANSACTION),
        entry_id=new_id(Prefix.ENTRY),
        user_id=wallet.user_id,
    )
    return deposit, settlement, earning


async def make_savers(databases: Databases, count: int, points: int, *, are_gifts: bool = False) -> list[Account]:
    """Many users at once, each with an INR wallet and so many points, earned by a deposit. `wallet` is for points."""
    names = {make_email(): ("Asha", "Rao") for _ in range(count)}
    ids = await ensure_users(databases.client, names, _hash_of(PASSWORD), "INR")
    await ensure_users(databases.client, names, _hash_of(PASSWORD), POINTS)
    async with session_in_transaction(databases.client) as session:
        owners = [(user_id, currency) for user_id in ids for currency in ("INR", POINTS)]
        found = (await wallet_repository.find_named([], owners, session=session)).values()
    if points and are_gifts:
        giver = await make_user(databases, roles=["service"])
        await run(databases, *(gift_of(wallet, points, giver.id) for wallet in found if wallet.currency == POINTS))
    elif points:
        # In one transaction, so that nothing is ever in the outbox, where a worker of the stack would take it.
        wallets = [wallet for wallet in found if wallet.currency == "INR"]
        await run(databases, *(step for wallet in wallets for step in _saving(wallet, points)), policy=GENEROUS)
    savers = []
    for wallet in found:
        user = await user_repository.find(wallet.user_id)
        if user is not None and wallet.currency == POINTS:
            savers.append(Account(user, await current(wallet)))
    return savers


async def make_saver(databases: Databases, points: int = 0) -> Account:
    (saver,) = await make_savers(databases, 1, points)
    return saver


async def make_voucher(databases: Databases, **overrides: Any) -> Voucher:
    """Of 100 points, 10 in stock, redeemable by anybody at any time."""
    now = utc_now()
    fields: dict[str, Any] = {
        "id": new_id(Prefix.VOUCHER),
        "title": "A cup of coffee",
        "description": None,
        "cost": 100,
        "stock": 10,
        "per_user_limit": None,
        "valid_from": None,
        "valid_until": None,
        "is_active": True,
        "created_at": now,
        "updated_at": now,
    }
    fields |= overrides
    voucher = Voucher(**({"stocked_total": fields["stock"]} | fields))
    async with session_in_transaction(databases.client) as session:
        await record_repository.insert_many([voucher], session=session)
    return voucher


async def make_break(**overrides: Any) -> Break:
    """Open: the bank has paid what nobody here knows."""
    now = utc_now()
    fields: dict[str, Any] = {
        "id": new_id(Prefix.BREAK),
        "kind": BreakKind.MISSING_HERE,
        "subject": new_id(Prefix.WITHDRAWAL),
        "wallet_id": None,
        "operation_id": None,
        "day": "2026-11-20",
        "expected": {"operation": None},
        "found": {"lines": 1, "amount": 1_000, "currency": "INR", "flow": "payout"},
        "state": BreakState.OPEN,
        "first_seen": now,
        "last_seen": now,
        "times_seen": 1,
    }
    one = Break(**(fields | overrides))
    assert await break_repository.insert_once(one)
    return one


def redemption_of(saver: Account, voucher: Voucher, **overrides: Any) -> RedeemVoucher:
    """With a key of its own."""
    redemption_id = new_id(Prefix.REDEMPTION)
    now = utc_now()
    key = new_id(Prefix.TRANSACTION)
    fields: dict[str, Any] = {
        "now": now,
        "transaction_id": new_id(Prefix.TRANSACTION),
        "claim": IdempotencyClaim(f"{saver.user.id}:{key}", f"fingerprint of {key}", now + timedelta(days=1)),
        "user_id": saver.user.id,
        "token_version": None,
        "voucher_id": voucher.id,
        "redemption_id": redemption_id,
        "entry_id": new_id(Prefix.ENTRY),
        "code_sealed": seal(_KEYS, f"CODE-{key}", SealedField.VOUCHER_CODE, redemption_id),
    }
    return RedeemVoucher(**(fields | overrides))


async def make_dead_letter(
    databases: Databases,
    subject_id: str,
    topic: OutboxTopic = OutboxTopic.PASSWORD_NOTICE,
    *,
    error_type: str = "RuntimeError",
) -> DeadLetter:
    """Of the subject's row in the outbox, which is put there where it is not."""
    row = outbox_row(topic, subject_id, "a-request", utc_now())
    if await databases.wallet["outbox"].find_one({"_id": row.id}) is None:
        await outbox_repository.insert_many([row], session=None)
    reason = Reason(error_type, "in a test")
    letter = await bury(Queue.OUTBOX, Claimed(row.id, 0), reason, 12, databases.client)
    assert letter is not None
    return letter
