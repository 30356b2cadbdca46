"""The limits that everybody has together are nobody's weapon: each has their share, whoever comes first."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final
from uuid import uuid4

import httpx
import pytest
from limits import RateLimitItemPerMinute

from service.controllers.client_address import client_address, networks_of
from service.database import Databases
from service.domain.clock import utc_now
from service.gateways import rate_limits
from service.gateways.quick_redis import QuickRedis
from service.gateways.rate_limits import Claim, RateLimits, Standing, shared_claim
from service.main import create_app
from service.services.access_tokens import issue_access_token
from service.settings import Settings
from service.startup import Resources
from tests.factories import Account, bearer, current, make_account, make_user
from tests.servers import NO_RATE_LIMITS

_ME: Final = "/api/v1/me"
_GLOBAL: Final = 60
_USER: Final = 20
_ADDRESS: Final = 5


class Face:
    """The application with small limits, which count in a space of their own."""

    def __init__(self, resources: Resources, **limits: int) -> None:
        self.settings = resources.settings.model_copy(update={**NO_RATE_LIMITS, **limits, "database": uuid4().hex})
        self.redis = QuickRedis(self.settings)
        self.app = create_app(self.settings)
        self.app.state.resources = resources._replace(settings=self.settings, rate_limits=RateLimits(self.redis))

    def client(self, headers: dict[str, str] | None = None, address: str = "203.0.113.1") -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self.app, client=(address, 4711))
        return httpx.AsyncClient(transport=transport, base_url="http://wallet.example", headers=headers)

    async def ask(self, times: int, headers: dict[str, str] | None = None, address: str = "203.0.113.1") -> list[int]:
        async with self.client(headers, address) as client:
            return [(await client.get(_ME)).status_code for _ in range(times)]


@pytest.fixture
async def face(resources: Resources) -> AsyncIterator[Face]:
    face = Face(
        resources,
        rate_limit_global=_GLOBAL,
        rate_limit_anonymous=_GLOBAL,
        rate_limit_user=_USER,
        rate_limit_address=_ADDRESS,
    )
    yield face
    await face.redis.close()


@pytest.fixture
def shares_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each share is worked out anew, so that nothing depends on time."""
    monkeypatch.setattr(rate_limits, "_SHARE_LIVES_MS", 0)


class TestTheGlobalLimit:
    @pytest.mark.usefixtures("shares_at_once")
    async def test_that_a_few_accounts_have_taken_leaves_a_stranger_their_share(
        self, face: Face, databases: Databases
    ) -> None:
        greedy = [bearer(await make_user(databases), face.settings) for _ in range(4)]
        for headers in greedy:
            assert await face.ask(15, headers) == [200] * 15
        # The limit is reached, and all of them have the same.
        for headers in greedy:
            assert await face.ask(1, headers) == [429]
        stranger = bearer(await make_user(databases), face.settings)
        # Of 60 for five each has 12.
        assert await face.ask(12, stranger) == [200] * 12
        assert await face.ask(1, stranger) == [429]
        for headers in greedy:
            assert await face.ask(1, headers) == [429]

    async def test_is_not_reached_by_those_who_show_no_token(self, face: Face, databases: Databases) -> None:
        for number in range(40):
            await face.ask(2, address=f"203.0.113.{number}")
        assert await face.ask(10, bearer(await make_user(databases), face.settings)) == [200] * 10


