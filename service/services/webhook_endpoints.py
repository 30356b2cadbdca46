"""Webhook endpoints: what their owners do with them, and what becomes of one that answers no more."""

import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import structlog
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import DuplicateKeyError

from service.database import Client, run_in_transaction
from service.domain.audit_events import AuditAction, AuditEvent
from service.domain.clock import utc_now
from service.domain.identifiers import Prefix, new_id
from service.domain.outbox import OutboxRow, OutboxTopic, outbox_id, outbox_row
from service.domain.sealed import SealedField
from service.domain.webhook_endpoints import (
    SECRET_BYTES,
    DisabledReason,
    EndpointStatus,
    WebhookEndpoint,
    changed,
    deleted,
    disabled,
    enabled,
    rotated,
    secret_text,
)
from service.domain.webhook_urls import WebhookUrlInvalid, read_webhook_url
from service.errors import FieldError, InvalidFields, NotFound, TooManyWebhookEndpoints, Unavailable
from service.gateways.mailbox import Mail, Mailbox
from service.gateways.webhook_addresses import WebhookAddresses, WebhookUnanswered
from service.repositories import audit_events as audit_repository
from service.repositories import outbox as outbox_repository
from service.repositories import users as user_repository
from service.repositories import webhook_deliveries as delivery_repository
from service.repositories import webhook_endpoints as endpoint_repository
from service.services.audit_events import new_audit_event
from service.services.sealing import seal
from service.settings import Settings

log = structlog.get_logger()

# Of two requests at once that saw the same place free, one is first.
_SLOT_TRIES = 5
_RETRY_AFTER_S = 5
# Who did it where nobody did.
_THE_SERVICE = "service"
_REASONS = {
    DisabledReason.GONE: "It answered 410 Gone, which says that it wants nothing more.",
    DisabledReason.FAILING: "It has taken nothing for as long as we try one delivery.",
    DisabledReason.BY_OWNER: "Its owner disabled it.",
    DisabledReason.LOCKED_DOWN: "An admin locked your account down.",
}
# What their owners are told of at once.
_DEEDS = {
    AuditAction.WEBHOOK_ENDPOINT_CREATED: "A webhook endpoint was added",
    AuditAction.WEBHOOK_ENDPOINT_CHANGED: "Your webhook endpoint has another URL",
    AuditAction.WEBHOOK_SECRET_ROTATED: "Your webhook endpoint has another secret",
}


class Registrar(NamedTuple):
    """What registering endpoints takes."""

    client: Client
    settings: Settings
    addresses: WebhookAddresses


class EndpointOrder(NamedTuple):
    url: str
    event_types: Sequence[str] | None
    description: str | None


class IssuedEndpoint(NamedTuple):
    """`secret` cannot be shown again."""

    endpoint: WebhookEndpoint
    secret: str


async def register(registrar: Registrar, user_id: str, order: EndpointOrder, request_id: str | None) -> IssuedEndpoint:
    """Raises InvalidFields for a URL where nothing would be sent, TooManyWebhookEndpoints, Unavailable."""
    url = await _checked(registrar, order.url, user_id)
    now, secret, endpoint_id = (
        utc_now(),
        secret_text(secrets.token_bytes(SECRET_BYTES)),
        new_id(Prefix.WEBHOOK_ENDPOINT),
    )
    endpoint = WebhookEndpoint(
        id=endpoint_id,
        user_id=user_id,
        slot=0,
        status=EndpointStatus.ACTIVE,
        secret_sealed=seal(registrar.settings, secret, SealedField.WEBHOOK_SECRET, endpoint_id),
        created_at=now,
        updated_at=now,
        tried_from=now,
        **order._replace(url=url)._asdict(),
    )
    event = _event(AuditAction.WEBHOOK_ENDPOINT_CREATED, endpoint, user_id, request_id)

    async def insert(session: AsyncClientSession) -> WebhookEndpoint:
        taken = await endpoint_repository.find_slots(user_id, session=session)
        free = set(range(registrar.settings.webhook_endpoints_per_user)) - taken
        if not free:
            raise TooManyWebhookEndpoints(limit=registrar.settings.webhook_endpoints_per_user)
        placed = endpoint._replace(slot=min(free))
        await endpoint_repository.insert(placed, session=session)
        await audit_repository.insert(event, session=session)
        await _tell_owner(event, session)
        return placed

    for tries_left in reversed(range(_SLOT_TRIES)):
        try:
            placed = await run_in_transaction(registrar.client, insert)
        except DuplicateKeyError:
            if not tries_left:
                raise
        else:
            log.info("webhook_endpoint.created", endpoint_id=endpoint.id, user_id=user_id)
            return IssuedEndpoint(placed, secret)
    raise AssertionError("the last try returns or raises")


