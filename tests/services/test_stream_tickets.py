"""Tickets: whose they are, for how long, and that each opens one stream."""

from datetime import timedelta

import pytest
from pydantic import SecretStr

from service.database import Databases
from service.domain.clock import utc_now
from service.domain.permissions import Role
from service.errors import Unauthenticated
from service.services import stream_tickets
from service.services.callers import Caller
from service.services.stream_tickets import issue_ticket, use_ticket
from service.settings import Settings

_CALLER = Caller("usr_ada", (Role.USER,), 3, "ses_phone")
_NEW_KEY = SecretStr("bmV3LWVuY3J5cHRpb24ta2V5LWZvci10aGUtdGVzdHM=")
pytestmark = pytest.mark.usefixtures("databases")


async def test_one_says_who_comes_and_until_when_the_stream_may_last(settings: Settings) -> None:
    ends_at = utc_now() + timedelta(minutes=10)
    ticket = issue_ticket(_CALLER, ends_at, settings)
    assert await use_ticket(ticket.text, settings) == (_CALLER, ends_at)


async def test_one_that_was_used_is_refused(settings: Settings, databases: Databases) -> None:
    ticket = issue_ticket(_CALLER, utc_now() + timedelta(minutes=10), settings)
    await use_ticket(ticket.text, settings)
    with pytest.raises(Unauthenticated, match="used already"):
        await use_ticket(ticket.text, settings)
    # Only as a hash is it kept.
    assert await databases.wallet["used_tickets"].count_documents({"_id": ticket.text}) == 0


async def test_one_that_has_expired_is_refused_and_none_outlives_its_token(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends_at = utc_now() + timedelta(seconds=5)
    assert issue_ticket(_CALLER, ends_at, settings).expires_at == ends_at
    monkeypatch.setattr(stream_tickets, "TICKET_LIFETIME", timedelta(0))
    ticket = issue_ticket(_CALLER, ends_at, settings)
    with pytest.raises(Unauthenticated, match="expired"):
        await use_ticket(ticket.text, settings)


async def test_one_that_says_something_else_than_was_sealed_is_refused(settings: Settings) -> None:
    text = issue_ticket(_CALLER, utc_now() + timedelta(minutes=10), settings).text
    for forged in (text[:-1] + ("A" if text[-1] != "A" else "Q"), "B" + text[1:], text + "=", "", "é"):
        with pytest.raises(Unauthenticated, match="not valid"):
            await use_ticket(forged, settings)


async def test_while_keys_are_changed_both_hold(settings: Settings) -> None:
    text = issue_ticket(_CALLER, utc_now() + timedelta(minutes=10), settings).text
    with pytest.raises(Unauthenticated):
        await use_ticket(text, settings.model_copy(update={"encryption_key": _NEW_KEY}))
    changed = settings.model_copy(
        update={"encryption_key": _NEW_KEY, "encryption_key_previous": settings.encryption_key}
    )
    assert (await use_ticket(text, changed))[0] == _CALLER
