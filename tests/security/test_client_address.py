"""Made-up addresses, on every route that is open to everybody."""

from tests.security import client_address
from tests.security.findings import report
from tests.security.target import Target


async def test_made_up_addresses_evade_no_limit(target: Target) -> None:
    findings = await client_address.attack(target)
    assert not findings, report(findings)
