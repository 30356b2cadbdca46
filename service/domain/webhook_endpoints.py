"""Webhook endpoints: where a user wants to be told of events, and the secret that says it is us who tell."""

from base64 import b64encode
from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

from service.domain.clock import to_rfc3339
from service.domain.sealed import Sealed

# What Standard Webhooks 1.0.0 names: between 24 and 64 bytes, in base64 behind its mark.
SECRET_BYTES = 32
SECRET_MARK = "whsec_"  # noqa: S105 a mark
USUAL_OVERLAP = timedelta(days=1)
LONGEST_OVERLAP = timedelta(days=7)


class EndpointStatus(StrEnum):
    ACTIVE = "active"
    DISABLED = "disabled"


class DisabledReason(StrEnum):
    """`gone`: it answered 410. `failing`: one delivery was tried to the end, and nothing else arrived meanwhile.
    `locked_down`: an admin locked its owner down.
    """

    BY_OWNER = "by_owner"
    GONE = "gone"
    FAILING = "failing"
    LOCKED_DOWN = "locked_down"


class WebhookEndpoint(NamedTuple):
    """`event_types` None means all. After a rotation the secret before signs too until `previous_secret_until`.

    `slot` is which of the user's few places it takes, None once it is deleted; `tried_from` since when it is tried as
    it stands: what was before an owner's change counts no longer.
    """

    id: str
    user_id: str
    slot: int | None
    url: str
    event_types: Sequence[str] | None
    description: str | None
    status: EndpointStatus
    secret_sealed: Sealed | None
    created_at: datetime
    updated_at: datetime
    tried_from: datetime
    disabled_reason: DisabledReason | None = None
    disabled_at: datetime | None = None
    previous_secret_sealed: Sealed | None = None
    previous_secret_until: datetime | None = None
    last_delivered_at: datetime | None = None
    expires_at: datetime | None = None
    version: int = 0

    def takes(self, event_type: str) -> bool:
        return self.event_types is None or event_type in self.event_types

    def has_taken_nothing_since(self, moment: datetime) -> bool:
        return self.tried_from <= moment and (self.last_delivered_at is None or self.last_delivered_at < moment)

    def sealed_secrets(self, now: datetime) -> list[Sealed]:
        """Returns those that sign now, the current one first."""
        secrets = [] if self.secret_sealed is None else [self.secret_sealed]
        if (
            self.previous_secret_sealed is not None
            and self.previous_secret_until is not None
            and now < self.previous_secret_until
        ):
            secrets.append(self.previous_secret_sealed)
        return secrets


def secret_text(secret: bytes) -> str:
    return SECRET_MARK + b64encode(secret).decode()


def rotated(endpoint: WebhookEndpoint, secret: Sealed, overlap: timedelta, now: datetime) -> WebhookEndpoint:
    """With another secret. Of several before it, only the last may overlap."""
    return _changed(
        endpoint,
        now,
        secret_sealed=secret,
        previous_secret_sealed=endpoint.secret_sealed if overlap else None,
        previous_secret_until=now + overlap if overlap else None,
    )


def disabled(endpoint: WebhookEndpoint, reason: DisabledReason, now: datetime) -> WebhookEndpoint:
    return _changed(endpoint, now, status=EndpointStatus.DISABLED, disabled_reason=reason, disabled_at=now)


def enabled(endpoint: WebhookEndpoint, now: datetime) -> WebhookEndpoint:
    return _changed(endpoint, now, status=EndpointStatus.ACTIVE, disabled_reason=None, disabled_at=None, tried_from=now)


def changed(endpoint: WebhookEndpoint, changes: dict[str, Any], now: datetime) -> WebhookEndpoint:
    """`changes` of url, event_types and description. Another URL is tried anew."""
    return _changed(endpoint, now, **changes, **({"tried_from": now} if "url" in changes else {}))


def deleted(endpoint: WebhookEndpoint, expires_at: datetime, now: datetime) -> WebhookEndpoint:
    """Its place is free and its secrets are gone; the rest stays as long as what was sent to it."""
    return _changed(
        endpoint,
        now,
        slot=None,
        status=EndpointStatus.DISABLED,
        disabled_reason=DisabledReason.BY_OWNER,
        disabled_at=now,
        secret_sealed=None,
        previous_secret_sealed=None,
        previous_secret_until=None,
        expires_at=expires_at,
    )


def _changed(endpoint: WebhookEndpoint, now: datetime, **changes: Any) -> WebhookEndpoint:  # noqa: ANN401 any field
    return endpoint._replace(**changes, updated_at=now, version=endpoint.version + 1)


def webhook_endpoint_view(endpoint: WebhookEndpoint) -> dict[str, Any]:
    """As its owner sees it: without secrets."""
    return {
        "id": endpoint.id,
        "url": endpoint.url,
        "event_types": None if endpoint.event_types is None else list(endpoint.event_types),
        "description": endpoint.description,
        "status": endpoint.status,
        "disabled_reason": endpoint.disabled_reason,
        "disabled_at": _shown(endpoint.disabled_at),
        "previous_secret_until": _shown(endpoint.previous_secret_until),
        "last_delivered_at": _shown(endpoint.last_delivered_at),
        "created_at": to_rfc3339(endpoint.created_at),
        "updated_at": to_rfc3339(endpoint.updated_at),
    }


def _shown(moment: datetime | None) -> str | None:
    return None if moment is None else to_rfc3339(moment)
