"""Limits of a user over all wallets, over HTTP: what counts, what is given back, overrides, and who sees them."""

from typing import Any
from uuid import uuid4

import httpx
import pytest

from service.controllers.limits import OverallLimitsView
from service.database import Databases
from service.domain.limits import Limits
from service.domain.operations import Operation
from service.domain.policy import Policy
from service.domain.user_limits import UserLimits, user_limits_id
from service.domain.wallets import Wallet
from service.repositories import records as record_repository
from service.repositories import wallets as wallet_repository
from service.settings import Settings
from service.startup import Resources
from tests.factories import (
    Account,
    change,
    failure_of,
    fund_wallet,
    make_account,
    make_user,
    make_wallet,
)
from tests.refusals import refusal
from tests.staff import Staff


@pytest.fixture
async def boss(api: httpx.AsyncClient, databases: Databases, settings: Settings) -> Staff:
    return await Staff.hire(api, databases, settings, "admin")


@pytest.fixture
async def account(databases: Databases) -> Account:
    """10,000.00 INR, which are 120.12 USD."""
    return await make_account(databases, balance=1_000_000)


@pytest.fixture
async def dollars(databases: Databases, account: Account) -> Wallet:
    wallet = await make_wallet(databases, account.user, currency="USD")
    await fund_wallet(databases, wallet, 20_000)
    return wallet


@pytest.fixture
def owner(api: httpx.AsyncClient, account: Account, dollars: Wallet, settings: Settings) -> Staff:  # noqa: ARG001 the money has to be there
    return Staff(api, account.user, settings)


async def limit(boss: Staff, account: Account, **limits: int | None) -> httpx.Response:
    answer = await boss.put(f"/admin/users/{account.user.id}/limits", reason="A test", **limits)
    assert answer.status_code == 200, answer.text
    return answer


async def withdraw(owner: Staff, amount: int, currency: str = "USD") -> httpx.Response:
    return await owner.post("/withdrawals", amount=amount, currency=currency, destination="savings-success")


async def used_today(owner: Staff) -> int:
    shown = (await owner.get("/me/limits")).json()["limits"]["per_day"]
    return int(shown["used"])


