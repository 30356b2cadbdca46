"""Limits over HTTP: each limit's refusal with its facts, what is given back, overrides, and who sees them."""

import asyncio
from datetime import datetime
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import httpx
import pytest

from service.controllers.limits import LimitsView, LimitView
from service.database import Databases, session_in_transaction
from service.domain.clock import utc_now
from service.domain.limits import Limits, Usage, charge
from service.domain.money import POINTS
from service.domain.operations import Operation
from service.domain.policy import Policy
from service.repositories import records as record_repository
from service.repositories import wallets as wallet_repository
from service.settings import Settings
from service.startup import Resources
from tests.factories import Account, change, current, failure_of, fund_wallet, make_account, make_user, make_wallet
from tests.refusals import refusal
from tests.staff import Staff

_FACTS = ("wallet_id", "user_id", "currency", "time_zone", "time_zone_from", "is_overridden", "override")


@pytest.fixture
async def boss(api: httpx.AsyncClient, databases: Databases, settings: Settings) -> Staff:
    return await Staff.hire(api, databases, settings, "admin")


@pytest.fixture
async def account(databases: Databases) -> Account:
    return await make_account(databases, balance=1_000_000)


@pytest.fixture
def owner(api: httpx.AsyncClient, account: Account, settings: Settings) -> Staff:
    return Staff(api, account.user, settings)


async def limit(boss: Staff, account: Account, **limits: int | None) -> httpx.Response:
    path = f"/admin/users/{account.user.id}/limits/{account.wallet.currency}"
    return await boss.put(path, reason="A test", **limits)


async def withdraw(owner: Staff, amount: int) -> httpx.Response:
    return await owner.post("/withdrawals", amount=amount, currency="INR", destination="savings-success")


async def exchange(owner: Staff, amount: int) -> httpx.Response:
    wish = {"from_currency": "INR", "to_currency": "USD", "amount": amount}
    quote = await owner.api.post("/api/v1/quotes", json=wish, headers=owner.headers)
    assert quote.status_code == 201, quote.text
    return await owner.post("/conversions", quote_id=quote.json()["id"])


