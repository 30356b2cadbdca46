"""Beanie documents: shape, indexes and validator of each collection."""

from service.documents.account_sums import AccountSumsDocument
from service.documents.bank_callbacks import BankCallback
from service.documents.bank_orders import BankOrder
from service.documents.idempotency_keys import IdempotencyKey
from service.documents.operations import Deposit, TransferDocument, Withdrawal
from service.documents.outbox import OutboxDocument
from service.documents.rewards import RewardDocument
from service.documents.totp_enrolments import TotpEnrolment
from service.documents.transaction_logs import TransactionLog
from service.documents.users import User
from service.documents.vouchers import RedemptionDocument, VoucherDocument, VoucherUseDocument
from service.documents.wallets import WalletDocument

__all__ = [
    "BANK_DOCUMENTS",
    "WALLET_DOCUMENTS",
    "AccountSumsDocument",
    "BankCallback",
    "BankOrder",
    "Deposit",
    "IdempotencyKey",
    "OutboxDocument",
    "RedemptionDocument",
    "RewardDocument",
    "TotpEnrolment",
    "TransactionLog",
    "TransferDocument",
    "User",
    "VoucherDocument",
    "VoucherUseDocument",
    "WalletDocument",
    "Withdrawal",
]

WALLET_DOCUMENTS = [
    User,
    WalletDocument,
    Deposit,
    Withdrawal,
    TransferDocument,
    TransactionLog,
    IdempotencyKey,
    OutboxDocument,
    BankCallback,
    AccountSumsDocument,
    TotpEnrolment,
    RewardDocument,
    VoucherDocument,
    VoucherUseDocument,
    RedemptionDocument,
]
BANK_DOCUMENTS = [BankOrder]
