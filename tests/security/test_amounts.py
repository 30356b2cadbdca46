"""Amounts, on every route."""

from tests.security import amounts
from tests.security.findings import report
from tests.security.target import Target


async def test_only_whole_numbers_in_range_are_amounts(target: Target) -> None:
    findings = await amounts.attack(target)
    assert not findings, report(findings)
