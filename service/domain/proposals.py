"""Access proposals: what gives somebody more access, asked for by one admin and confirmed by another."""

from collections.abc import Collection
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from service.domain.clock import to_rfc3339


class ProposalKind(StrEnum):
    ROLES = "roles"
    API_KEY = "api_key"
    API_KEY_ROTATION = "api_key_rotation"
    TOTP_REMOVAL = "totp_removal"


class ProposalStatus(StrEnum):
    """Named as the statuses of adjustments."""

    REQUIRES_APPROVAL = "requires_approval"
    SUCCESS = "success"
    REJECTED = "rejected"


class AccessProposal(NamedTuple):
    """`user_id` is whose access changes. `roles` and `was_roles` belong to kind `roles`, `api_key_id` and what follows
    it to the kinds about keys. `secret_hash` and `overlap_s` are those of a rotation.
    """

    id: str
    kind: ProposalKind
    user_id: str
    reason: str | None
    requested_by: str
    request_id: str | None
    created_at: datetime
    updated_at: datetime
    status: ProposalStatus = ProposalStatus.REQUIRES_APPROVAL
    roles: tuple[str, ...] = ()
    was_roles: tuple[str, ...] = ()
    api_key_id: str | None = None
    permissions: tuple[str, ...] = ()
    secret_hash: str | None = None
    overlap_s: int = 0
    decided_by: str | None = None
    decided_at: datetime | None = None
    rejection_reason: str | None = None
    version: int = 0
    capture_to: tuple[str, ...] = ()

    def repeats(self, other: "AccessProposal") -> bool:
        """Tells whether `other` asks for the same, so that a request that is sent again makes no second proposal."""
        return (self.kind, self.user_id, self.requested_by, self.roles, self.was_roles) == (
            other.kind,
            other.user_id,
            other.requested_by,
            other.roles,
            other.was_roles,
        )


def are_independent(requester_origins: Collection[str], approver_origins: Collection[str]) -> bool:
    """Four eyes need two people. Each collection holds an admin, whoever gave them a role, and so on.

    Whoever gave somebody a role may have made the account, so nobody approves what comes from an admin who goes back to
    the same person. Two who made a third admin together stay independent of each other.
    """
    return set(requester_origins).isdisjoint(approver_origins)


def proposal_view(proposal: AccessProposal) -> dict[str, Any]:
    """Returns the proposal as admins see it: without the hash of a secret."""
    decided_at = proposal.decided_at
    return {
        "id": proposal.id,
        "kind": proposal.kind,
        "status": proposal.status,
        "user_id": proposal.user_id,
        "roles": list(proposal.roles),
        "was_roles": list(proposal.was_roles),
        "api_key_id": proposal.api_key_id,
        "permissions": list(proposal.permissions),
        "capture_to": list(proposal.capture_to),
        "reason": proposal.reason,
        "requested_by": proposal.requested_by,
        "decided_by": proposal.decided_by,
        "decided_at": None if decided_at is None else to_rfc3339(decided_at),
        "rejection_reason": proposal.rejection_reason,
        "created_at": to_rfc3339(proposal.created_at),
        "updated_at": to_rfc3339(proposal.updated_at),
    }
