"""Forged callbacks."""

from tests.security import bank_callbacks
from tests.security.findings import report
from tests.security.target import Target


async def test_a_callback_is_taken_only_whole_signed_and_fresh_and_only_once(target: Target) -> None:
    findings = await bank_callbacks.attack(target)
    assert not findings, report(findings)
