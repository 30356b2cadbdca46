"""Operators and mass assignment, on every route."""

from tests.security import operators
from tests.security.findings import report
from tests.security.target import Target


async def test_operators_and_members_that_nobody_asked_for_are_refused_everywhere(target: Target) -> None:
    findings = await operators.attack(target)
    assert not findings, report(findings)
