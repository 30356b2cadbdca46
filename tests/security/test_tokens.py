"""Forged and stale tokens, on every route."""

from tests.security import tokens
from tests.security.findings import report
from tests.security.target import Target


async def test_no_token_that_is_not_whole_and_fresh_opens_a_route(target: Target) -> None:
    findings = await tokens.attack(target)
    assert not findings, report(findings)
