"""Each group of attacks finds what it is for, in a service that was broken on purpose."""

import re

import httpx
import pytest

from tests.security.findings import report
from tests.security.target import Target
from tests.security.weakened import WEAKENINGS, Weakening, build
from tests.security.world import World


@pytest.fixture(scope="module")
async def spare_world(target: Target) -> World:
    """One whose people may come to harm."""
    return await World.make(target.world.app, target.world.api, target.routes)


@pytest.mark.parametrize("weakening", WEAKENINGS, ids=lambda weakening: weakening.name)
async def test_a_weakness_is_found(
    target: Target, spare_world: World, monkeypatch: pytest.MonkeyPatch, weakening: Weakening
) -> None:
    routes = [route for route in target.routes if str(route) in weakening.routes]
    assert len(routes) == len(weakening.routes), "a route that it is looked for on is there no more"
    weakening.weaken(monkeypatch)
    weak = build(target.world.resources)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(weak), base_url="http://wallet.example") as api:
        findings = await weakening.attack(Target(api, spare_world, routes))
    found = [one for one in findings if re.search(weakening.finds, one.attack)]
    assert found, f"{weakening.attack.__module__} has nothing against it that {weakening.name}: {report(findings)}"