class TestADaysLimit:
    async def test_of_100_dollars_lets_60_go_in_dollars_and_not_60_more_in_rupees(
        self, boss: Staff, owner: Staff, account: Account
    ) -> None:
        await limit(boss, account, per_day=10_000)
        first = await withdraw(owner, 6_000)
        assert first.status_code == 202, first.text
        refused = await withdraw(owner, 499_500, "INR")
        assert refusal(refused) == (422, "limit_exceeded")
        facts = {name: refused.json()[name] for name in ("scope", "currency", "limit", "ceiling", "left")}
        assert facts == {"scope": "user", "currency": "USD", "limit": "per_day", "ceiling": 10_000, "left": 4_000}
        assert (await withdraw(owner, 333_000, "INR")).status_code == 202
        assert refusal(await withdraw(owner, 1, "INR")) == (422, "limit_exceeded")
        assert (await owner.post(f"/withdrawals/{first.json()['id']}/cancel")).status_code == 200
        assert await used_today(owner) == 4_000
        assert (await withdraw(owner, 499_500, "INR")).status_code == 202

    async def test_counts_transfers_and_holds_for_others_and_not_what_one_exchanges(
        self, boss: Staff, owner: Staff, account: Account, dollars: Wallet, databases: Databases
    ) -> None:
        await limit(boss, account, per_day=10_000)
        friend = await make_user(databases)
        theirs = await make_wallet(databases, friend, currency="USD")
        order: dict[str, Any] = {"from_wallet_id": dollars.id, "amount": 1_000, "currency": "USD"}
        assert (await owner.post("/transfers", to_wallet_id=theirs.id, **order)).status_code == 201
        batch: dict[str, Any] = {"mode": "best_effort", "transfers": [{**order, "to_wallet_id": theirs.id}] * 2}
        assert (await owner.post("/transfers/batch", **batch)).status_code == 201
        assert await used_today(owner) == 3_000
        held = await owner.post("/holds", wallet_id=dollars.id, amount=3_000, currency="USD")
        assert held.status_code == 201, held.text
        assert await used_today(owner) == 6_000
        captured = await owner.post(f"/holds/{held.json()['id']}/capture", amount=1_000, to_wallet_id=theirs.id)
        assert captured.status_code == 200, captured.text
        assert await used_today(owner) == 4_000
        wish = {"from_currency": "INR", "to_currency": "USD", "amount": 900_000}
        quote = await owner.api.post("/api/v1/quotes", json=wish, headers=owner.headers)
        assert (await owner.post("/conversions", quote_id=quote.json()["id"])).status_code == 201
        assert await used_today(owner) == 4_000

    async def test_gets_back_what_came_to_nothing(
        self, boss: Staff, owner: Staff, account: Account, dollars: Wallet, databases: Databases
    ) -> None:
        await limit(boss, account, per_day=10_000, count_per_hour=2)
        theirs = await make_wallet(databases, await make_user(databases), currency="USD")
        order: dict[str, Any] = {
            "from_wallet_id": dollars.id,
            "to_wallet_id": theirs.id,
            "amount": 2_000,
            "currency": "USD",
        }
        sent = await owner.post("/transfers", **order)
        failing = await withdraw(owner, 499_500, "INR")
        assert refusal(await withdraw(owner, 1)) == (422, "limit_exceeded")
        assert await used_today(owner) == 8_000
        operation = await record_repository.find(failing.json()["id"], Operation)
        assert operation is not None
        await change(databases, failure_of(operation))
        assert await used_today(owner) == 2_000
        path = f"/transfers/{sent.json()['id']}/reversal"
        assert (await boss.post(path, reason="By mistake")).status_code == 201
        shown = (await owner.get("/me/limits")).json()["limits"]
        assert [shown[name]["used"] for name in ("count_per_hour", "per_day", "per_month")] == [0, 0, 0]

    async def test_of_the_settings_holds_for_everybody(
        self, owner: Staff, account: Account, resources: Resources, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        usual = resources.ledger.policy.user_limits._replace(limits=Limits(per_day=100))
        monkeypatch.setattr(resources.ledger, "policy", Policy(user_limits=usual))
        assert (await withdraw(owner, 60)).status_code == 202
        assert refusal(await withdraw(owner, 3_331, "INR")) == (422, "limit_exceeded")
        assert (await withdraw(owner, 3_330, "INR")).status_code == 202
        known = await record_repository.find(user_limits_id(account.user.id), UserLimits)
        assert known is not None
        assert (known.usage.day_total, known.usage_currency) == (100, "USD")

    async def test_of_what_has_no_rate_is_refused(
        self, owner: Staff, resources: Resources, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A limit that cannot be counted would be none."""
        usual = resources.ledger.policy.user_limits
        without = usual._replace(limits=Limits(per_day=100), rates={"USD": usual.rates["USD"]})
        monkeypatch.setattr(resources.ledger, "policy", Policy(user_limits=without))
        assert refusal(await withdraw(owner, 1, "INR")) == (422, "rate_unavailable")
        assert (await withdraw(owner, 1)).status_code == 202


class TestAnOverride:
    async def test_is_seen_by_the_owner_and_by_admins(self, boss: Staff, owner: Staff, account: Account) -> None:
        before = (await owner.get("/me/limits")).json()
        assert OverallLimitsView(**before).model_dump() == before
        assert (before["currency"], before["is_overridden"], before["override"]) == ("USD", False, None)
        assert (before["time_zone"], before["time_zone_from"]) == ("America/New_York", "currency")
        assert [one["ceiling"] for one in before["limits"].values()] == [None] * 4
        shown = (await limit(boss, account, per_day=10_000, count_per_hour=0)).json()
        assert shown["limits"]["per_day"] == {
            "ceiling": 10_000, "used": 0, "left": 10_000, "resets_at": shown["limits"]["per_day"]["resets_at"],
        }  # fmt: skip
        await owner.patch("/me", time_zone="Pacific/Apia")
        shown = (await owner.get("/me/limits")).json()
        assert (shown["time_zone"], shown["time_zone_from"]) == ("Pacific/Apia", "user")
        assert (await boss.get(f"/admin/users/{account.user.id}/limits")).json() == shown

    async def test_is_taken_back_and_what_was_used_stays_used(
        self, boss: Staff, owner: Staff, account: Account, resources: Resources, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        usual = resources.ledger.policy.user_limits._replace(limits=Limits(per_day=50))
        monkeypatch.setattr(resources.ledger, "policy", Policy(user_limits=usual))
        await limit(boss, account, per_day=100)
        assert (await withdraw(owner, 80)).status_code == 202
        path = f"/admin/users/{account.user.id}/limits"
        for _ in range(2):
            shown = (await boss.delete(path, reason="Back to normal")).json()
            assert (shown["is_overridden"], shown["override_currency"]) == (False, None)
            assert shown["limits"]["per_day"]["left"] == 0
        assert refusal(await withdraw(owner, 1)) == (422, "limit_exceeded")
        reset, first = await boss.events(subject_id=account.user.id)
        assert (first["action"], first["details"]["per_day"], first["details"]["currency"]) == (
            "user.limits_set",
            100,
            "USD",
        )
        assert (reset["action"], reset["reason"], reset["details"]["was_per_day"]) == (
            "user.limits_reset",
            "Back to normal",
            100,
        )

    async def test_holds_for_a_wallet_that_is_opened_later(
        self, boss: Staff, owner: Staff, account: Account, databases: Databases
    ) -> None:
        await limit(boss, account, per_day=100)
        opened = await wallet_repository.find((await owner.post("/wallets", currency="EUR")).json()["id"])
        assert opened is not None
        await fund_wallet(databases, opened, 1_000)
        assert refusal(await withdraw(owner, 93, "EUR")) == (422, "limit_exceeded")
        assert (await withdraw(owner, 92, "EUR")).status_code == 202

    async def test_is_converted_where_the_reference_is_another_currency_by_now(
        self, boss: Staff, owner: Staff, account: Account, resources: Resources, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await limit(boss, account, per_day=100)
        rates = {"INR": await resources.rates.rate("INR", "INR"), "USD": await resources.rates.rate("USD", "INR")}
        usual = resources.ledger.policy.user_limits._replace(currency="INR", rates=rates)
        monkeypatch.setattr(resources.ledger, "policy", Policy(user_limits=usual))
        shown = (await owner.get("/me/limits")).json()
        assert (shown["currency"], shown["override_currency"]) == ("INR", "USD")
        assert shown["limits"]["per_day"]["ceiling"] == 8_325
        assert refusal(await withdraw(owner, 8_326, "INR")) == (422, "limit_exceeded")
        assert (await withdraw(owner, 8_325, "INR")).status_code == 202

    async def test_is_for_admins_and_not_for_themselves(
        self, boss: Staff, owner: Staff, account: Account, databases: Databases
    ) -> None:
        path = f"/admin/users/{account.user.id}/limits"
        for answer in (await owner.get(path), await owner.put(path, reason="x", per_day=1), await owner.delete(path)):
            assert refusal(answer) == (403, "forbidden")
        await make_wallet(databases, boss.user)
        own = await boss.put(f"/admin/users/{boss.user.id}/limits", reason="More", per_day=10**9)
        assert refusal(own) == (403, "second_admin_required")
        nobody = f"/admin/users/usr_{uuid4().hex}/limits"
        assert refusal(await boss.get(nobody)) == (404, "not_found")
        assert refusal(await boss.put(nobody, reason="x", per_day=1)) == (404, "not_found")
        assert refusal(await boss.put(path, reason="x", time_zone="UTC")) == (422, "invalid_fields")
