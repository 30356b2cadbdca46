"""Beanie documents: shape, indexes and validator of each collection."""

from service.documents.adjustments import AdjustmentDocument
from service.documents.audit_events import AuditEventDocument
from service.documents.bank_callbacks import BankCallback
from service.documents.bank_orders import BankOrder
from service.documents.idempotency_keys import IdempotencyKey
from service.documents.operations import Deposit, TransferDocument, Withdrawal
from service.documents.outbox import OutboxDocument
from service.documents.reversals import ReversalDocument
from service.documents.transaction_logs import TransactionLog
from service.documents.users import User
from service.documents.wallets import WalletDocument

__all__ = [
    "BANK_DOCUMENTS",
    "WALLET_DOCUMENTS",
    "AdjustmentDocument",
    "AuditEventDocument",
    "BankCallback",
    "BankOrder",
    "Deposit",
    "IdempotencyKey",
    "OutboxDocument",
    "ReversalDocument",
    "TransactionLog",
    "TransferDocument",
    "User",
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
    AuditEventDocument,
    AdjustmentDocument,
    ReversalDocument,
]
BANK_DOCUMENTS = [BankOrder]
