"""Canaries, on every route that takes something secret."""

from tests.security import canaries
from tests.security.findings import report
from tests.security.target import Target


async def test_a_secret_that_was_sent_turns_up_nowhere(target: Target) -> None:
    findings = await canaries.attack(target)
    assert not findings, report(findings)


def test_fields_are_known_to_be_secret_by_their_names(target: Target) -> None:
    names = {field.name for route in target.routes for field in canaries.secret_fields(route)}
    assert names >= {"password", "new_password", "refresh_token", "token", "code", "destination", "source"}