async def change(
    registrar: Registrar, user_id: str, endpoint_id: str, changes: Mapping[str, Any], request_id: str | None
) -> WebhookEndpoint:
    """`changes` of url, event_types, description and status. Raises NotFound, InvalidFields, Unavailable."""
    fields = dict(changes)
    status = fields.pop("status", None)
    if "url" in fields:
        fields["url"] = await _checked(registrar, fields["url"], user_id)
    now = utc_now()

    async def put_in(session: AsyncClientSession) -> WebhookEndpoint:
        endpoint = await _find(endpoint_id, user_id, session)
        if fields:
            was_at = endpoint.url
            endpoint = changed(endpoint, fields, now)
            event = await _replace(endpoint, AuditAction.WEBHOOK_ENDPOINT_CHANGED, user_id, request_id, session)
            if endpoint.url != was_at:
                await _tell_owner(event, session)
        if status is not None and status is not endpoint.status:
            is_enabled = status is EndpointStatus.ACTIVE
            endpoint = enabled(endpoint, now) if is_enabled else disabled(endpoint, DisabledReason.BY_OWNER, now)
            action = AuditAction.WEBHOOK_ENDPOINT_ENABLED if is_enabled else AuditAction.WEBHOOK_ENDPOINT_DISABLED
            await _replace(endpoint, action, user_id, request_id, session)
        return endpoint

    endpoint = await run_in_transaction(registrar.client, put_in)
    if endpoint.status is EndpointStatus.DISABLED:
        await delivery_repository.cancel_all(endpoint.id)
    log.info("webhook_endpoint.changed", endpoint_id=endpoint.id, status=endpoint.status)
    return endpoint


async def rotate_secret(
    registrar: Registrar, user_id: str, endpoint_id: str, overlap: timedelta, request_id: str | None
) -> IssuedEndpoint:
    """Another secret; for `overlap` the one before signs too. Raises NotFound, Unavailable."""
    now, secret = utc_now(), secret_text(secrets.token_bytes(SECRET_BYTES))
    sealed = seal(registrar.settings, secret, SealedField.WEBHOOK_SECRET, endpoint_id)

    async def rotate(session: AsyncClientSession) -> WebhookEndpoint:
        endpoint = rotated(await _find(endpoint_id, user_id, session), sealed, overlap, now)
        event = await _replace(endpoint, AuditAction.WEBHOOK_SECRET_ROTATED, user_id, request_id, session)
        await _tell_owner(event, session)
        return endpoint

    endpoint = await run_in_transaction(registrar.client, rotate)
    log.info("webhook_endpoint.rotated", endpoint_id=endpoint.id)
    return IssuedEndpoint(endpoint, secret)


async def delete(registrar: Registrar, user_id: str, endpoint_id: str, request_id: str | None) -> None:
    """At once: what waits for it is canceled. Raises NotFound, Unavailable."""
    now = utc_now()
    expires_at = now + timedelta(days=registrar.settings.webhook_retention_days)

    async def take_out(session: AsyncClientSession) -> None:
        endpoint = deleted(await _find(endpoint_id, user_id, session), expires_at, now)
        await _replace(endpoint, AuditAction.WEBHOOK_ENDPOINT_DELETED, user_id, request_id, session)

    await run_in_transaction(registrar.client, take_out)
    await delivery_repository.cancel_all(endpoint_id)
    log.info("webhook_endpoint.deleted", endpoint_id=endpoint_id)


async def disable_by_itself(
    client: Client, tried: WebhookEndpoint, reason: DisabledReason, queued_at: datetime, request_id: str | None
) -> bool:
    """Its owner gets a mail. False where it is disabled already, or has been enabled, changed or reached since it was
    `tried`: what was answered elsewhere says nothing of where it is now.
    """
    now = utc_now()

    async def put_out(session: AsyncClientSession) -> bool:
        endpoint = await endpoint_repository.find(tried.id, session=session)
        if endpoint is None or endpoint.status is not EndpointStatus.ACTIVE or endpoint.tried_from != tried.tried_from:
            return False
        if reason is DisabledReason.FAILING and not endpoint.has_taken_nothing_since(queued_at):
            return False
        after = disabled(endpoint, reason, now)
        event = await _replace(
            after, AuditAction.WEBHOOK_ENDPOINT_DISABLED, _THE_SERVICE, request_id, session, why=reason.value
        )
        row = outbox_row(OutboxTopic.WEBHOOK_NOTICE, tried.id, request_id, now)
        # By an id of its own: it may be disabled again before the first mail is out.
        notice = outbox_id(OutboxTopic.WEBHOOK_NOTICE, event.id)
        await outbox_repository.insert_many([row._replace(id=notice)], session=session)
        return True

    is_disabled = await run_in_transaction(client, put_out)
    if is_disabled:
        await delivery_repository.cancel_all(tried.id)
        log.warning("webhook_endpoint.disabled", endpoint_id=tried.id, reason=reason)
    return is_disabled


