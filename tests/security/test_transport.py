"""Broken requests, on every route."""

from tests.security import transport, wire
from tests.security.findings import report
from tests.security.target import Target
from tests.security.wire import Server
from tests.security.world import USER


async def test_broken_requests_are_refused_in_good_order(target: Target) -> None:
    findings = await transport.attack(target)
    assert not findings, report(findings)


async def test_the_server_refuses_what_two_readers_could_read_differently(target: Target, server: Server) -> None:
    person = await target.world.someone(USER, "attacker")
    findings = await wire.attack(server, person.headers)
    assert not findings, report(findings)
