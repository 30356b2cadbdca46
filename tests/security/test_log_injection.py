"""Forged lines, on every route, in both forms of the log."""

from tests.security import log_injection
from tests.security.findings import report
from tests.security.target import Target


async def test_a_line_of_the_log_is_one_event_of_ours_whatever_was_sent(target: Target) -> None:
    findings = await log_injection.attack(target)
    assert not findings, report(findings)