class TestARefusal:
    @pytest.mark.parametrize(
        ("name", "ceiling", "amounts", "left"),
        [
            ("per_transaction", 500, [501], 500),
            ("per_day", 500, [300, 201], 200),
            ("per_month", 500, [300, 201], 200),
            ("count_per_hour", 2, [1, 1, 1], 0),
        ],
    )
    async def test_names_the_limit_its_ceiling_what_is_left_and_when_it_starts_anew(
        self, boss: Staff, owner: Staff, account: Account, name: str, ceiling: int, amounts: list[int], left: int
    ) -> None:
        await limit(boss, account, **{name: ceiling})
        *accepted, refused = [await withdraw(owner, amount) for amount in amounts]
        assert [answer.status_code for answer in accepted] == [202] * len(accepted)
        assert refusal(refused) == (422, "limit_exceeded")
        body = refused.json()
        assert (body["limit"], body["ceiling"], body["left"]) == (name, ceiling, left)
        shown = (await owner.get(f"/wallets/{account.wallet.id}/limits")).json()["limits"][name]
        assert (shown["ceiling"], shown["left"], shown["resets_at"]) == (ceiling, left, body["resets_at"])
        assert (body["resets_at"] is None) == (name == "per_transaction")
        wallet = await current(account.wallet)
        assert wallet.available == 1_000_000 - sum(amounts[:-1])

    async def test_counts_transfers_and_withdrawals_together(
        self, boss: Staff, owner: Staff, account: Account, databases: Databases
    ) -> None:
        await limit(boss, account, per_day=500)
        friend = await make_account(databases)
        order: dict[str, Any] = {
            "from_wallet_id": account.wallet.id,
            "to_wallet_id": friend.wallet.id,
            "currency": "INR",
        }
        assert (await owner.post("/transfers", amount=300, **order)).status_code == 201
        refused = await withdraw(owner, 201)
        assert (refusal(refused), refused.json()["left"]) == ((422, "limit_exceeded"), 200)
        refused = await owner.post("/transfers", amount=201, **order)
        assert (refusal(refused), refused.json()["left"]) == ((422, "limit_exceeded"), 200)
        assert (await withdraw(owner, 200)).status_code == 202

    async def test_does_not_count_itself(self, boss: Staff, owner: Staff, account: Account) -> None:
        await limit(boss, account, count_per_hour=1, per_transaction=5)
        for _ in range(3):
            assert refusal(await withdraw(owner, 6)) == (422, "limit_exceeded")
        assert (await withdraw(owner, 5)).status_code == 202

    async def test_of_the_usual_limits_comes_where_nothing_was_overridden(
        self, owner: Staff, resources: Resources, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(resources.ledger, "policy", Policy(limits={"INR": Limits(per_day=100)}))
        assert (await withdraw(owner, 100)).status_code == 202
        assert refusal(await withdraw(owner, 1)) == (422, "limit_exceeded")


class TestExchanging:
    async def test_is_no_way_around_a_limit(
        self, boss: Staff, owner: Staff, account: Account, databases: Databases
    ) -> None:
        """10,000.00 INR were refused, and became USD that nothing kept from leaving."""
        await make_wallet(databases, account.user, currency="USD")
        await limit(boss, account, per_day=999_999)
        assert refusal(await withdraw(owner, 1_000_000)) == (422, "limit_exceeded")
        refused = await exchange(owner, 1_000_000)
        assert refusal(refused) == (422, "limit_exceeded")
        assert (refused.json()["limit"], refused.json()["left"]) == ("per_day", 999_999)
        assert (await exchange(owner, 600_000)).status_code == 201
        refused = await withdraw(owner, 400_000)
        assert (refusal(refused), refused.json()["left"]) == ((422, "limit_exceeded"), 399_999)

    async def test_counts_as_one_operation_of_the_wallet_that_gives(
        self, boss: Staff, owner: Staff, account: Account, databases: Databases
    ) -> None:
        dollars = await make_wallet(databases, account.user, currency="USD")
        await limit(boss, account, count_per_hour=1)
        assert (await exchange(owner, 10_000)).status_code == 201
        assert refusal(await exchange(owner, 10_000)) == (422, "limit_exceeded")
        assert (await current(account.wallet)).usage.day_total == 10_000
        assert (await current(dollars)).usage == Usage()


class TestMoreThan64BitsHold:
    async def test_goes_to_and_fro_in_a_month_without_an_error(
        self, api: httpx.AsyncClient, resources: Resources, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without limits, step-up amounts included: by default every currency has them."""
        databases, settings, ledger = resources.databases, resources.settings, resources.ledger
        unbound = ledger.policy._replace(limits={}, step_up_above={}, step_up_day_above={})
        monkeypatch.setattr(ledger, "policy", unbound)
        largest = 2**53 - 1
        users = [await make_user(databases) for _ in range(2)]
        first, second = [await make_wallet(databases, user, currency="CHF") for user in users]
        await fund_wallet(databases, first, largest)
        order: dict[str, Any] = {"amount": largest, "currency": "CHF"}
        there = {"from_wallet_id": first.id, "to_wallet_id": second.id, **order}
        back = {"from_wallet_id": second.id, "to_wallet_id": first.id, **order}
        staff = [Staff(api, user, settings) for user in users]
        # So many that the next one of either would leave 64 bits; 2,048 requests would take too long.
        used = charge(Usage(), 1_024 * largest, utc_now(), first.zone)
        async with session_in_transaction(databases.client) as session:
            for wallet in await asyncio.gather(current(first), current(second)):
                assert await wallet_repository.update_guarded([(wallet, wallet._replace(usage=used))], session=session)
        for who, payment in ((0, there), (1, back), (0, there)):
            answer = await staff[who].post("/transfers", **payment)
            assert answer.status_code == 201, answer.text
        shown = (await staff[0].get(f"/wallets/{first.id}/limits")).json()["limits"]
        assert LimitView(**shown["per_month"]).used == str(1_026 * largest)
        assert (await current(second)).usage.month_total == 1_025 * largest


class TestGivingBack:
    async def test_a_failed_withdrawal_gives_its_share_back(
        self, boss: Staff, owner: Staff, account: Account, databases: Databases
    ) -> None:
        await limit(boss, account, per_day=500, count_per_hour=1)
        accepted = await withdraw(owner, 500)
        assert refusal(await withdraw(owner, 1)) == (422, "limit_exceeded")
        operation = await record_repository.find(accepted.json()["id"], Operation)
        assert operation is not None
        await change(databases, failure_of(operation))
        shown = (await owner.get(f"/wallets/{account.wallet.id}/limits")).json()["limits"]
        assert [shown[name]["used"] for name in ("count_per_hour", "per_day", "per_month")] == [0, 0, 0]
        assert (await withdraw(owner, 500)).status_code == 202

    async def test_what_admins_adjust_is_not_counted(self, boss: Staff, owner: Staff, account: Account) -> None:
        await limit(boss, account, per_day=500)
        order: dict[str, Any] = {"amount": 600, "currency": "INR", "reason": "A mistake"}
        assert (await boss.post(f"/wallets/{account.wallet.id}/debits", **order)).status_code == 201
        assert (await withdraw(owner, 500)).status_code == 202


# 11 hours behind UTC, and 14 ahead: one has always a date that the other one has not.
_FAR_APART = ("Pacific/Pago_Pago", "Pacific/Kiritimati")


def dates_far_apart() -> list[str]:
    return [f"{datetime.now(ZoneInfo(zone)):%Y-%m-%d}" for zone in _FAR_APART]


class TestZones:
    """Times are those of a wallet in which nothing has happened yet: the clock is never asked."""

    async def test_a_wallet_has_that_of_its_currency_and_says_so(self, owner: Staff, account: Account) -> None:
        shown = (await owner.get(f"/wallets/{account.wallet.id}/limits")).json()
        assert (shown["time_zone"], shown["time_zone_from"]) == ("Asia/Kolkata", "currency")
        ends = [datetime.fromisoformat(shown["limits"][name]["resets_at"]) for name in ("per_day", "per_month")]
        assert [f"{end.astimezone(ZoneInfo('Asia/Kolkata')):%H:%M:%S}" for end in ends] == ["00:00:00"] * 2
        assert ends[1].astimezone(ZoneInfo("Asia/Kolkata")).day == 1

    async def test_an_admin_sets_another_one_and_takes_it_back(
        self, boss: Staff, owner: Staff, account: Account
    ) -> None:
        path = f"/admin/users/{account.user.id}/limits/INR"
        answer = await boss.put(path, time_zone="America/New_York", per_day=500, reason="Moved to the Bronx")
        assert (answer.status_code, answer.json()["time_zone"]) == (200, "America/New_York")
        assert answer.json()["time_zone_from"] == "wallet"
        again = await boss.put(path, time_zone="America/New_York", per_day=500, reason="Twice")
        assert again.status_code == 200
        refused = await withdraw(owner, 501)
        body = refused.json()
        assert (refusal(refused), body["time_zone"]) == ((422, "limit_exceeded"), "America/New_York")
        ends = datetime.fromisoformat(body["resets_at"]).astimezone(ZoneInfo("America/New_York"))
        assert f"{ends:%H:%M:%S}" == "00:00:00"
        answer = await boss.delete(path, reason="Came back")
        assert (answer.json()["time_zone"], answer.json()["is_overridden"]) == ("Asia/Kolkata", False)
        events = await boss.events(subject_id=account.wallet.id)
        zones = [
            (event["action"], event["details"]["was_time_zone"], event["details"]["time_zone"]) for event in events
        ]
        assert zones == [
            ("limits.reset", "America/New_York", None),
            ("limits.set", None, "America/New_York"),
        ]

    async def test_what_was_used_stays_used_there_and_back(self, boss: Staff, owner: Staff, account: Account) -> None:
        path = f"/admin/users/{account.user.id}/limits/INR"
        passed, dates = 0, dates_far_apart()
        for zone in _FAR_APART * 4:
            assert (await boss.put(path, time_zone=zone, per_day=500, reason="On the way")).status_code == 200
            passed += (await withdraw(owner, 500)).status_code == 202
        assert 1 <= passed <= 1 + (dates_far_apart() != dates)
        used = (await current(account.wallet)).usage
        assert used.month_total in (500, 500 * passed)

    @pytest.mark.parametrize(
        "wrong",
        [
            "Mars/Olympus", "../etc/passwd", "", "Asia", 5, "localtime", "posixrules", "Factory", "right/Asia/Kolkata",
            "posix/Asia/Kolkata", "asia/kolkata", "tzdata.zi",
        ],
    )  # fmt: skip
    async def test_what_is_none_is_refused(self, boss: Staff, owner: Staff, account: Account, wrong: Any) -> None:
        path = f"/admin/users/{account.user.id}/limits/INR"
        by_admin = await boss.put(path, time_zone=wrong, reason="A test")
        by_owner = await owner.patch("/me", time_zone=wrong)
        for answer in (by_admin, by_owner):
            assert refusal(answer) == (422, "invalid_fields")
            assert answer.json()["errors"][0]["pointer"] == "/time_zone"


class TestOnesOwnZone:
    async def test_holds_for_all_of_ones_wallets_and_those_that_one_opens(
        self, owner: Staff, account: Account, databases: Databases
    ) -> None:
        points = await make_wallet(databases, account.user, currency=POINTS)
        shown = (await owner.get(f"/wallets/{points.id}/limits")).json()
        assert (shown["time_zone"], shown["time_zone_from"]) == ("UTC", "default")
        assert (await owner.get("/me")).json()["time_zone"] is None
        answer = await owner.patch("/me", time_zone="Asia/Calcutta")
        assert (answer.status_code, answer.json()["time_zone"]) == (200, "Asia/Calcutta")
        assert (await owner.patch("/me", time_zone="Pacific/Apia")).status_code == 200
        assert (await owner.get("/me")).json()["time_zone"] == "Pacific/Apia"
        opened = (await owner.post("/wallets", currency="EUR")).json()["id"]
        for wallet_id in (account.wallet.id, points.id, opened):
            shown = (await owner.get(f"/wallets/{wallet_id}/limits")).json()
            assert (shown["time_zone"], shown["time_zone_from"]) == ("Pacific/Apia", "user")
            midnight = datetime.fromisoformat(shown["limits"]["per_day"]["resets_at"])
            assert f"{midnight.astimezone(ZoneInfo('Pacific/Apia')):%H:%M:%S}" == "00:00:00"

    async def test_yields_to_the_one_that_an_admin_has_set_for_a_wallet(
        self, boss: Staff, owner: Staff, account: Account
    ) -> None:
        path = f"/admin/users/{account.user.id}/limits/INR"
        await boss.put(path, time_zone="America/New_York", reason="Moved to the Bronx")
        await owner.patch("/me", time_zone="Pacific/Apia")
        shown = (await owner.get(f"/wallets/{account.wallet.id}/limits")).json()
        assert (shown["time_zone"], shown["time_zone_from"]) == ("America/New_York", "wallet")
        body = (await boss.delete(path, reason="Came back")).json()
        assert (body["time_zone"], body["time_zone_from"]) == ("Pacific/Apia", "user")
        assert (await owner.patch("/me", time_zone=None)).json()["time_zone"] is None
        shown = (await owner.get(f"/wallets/{account.wallet.id}/limits")).json()
        assert (shown["time_zone"], shown["time_zone_from"]) == ("Asia/Kolkata", "currency")

    async def test_changed_to_and_fro_gains_nothing(self, boss: Staff, owner: Staff, account: Account) -> None:
        await limit(boss, account, per_day=500)
        passed, dates = 0, dates_far_apart()
        for zone in _FAR_APART * 4:
            assert (await owner.patch("/me", time_zone=zone)).status_code == 200
            passed += (await withdraw(owner, 500)).status_code == 202
        assert 1 <= passed <= 1 + (dates_far_apart() != dates)

    async def test_is_on_record_once_for_each_change(self, boss: Staff, owner: Staff, account: Account) -> None:
        for zone in ("Pacific/Apia", "Pacific/Apia", None):
            assert (await owner.patch("/me", time_zone=zone)).status_code == 200
        events = await boss.events(subject_id=account.user.id, action="user.time_zone_set")
        assert [(one["actor_id"], one["details"]) for one in events] == [
            (account.user.id, {"time_zone": None, "was_time_zone": "Pacific/Apia"}),
            (account.user.id, {"time_zone": "Pacific/Apia", "was_time_zone": None}),
        ]

    async def test_has_to_be_said(self, owner: Staff) -> None:
        assert refusal(await owner.patch("/me")) == (422, "invalid_fields")
        assert refusal(await owner.patch("/me", time_zone="UTC", email="other@example.com")) == (422, "invalid_fields")


class TestReading:
    async def test_shows_all_four_with_what_was_used(
        self, owner: Staff, account: Account, resources: Resources, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        usual = Limits(per_transaction=400, per_day=1_000, per_month=0)
        monkeypatch.setattr(resources.ledger, "policy", Policy(limits={"INR": usual}))
        await withdraw(owner, 300)
        answer = await owner.get(f"/wallets/{account.wallet.id}/limits")
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert LimitsView(**body).model_dump() == body
        assert {name: body[name] for name in _FACTS} == {
            "wallet_id": account.wallet.id,
            "user_id": account.user.id,
            "currency": "INR",
            "time_zone": "Asia/Kolkata",
            "time_zone_from": "currency",
            "is_overridden": False,
            "override": None,
        }
        shown = {name: (one["ceiling"], one["used"], one["left"]) for name, one in body["limits"].items()}
        assert shown == {
            "per_transaction": (400, 0, 400),
            "count_per_hour": (None, 1, None),
            "per_day": (1_000, 300, 700),
            "per_month": (None, 300, None),
        }

    async def test_is_for_the_owner_and_for_admins(
        self, boss: Staff, account: Account, databases: Databases, settings: Settings
    ) -> None:
        path = f"/wallets/{account.wallet.id}/limits"
        assert (await boss.get(path)).status_code == 200
        for roles in ((), ("service",)):
            somebody = await Staff.hire(boss.api, databases, settings, *roles)
            assert refusal(await somebody.get(path)) == (404, "not_found")
        assert refusal(await boss.get(f"/wallets/wal_{uuid4().hex}/limits")) == (404, "not_found")


class TestOverriding:
    async def test_replaces_what_is_named_and_can_be_taken_back(
        self, boss: Staff, owner: Staff, account: Account, resources: Resources, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(resources.ledger, "policy", Policy(limits={"INR": Limits(per_day=100, per_month=1_000)}))
        body = (await limit(boss, account, per_day=200, per_month=0)).json()
        assert (body["is_overridden"], body["limits"]["per_day"]["ceiling"]) == (True, 200)
        assert body["limits"]["per_month"]["ceiling"] is None
        assert body["override"] == {
            "per_transaction": None,
            "per_day": 200,
            "per_month": 0,
            "count_per_hour": None,
        }
        assert (await withdraw(owner, 150)).status_code == 202
        path = f"/admin/users/{account.user.id}/limits/INR"
        answer = await boss.delete(path, reason="Back to normal")
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert (body["is_overridden"], body["limits"]["per_day"]) == (
            False,
            body["limits"]["per_day"] | {"ceiling": 100, "used": 150, "left": 0},
        )
        assert refusal(await withdraw(owner, 1)) == (422, "limit_exceeded")
        reset, first = await boss.events(subject_id=account.wallet.id)
        assert (first["action"], first["reason"], first["details"]["per_day"]) == ("limits.set", "A test", 200)
        assert (reset["action"], reset["reason"], reset["details"]["was_per_day"]) == (
            "limits.reset",
            "Back to normal",
            200,
        )

    async def test_puts_the_whole_override_in_place_of_the_one_before(self, boss: Staff, account: Account) -> None:
        await limit(boss, account, per_day=200)
        body = (await limit(boss, account, per_month=300)).json()
        assert (body["override"]["per_day"], body["override"]["per_month"]) == (None, 300)

    async def test_with_nothing_in_it_is_none(self, boss: Staff, account: Account) -> None:
        await limit(boss, account, per_day=200)
        body = (await limit(boss, account, per_day=None)).json()
        assert (body["is_overridden"], body["override"]) == (False, None)

    async def test_repeated_changes_nothing(self, boss: Staff, account: Account) -> None:
        for _ in range(2):
            assert (await limit(boss, account, per_day=200)).status_code == 200
        path = f"/admin/users/{account.user.id}/limits/INR"
        for _ in range(2):
            assert (await boss.delete(path)).status_code == 200
        assert len(await boss.events(subject_id=account.wallet.id)) == 2

    @pytest.mark.parametrize(
        "body",
        [
            {"per_day": 1},
            {"reason": "x", "per_day": -1},
            {"reason": "x", "per_day": 1.5},
            {"reason": "x", "per_day": "1"},
            {"reason": "x", "per_day": True},
            {"reason": "x", "per_day": 2**53},
            {"reason": "x", "per_year": 1},
        ],
        ids=str,
    )
    async def test_refuses_what_is_no_limit(self, boss: Staff, account: Account, body: dict[str, Any]) -> None:
        answer = await boss.put(f"/admin/users/{account.user.id}/limits/INR", **body)
        assert refusal(answer) == (422, "invalid_fields")

    async def test_needs_a_wallet_that_is_open(self, boss: Staff, databases: Databases) -> None:
        account = await make_account(databases)
        for path in (f"/admin/users/{account.user.id}/limits/USD", "/admin/users/usr_nobody/limits/INR"):
            assert refusal(await boss.put(path, reason="x", per_day=1)) == (404, "not_found")
        answer = await boss.put(f"/admin/users/{account.user.id}/limits/inr", reason="x", per_day=1)
        assert refusal(answer) == (422, "invalid_fields")
        await boss.post(f"/wallets/{account.wallet.id}/close", reason="Over")
        assert refusal(await limit(boss, account, per_day=1)) == (422, "wallet_closed")

    @pytest.mark.parametrize("roles", [(), ("service",)], ids=["nobody special", "a service"])
    async def test_is_for_admins(
        self, api: httpx.AsyncClient, account: Account, databases: Databases, settings: Settings, roles: tuple[str, ...]
    ) -> None:
        somebody = await Staff.hire(api, databases, settings, *roles)
        assert refusal(await limit(somebody, account, per_day=1)) == (403, "forbidden")
        path = f"/admin/users/{account.user.id}/limits/INR"
        assert refusal(await somebody.delete(path)) == (403, "forbidden")
        assert (await current(account.wallet)).limits is None


class TestAnAdminsOwn:
    async def test_are_set_and_reset_by_another_admin(
        self, boss: Staff, api: httpx.AsyncClient, databases: Databases, settings: Settings
    ) -> None:
        wallet = await make_wallet(databases, boss.user)
        path = f"/admin/users/{boss.user.id}/limits/INR"
        assert refusal(await boss.put(path, reason="More", per_day=10**9)) == (403, "second_admin_required")
        other = await Staff.hire(api, databases, settings, "admin")
        assert (await other.put(path, reason="Less", per_day=1)).status_code == 200
        assert refusal(await boss.delete(path, reason="Back")) == (403, "second_admin_required")
        assert (await current(wallet)).limits == Limits(per_day=1)
