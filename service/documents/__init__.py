"""Beanie documents: shape, indexes and validator of each collection."""

from service.documents.account_corrections import AccountCorrection
from service.documents.account_sums import AccountSumsDocument
from service.documents.adjustments import AdjustmentDocument
from service.documents.api_keys import ApiKeyDocument
from service.documents.audit_events import AuditEventDocument
from service.documents.bank_callbacks import BankCallback
from service.documents.bank_conditions import BankConditions
from service.documents.bank_orders import BankOrder
from service.documents.breaks import BreakDocument
from service.documents.checkpoints import CheckpointDocument, CheckpointTile, RefusedCheckpoint
from service.documents.conversions import ConversionDocument
from service.documents.day_sums import DaySumDocument
from service.documents.dead_letters import DeadLetterDocument
from service.documents.duties import DutyDocument
from service.documents.events import EventDocument
from service.documents.holds import HoldDocument
from service.documents.house_positions import HousePosition
from service.documents.idempotency_keys import IdempotencyKey
from service.documents.incidents import IncidentDocument
from service.documents.ledger_processes import LedgerProcessDocument
from service.documents.operations import Deposit, TransferDocument, Withdrawal
from service.documents.outbox import OutboxDocument
from service.documents.password_resets import PasswordReset
from service.documents.proposals import AccessProposalDocument
from service.documents.quotes import QuoteDocument
from service.documents.reconciliations import ReconciliationDocument, SetAsideLineDocument, StatementLineDocument
from service.documents.registrations import RegistrationDocument
from service.documents.returns import ReturnDocument
from service.documents.reversals import ReversalDocument
from service.documents.rewards import RewardDocument
from service.documents.server_clock import ServerClockDocument
from service.documents.sessions import SessionDocument
from service.documents.totp_enrolments import TotpEnrolment
from service.documents.transaction_logs import TransactionLog
from service.documents.used_tickets import UsedTicket
from service.documents.user_limits import UserLimitsDocument
from service.documents.users import User
from service.documents.vouchers import RedemptionDocument, VoucherDocument, VoucherUseDocument
from service.documents.wallet_checks import WalletCheckDocument
from service.documents.wallets import WalletDocument
from service.documents.webhooks import WebhookDeliveryDocument, WebhookEndpointDocument
from service.documents.workers import WorkerDocument

__all__ = [
    "BANK_DOCUMENTS",
    "WALLET_DOCUMENTS",
    "AccessProposalDocument",
    "AccountCorrection",
    "AccountSumsDocument",
    "AdjustmentDocument",
    "ApiKeyDocument",
    "AuditEventDocument",
    "BankCallback",
    "BankConditions",
    "BankOrder",
    "BreakDocument",
    "CheckpointDocument",
    "CheckpointTile",
    "ConversionDocument",
    "DaySumDocument",
    "DeadLetterDocument",
    "Deposit",
    "DutyDocument",
    "EventDocument",
    "HoldDocument",
    "HousePosition",
    "IdempotencyKey",
    "IncidentDocument",
    "LedgerProcessDocument",
    "OutboxDocument",
    "PasswordReset",
    "QuoteDocument",
    "ReconciliationDocument",
    "RedemptionDocument",
    "RefusedCheckpoint",
    "RegistrationDocument",
    "ReturnDocument",
    "ReversalDocument",
    "RewardDocument",
    "ServerClockDocument",
    "SessionDocument",
    "SetAsideLineDocument",
    "StatementLineDocument",
    "TotpEnrolment",
    "TransactionLog",
    "TransferDocument",
    "UsedTicket",
    "User",
    "UserLimitsDocument",
    "VoucherDocument",
    "VoucherUseDocument",
    "WalletCheckDocument",
    "WalletDocument",
    "WebhookDeliveryDocument",
    "WebhookEndpointDocument",
    "Withdrawal",
    "WorkerDocument",
]

WALLET_DOCUMENTS = [
    User,
    ApiKeyDocument,
    AccessProposalDocument,
    WalletDocument,
    UserLimitsDocument,
    DaySumDocument,
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
    AccountCorrection,
    TotpEnrolment,
    CheckpointDocument,
    CheckpointTile,
    RefusedCheckpoint,
    AuditEventDocument,
    AdjustmentDocument,
    ReversalDocument,
    RewardDocument,
    VoucherDocument,
    VoucherUseDocument,
    RedemptionDocument,
    SessionDocument,
    PasswordReset,
    RegistrationDocument,
    DeadLetterDocument,
    LedgerProcessDocument,
    HousePosition,
    WorkerDocument,
    ReturnDocument,
    IncidentDocument,
    EventDocument,
    UsedTicket,
    WebhookEndpointDocument,
    WebhookDeliveryDocument,
    DutyDocument,
    ServerClockDocument,
    WalletCheckDocument,
    BreakDocument,
    StatementLineDocument,
    SetAsideLineDocument,
    ReconciliationDocument,
]
BANK_DOCUMENTS = [BankOrder, BankConditions]