async def _tell_owner(event: AuditEvent, session: AsyncClientSession) -> None:
    """Of what somebody did in their name: an endpoint goes on when the token or key that made it has ended."""
    row = outbox_row(OutboxTopic.WEBHOOK_NOTICE, event.id, event.request_id, event.at)
    await outbox_repository.insert_many([row], session=session)


async def send_notice(row: OutboxRow, mailbox: Mailbox) -> None:
    """At least once, the same mail with the same id: of a deed where the row names one, else of being disabled."""
    if row.subject_id.startswith(f"{Prefix.AUDIT_EVENT}_"):
        await _send_notice_of_deed(row, mailbox)
        return
    endpoint = await endpoint_repository.find(row.subject_id)
    owner = None if endpoint is None else await user_repository.find(endpoint.user_id)
    if endpoint is not None and endpoint.disabled_reason is not None and owner is not None and owner.takes_notices:
        text = (
            f"Your webhook endpoint {endpoint.id} at {read_webhook_url(endpoint.url).host} was disabled at "
            f"{row.created_at:%Y-%m-%d %H:%M} UTC.\n"
            f"{_REASONS[endpoint.disabled_reason]}\n"
            "\n"
            "Nothing is sent there until you enable it again. What you have missed is in your events.\n"
        )
        await mailbox.send(Mail(id=row.id, to=owner.email, subject="Your webhook endpoint was disabled", text=text))
    await outbox_repository.delete(row)


async def _send_notice_of_deed(row: OutboxRow, mailbox: Mailbox) -> None:
    event = await audit_repository.find(row.subject_id)
    owner = None if event is None else await user_repository.find(event.actor_id)
    if event is not None and owner is not None and owner.takes_notices:
        text = (
            f"{_DEEDS[event.action]}: {event.subject_id} at {event.details['host']}, "
            f"{event.at:%Y-%m-%d %H:%M} UTC.\n"
            "\n"
            "It is told of your events until it is deleted, whatever becomes of the login or key that did this. If it "
            "was not you, delete it and change your password.\n"
        )
        await mailbox.send(Mail(id=row.id, to=owner.email, subject=_DEEDS[event.action], text=text))
    await outbox_repository.delete(row)


async def get_endpoint(user_id: str, endpoint_id: str) -> WebhookEndpoint:
    """Raises NotFound."""
    return await _find(endpoint_id, user_id, None)


async def list_endpoints(user_id: str, *, before_id: str | None, limit: int) -> list[WebhookEndpoint]:
    """Newest first."""
    return await endpoint_repository.find_newest(user_id, before_id=before_id, limit=limit)


async def _checked(registrar: Registrar, url: str, user_id: str) -> str:
    try:
        return (await registrar.addresses.check(url, user_id)).text
    except WebhookUnanswered as error:
        raise Unavailable("The host could not be looked up in time", retry_after_s=_RETRY_AFTER_S) from error
    except WebhookUrlInvalid as error:
        raise InvalidFields(fields=(FieldError("/url", error.code, error.message),)) from error


async def _find(endpoint_id: str, user_id: str, session: AsyncClientSession | None) -> WebhookEndpoint:
    endpoint = await endpoint_repository.find_owned(endpoint_id, user_id, session=session)
    if endpoint is None:
        raise NotFound(f"There is no webhook endpoint {endpoint_id}")
    return endpoint


async def _replace(
    endpoint: WebhookEndpoint,
    action: AuditAction,
    actor_id: str,
    request_id: str | None,
    session: AsyncClientSession,
    **details: str,
) -> AuditEvent:
    is_replaced = await endpoint_repository.replace(endpoint, session=session)
    assert is_replaced, "a transaction sees what it changes"  # noqa: S101 a snapshot is one moment
    event = _event(action, endpoint, actor_id, request_id, **details)
    await audit_repository.insert(event, session=session)
    return event


def _event(
    action: AuditAction, endpoint: WebhookEndpoint, actor_id: str, request_id: str | None, **details: str
) -> AuditEvent:
    return new_audit_event(
        action,
        actor_id=actor_id,
        subject_id=endpoint.id,
        request_id=request_id,
        user_id=endpoint.user_id,
        # Paths and queries may hold what is nobody's business.
        host=read_webhook_url(endpoint.url).host,
        **details,
    )
