"""Beanie documents: shape, indexes and validator of each collection."""

from service.documents.account_sums import AccountSumsDocument
from service.documents.adjustments import AdjustmentDocument
from service.documents.api_keys import ApiKeyDocument
from service.documents.audit_events import AuditEventDocument
from service.documents.bank_callbacks import BankCallback
from service.documents.bank_orders import BankOrder
from service.documents.checkpoints import CheckpointDocument, CheckpointTile
from service.documents.conversions import ConversionDocument
from service.documents.dead_letters import DeadLetterDocument
from service.documents.holds import HoldDocument
from service.documents.idempotency_keys import IdempotencyKey
from service.documents.operations import Deposit, TransferDocument, Withdrawal
from service.documents.outbox import OutboxDocument
from service.documents.password_resets import PasswordReset
from service.documents.quotes import QuoteDocument
from service.documents.reversals import ReversalDocument
from service.documents.rewards import RewardDocument
from service.documents.sessions import SessionDocument
from service.documents.totp_enrolments import TotpEnrolment
from service.documents.transaction_logs import TransactionLog
from service.documents.users import User
from service.documents.vouchers import RedemptionDocument, VoucherDocument, VoucherUseDocument
from service.documents.wallets import WalletDocument
from service.documents.workers import WorkerDocument

__all__ = [
    "BANK_DOCUMENTS",
    "WALLET_DOCUMENTS",
    "AccountSumsDocument",
    "AdjustmentDocument",
    "ApiKeyDocument",
    "AuditEventDocument",
    "BankCallback",
    "BankOrder",
    "CheckpointDocument",
    "CheckpointTile",
    "ConversionDocument",
    "DeadLetterDocument",
    "Deposit",
    "HoldDocument",
    "IdempotencyKey",
    "OutboxDocument",
    "PasswordReset",
    "QuoteDocument",
    "RedemptionDocument",
    "ReversalDocument",
    "RewardDocument",
    "SessionDocument",
    "TotpEnrolment",
    "TransactionLog",
    "TransferDocument",
    "User",
    "VoucherDocument",
    "VoucherUseDocument",
    "WalletDocument",
    "Withdrawal",
    "WorkerDocument",
]

WALLET_DOCUMENTS = [
    User,
    ApiKeyDocument,
    WalletDocument,
    Deposit,
    Withdrawal,
    TransferDocument,
    QuoteDocument,
    ConversionDocument,
    HoldDocument,
    TransactionLog,
    IdempotencyKey,
    OutboxDocument,
    BankCallback,
    AccountSumsDocument,
    TotpEnrolment,
    CheckpointDocument,
    CheckpointTile,
    AuditEventDocument,
    AdjustmentDocument,
    ReversalDocument,
    RewardDocument,
    VoucherDocument,
    VoucherUseDocument,
    RedemptionDocument,
    SessionDocument,
    PasswordReset,
    DeadLetterDocument,
    WorkerDocument,
]
BANK_DOCUMENTS = [BankOrder]
