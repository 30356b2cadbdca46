"""Audit events: what admins and services did, to what and why; written in the transaction of the deed itself."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from service.domain.clock import to_rfc3339


class AuditAction(StrEnum):
    WALLET_FROZEN = "wallet.frozen"
    WALLET_UNFROZEN = "wallet.unfrozen"
    WALLET_CLOSED = "wallet.closed"
    WALLET_REOPENED = "wallet.reopened"
    ADJUSTMENT_REQUESTED = "adjustment.requested"
    ADJUSTMENT_APPROVED = "adjustment.approved"
    ADJUSTMENT_REJECTED = "adjustment.rejected"
    ADJUSTMENT_REVERSED = "adjustment.reversed"
    TRANSFER_REVERSED = "transfer.reversed"
    HOLD_CAPTURED = "hold.captured"
    HOLD_RELEASED = "hold.released"
    VOUCHER_CREATED = "voucher.created"
    VOUCHER_CHANGED = "voucher.changed"
    INCIDENT_OPENED = "incident.opened"
    INCIDENT_EXPLAINED = "incident.explained"
    INCIDENT_RESOLVED = "incident.resolved"
    REVIEW_PROPOSED = "review.proposed"
    REVIEW_SETTLED = "review.settled"
    REVIEW_FAILED = "review.failed"
    REVIEW_ASKED_AGAIN = "review.asked_again"
    WITHDRAWAL_RELEASED = "withdrawal.released"
    WITHDRAWAL_CANCELED = "withdrawal.canceled"
    RETURN_COLLECTED = "return.collected"
    LIMITS_SET = "limits.set"
    LIMITS_RESET = "limits.reset"
    USER_LIMITS_SET = "user.limits_set"
    USER_LIMITS_RESET = "user.limits_reset"
    PROPOSAL_REQUESTED = "proposal.requested"
    PROPOSAL_APPROVED = "proposal.approved"
    PROPOSAL_REJECTED = "proposal.rejected"
    API_KEY_CREATED = "api_key.created"
    API_KEY_ROTATED = "api_key.rotated"
    API_KEY_REVOKED = "api_key.revoked"
    DEAD_LETTER_REPLAYED = "dead_letter.replayed"
    DEAD_LETTER_DISCARDED = "dead_letter.discarded"
    WEBHOOK_ENDPOINT_CREATED = "webhook_endpoint.created"
    WEBHOOK_ENDPOINT_CHANGED = "webhook_endpoint.changed"
    WEBHOOK_ENDPOINT_ENABLED = "webhook_endpoint.enabled"
    WEBHOOK_ENDPOINT_DISABLED = "webhook_endpoint.disabled"
    WEBHOOK_ENDPOINT_DELETED = "webhook_endpoint.deleted"
    WEBHOOK_SECRET_ROTATED = "webhook_endpoint.secret_rotated"  # noqa: S105 a name
    BREAK_EXPLAINED = "break.explained"
    BREAK_RESOLVED = "break.resolved"
    CHECKPOINT_TAKEN = "checkpoint.taken"
    HOUSE_FLOOR_CHANGED = "house_floor.changed"
    HOUSE_POSITION_CORRECTED = "house_position.corrected"
    USER_DEACTIVATED = "user.deactivated"
    USER_REACTIVATED = "user.reactivated"
    USER_LOCKED_DOWN = "user.locked_down"
    USER_LOCKDOWN_LIFT_PROPOSED = "user.lockdown_lift_proposed"
    USER_LOCKDOWN_LIFT_APPROVED = "user.lockdown_lift_approved"
    USER_LOCKDOWN_LIFTED = "user.lockdown_lifted"
    USER_ROLES_CHANGED = "user.roles_changed"
    ADMIN_APPOINTED = "admin.appointed"
    USER_EMAIL_VERIFIED = "user.email_verified"
    USER_TIME_ZONE_SET = "user.time_zone_set"
    USER_LOGGED_IN = "user.logged_in"
    USER_LOGIN_REFUSED = "user.login_refused"
    USER_LOGGED_OUT = "user.logged_out"
    USER_LOGGED_OUT_EVERYWHERE = "user.logged_out_everywhere"
    SESSION_REVOKED_BY_REUSE = "session.revoked_by_reuse"
    USER_PASSWORD_CHANGED = "user.password_changed"  # noqa: S105 a name
    USER_PASSWORD_RESET_REQUESTED = "user.password_reset_requested"  # noqa: S105 a name
    USER_PASSWORD_RESET = "user.password_reset"  # noqa: S105 a name
    TOTP_ENROLLED = "totp.enrolled"
    TOTP_ACTIVATED = "totp.activated"
    TOTP_RECOVERY_CODE_USED = "totp.recovery_code_used"
    TOTP_RECOVERY_CODES_RENEWED = "totp.recovery_codes_renewed"
    TOTP_REMOVED = "totp.removed"


class AuditEvent(NamedTuple):
    """`actor_id` did `action` to `subject_id`. `details` are flat: texts, numbers, yes or no."""

    id: str
    at: datetime
    actor_id: str
    action: AuditAction
    subject_id: str
    reason: str | None
    details: Mapping[str, str | int | bool | None]
    request_id: str | None


def audit_event_view(event: AuditEvent) -> dict[str, Any]:
    """Returns the event as the API shows it."""
    return event._asdict() | {"at": to_rfc3339(event.at)}
