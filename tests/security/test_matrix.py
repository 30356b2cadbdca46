"""Another user's resources, on every route."""

from tests.security import matrix
from tests.security.findings import report
from tests.security.target import Target


async def test_another_users_resource_looks_like_none_at_all(target: Target) -> None:
    findings = await matrix.attack(target)
    assert not findings, report(findings)