class TestThoseWhoShowNoToken:
    async def test_get_four_times_one_networks_limit_from_all_networks_of_one_customer(self, face: Face) -> None:
        """24 IPv6 networks of 64 bits, all of one /48."""
        networks = [f"2001:db8:1:{number:x}::1" for number in range(0, 24 * 256, 256)]
        answers = [await face.ask(_ADDRESS + 1, address=address) for address in networks]
        assert sum(statuses.count(401) for statuses in answers) == 4 * _ADDRESS
        of_one_56 = [await face.ask(_ADDRESS, address=f"2001:db8:2:{number:x}::1") for number in range(4)]
        assert sum(statuses.count(401) for statuses in of_one_56) == 2 * _ADDRESS

    @pytest.mark.usefixtures("shares_at_once")
    async def test_shut_no_other_address_out(self, face: Face) -> None:
        for number in range(_GLOBAL // _ADDRESS):
            assert await face.ask(_ADDRESS, address=f"203.0.113.{number}") == [401] * _ADDRESS
        # The thirteenth of them has 4 of 60.
        assert await face.ask(_ADDRESS, address="198.51.100.1") == [401] * 4 + [429]


def _max_min_share(used: Sequence[int], amount: int) -> int:
    """The largest whole number of which all together may have as much."""
    share = 0
    while share < max(used, default=0) and sum(min(one, share + 1) for one in used) <= amount:
        share += 1
    return share


@pytest.fixture
async def processes(settings: Settings) -> AsyncIterator[list[RateLimits]]:
    """Two that count together."""
    redis = [QuickRedis(settings) for _ in range(2)]
    yield [RateLimits(one) for one in redis]
    for one in redis:
        await one.close()


def _claims(space: str, amount: int, who: str) -> list[Claim]:
    return [shared_claim(RateLimitItemPerMinute(amount, namespace=space), who)]


@pytest.mark.usefixtures("shares_at_once")
class TestShares:
    async def test_are_those_of_max_min_fairness_over_two_processes(self, processes: list[RateLimits]) -> None:
        shuffle = random.Random(4)  # noqa: S311 cases, not secrets
        for _ in range(4):
            space, amount, used = uuid4().hex, shuffle.randrange(5, 60), dict[str, int]()
            weights = [shuffle.random() ** 3 for _ in range(12)]
            for _ in range(120):
                (who,) = shuffle.choices([f"user-{number}" for number in range(12)], weights)
                share = _max_min_share(list(used.values()), amount)
                wanted = sum(used.values()) < amount or used.get(who, 0) < share
                standing = await shuffle.choice(processes).take(_claims(space, amount, who))
                assert standing.is_granted == wanted
                used[who] = used.get(who, 0) + standing.is_granted
            # What comes on top once the limit is reached is less than as much again.
            assert sum(used.values()) < 2 * amount

    async def test_tell_what_is_left_of_ones_own(self, processes: list[RateLimits]) -> None:
        space = uuid4().hex
        for _ in range(10):
            await processes[0].take(_claims(space, 10, "greedy"))
        refused = await processes[0].take(_claims(space, 10, "greedy"))
        assert (refused.is_granted, refused.left, refused.amount) == (False, 0, 10)
        left = [await processes[1].take(_claims(space, 10, "modest")) for _ in range(6)]
        assert [(one.is_granted, one.left) for one in left] == [
            (True, 9), (True, 7), (True, 5), (True, 3), (True, 1), (False, 0)
        ]  # fmt: skip

    async def test_are_exact_within_one_question_to_redis(self, processes: list[RateLimits]) -> None:
        space = uuid4().hex
        for who, amount in (("a", 4), ("b", 4)):
            await asyncio.gather(*(processes[0].take(_claims(space, 8, who)) for _ in range(amount)))
        answers: list[Standing] = await asyncio.gather(*(processes[0].take(_claims(space, 8, "c")) for _ in range(20)))
        # Worked out once for all of them: what two have, a third may have.
        assert sum(one.is_granted for one in answers) == 4

    async def test_move_on_with_the_window(self, processes: list[RateLimits]) -> None:
        space, (limits, _) = uuid4().hex, processes
        for _ in range(10):
            await limits.take(_claims(space, 10, "greedy"))
        (key,) = [one.key for one in _claims(space, 10, "greedy")]
        redis: Any = limits._redis
        for end in ("", "/of"):
            # The running window becomes the last one, and has half of its time left.
            await redis._client.pexpire(f"{redis.prefix}:{{{key}}}{end}", 30_000)
        granted = [(await limits.take(_claims(space, 10, "greedy"))).is_granted for _ in range(6)]
        assert 5 <= sum(granted) <= 6
        assert (await limits.take(_claims(space, 10, "modest"))).is_granted
        counts = await redis._client.hgetall(f"{redis.prefix}:{{{key}}}/of/-1")
        assert counts == {b"greedy": b"10"}

    async def test_of_more_than_are_looked_at_are_equal(
        self, processes: list[RateLimits], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(rate_limits, "_SHARERS_LIMIT", 2)
        space, (limits, _) = uuid4().hex, processes
        for who, times in (("a", 3), ("b", 3), ("c", 3)):
            for _ in range(times):
                await limits.take(_claims(space, 9, who))
        assert [(await limits.take(_claims(space, 9, "d"))).is_granted for _ in range(3)] == [True, True, False]


class TestNetworks:
    @pytest.mark.parametrize(
        ("address", "networks"),
        [
            ("203.0.113.7", (("203.0.113.7", 1),)),
            ("::ffff:203.0.113.7", (("203.0.113.7", 1),)),
            ("2001:db8:1:2ff::9", (("2001:db8:1:2ff::/64", 1), ("2001:db8:1:200::/56", 2), ("2001:db8:1::/48", 4))),
            ("nonsense", (("unknown", 1),)),
        ],
    )
    def test_are_counted_from_the_narrowest_on(self, address: str, networks: tuple[tuple[str, int], ...]) -> None:
        assert networks_of(client_address({"client": (address, 1), "headers": []}, ())) == networks


async def _pay(face: Face, payer: Account, recipient: Account, parts: int) -> httpx.Response:
    order = {"from_wallet_id": payer.wallet.id, "to_wallet_id": recipient.wallet.id, "amount": 1, "currency": "INR"}
    async with face.client(bearer(payer.user, face.settings) | {"Idempotency-Key": uuid4().hex}) as client:
        return await client.post(
            "/api/v1/transfers/batch", json={"mode": "best_effort", "transfers": [order for _ in range(parts)]}
        )


class TestABatchOfTransfers:
    async def test_is_charged_by_its_size(self, face: Face, databases: Databases) -> None:
        payer, recipient = await make_account(databases, balance=100), await make_account(databases)
        paid = await _pay(face, payer, recipient, 15)
        assert (paid.status_code, paid.headers["x-ratelimit-remaining"]) == (201, "5")
        assert await face.ask(6, bearer(payer.user, face.settings)) == [200] * 5 + [429]

    async def test_larger_than_the_limit_passes_once_and_weighs_on_in_the_next_minute(
        self, face: Face, databases: Databases
    ) -> None:
        payer, recipient = await make_account(databases, balance=100), await make_account(databases)
        answers = await asyncio.gather(*(_pay(face, payer, recipient, 2 * _USER) for _ in range(4)))
        assert sorted(answer.status_code for answer in answers) == [201, 429, 429, 429]
        (refused, *_) = [answer for answer in answers if answer.status_code == 429]
        # All of it falls into the window that runs, and half of it has to go by in the next one.
        assert int(refused.headers["retry-after"]) >= 30
        assert (await current(payer.wallet)).available == 100 - 2 * _USER


class TestATokenThatEnded:
    async def test_uses_up_nothing_of_its_owners(self, face: Face, databases: Databases) -> None:
        user = await make_user(databases)
        mine = bearer(user, face.settings)
        face.app.state.resources.ended_tokens.note_session("stolen", utc_now())
        stolen = issue_access_token(user, face.settings, utc_now(), "stolen")
        refused = await face.ask(2 * _USER, {"Authorization": f"Bearer {stolen}"})
        assert refused == [401] * _ADDRESS + [429] * (2 * _USER - _ADDRESS)
        assert await face.ask(_USER, mine, "203.0.113.2") == [200] * _USER


class TestReports:
    async def test_have_one_small_limit_together(self, resources: Resources, databases: Databases) -> None:
        face = Face(resources, rate_limit_reports=4)
        user, wallet = await make_account(databases)
        reports = (
            "statement?from=2026-01-01T00:00:00Z&to=2026-02-01T00:00:00Z",
            "spending?from_month=2026-01&to_month=2026-01",
            "proof",
            "absence-proof",
            "transactions/ent_0/proof",
        )
        async with face.client(bearer(user, face.settings)) as client:
            answers = [await client.get(f"/api/v1/wallets/{wallet.id}/{path}") for path in reports]
        await face.redis.close()
        assert [answer.status_code == 429 for answer in answers] == [False] * 4 + [True]


class TestAnError:
    async def test_of_one_call_leaves_nobody_waiting(
        self, processes: list[RateLimits], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """More than one call holds come at once, and the first call fails."""
        limits, take = processes[0], RateLimits._take_from_redis
        calls: list[int] = []

        async def fail_once(self: RateLimits, requests: Any) -> list[Standing]:
            calls.append(len(requests))
            if len(calls) == 1:
                raise ValueError("a defect")
            return await take(self, requests)

        monkeypatch.setattr(RateLimits, "_take_from_redis", fail_once)
        claims = _claims(uuid4().hex, 1_000, "somebody")
        asked = [limits.take(claims) for _ in range(300)]
        answers = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 5)
        assert calls == [256, 44]
        assert sum(isinstance(one, ValueError) for one in answers) == 256
