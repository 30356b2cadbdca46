"""Roles, on every route."""

from tests.security import roles
from tests.security.findings import report
from tests.security.target import Target


async def test_each_route_lets_in_exactly_the_roles_that_it_declares(target: Target) -> None:
    findings = await roles.attack(target)
    assert not findings, report(findings)
