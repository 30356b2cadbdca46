"""User administration over HTTP: finding people, shutting them out, saying what they may, and never the last admin."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from service.controllers.schemas import PageView
from service.controllers.user_administration import _EXAMPLE, AdministeredUserView
from service.database import Databases
from service.documents import User
from service.domain.clock import to_rfc3339, utc_now
from service.domain.operations import Operation, OperationStatus, OperationType
from service.repositories import records as record_repository
from service.settings import Settings
from tests.books import asking_before
from tests.factories import (
    PASSWORD,
    bearer,
    change,
    current,
    failure_of,
    make_account,
    make_user,
    settlement_of,
)
from tests.refusals import refusal
from tests.staff import Staff

_USERS = "/admin/users"


@pytest.fixture
async def boss(api: httpx.AsyncClient, databases: Databases, settings: Settings) -> Staff:
    return await Staff.hire(api, databases, settings, "admin")


async def deactivate(admin: Staff, user: User, reason: str = "Stolen telephone") -> httpx.Response:
    return await admin.post(f"{_USERS}/{user.id}/deactivate", reason=reason)


async def reactivate(admin: Staff, user: User, reason: str = "Found again") -> httpx.Response:
    return await admin.post(f"{_USERS}/{user.id}/reactivate", reason=reason)


async def set_roles(admin: Staff, user: User, *roles: str, reason: str = "New work") -> httpx.Response:
    """With another admin's approval, where that is needed."""
    answer = await admin.put(f"{_USERS}/{user.id}/roles", roles=list(roles), reason=reason)
    if answer.status_code == httpx.codes.ACCEPTED:
        await admin.confirmed(answer)
    return answer


async def standing(databases: Databases, user: User) -> tuple[list[str], bool, int]:
    row: dict[str, Any] = await databases.wallet["users"].find_one({"_id": user.id}) or {}
    return row["roles"], row["is_active"], row["token_version"]


async def log_in(api: httpx.AsyncClient, user: User) -> dict[str, Any]:
    answer = await api.post("/api/v1/auth/login", json={"email": user.email, "password": PASSWORD})
    assert answer.status_code == 200, answer.text
    tokens: dict[str, Any] = answer.json()
    return tokens


class TestLooking:
    async def test_finds_one(self, boss: Staff, databases: Databases) -> None:
        user = await make_user(databases)
        answer = await boss.get(f"{_USERS}/{user.id}")
        assert answer.status_code == 200, answer.text
        shown = answer.json()
        assert AdministeredUserView(**shown).model_dump(mode="json") == shown
        assert (shown["id"], shown["email"], shown["roles"]) == (user.id, user.email, ["user"])
        assert refusal(await boss.get(f"{_USERS}/usr_nobody")) == (404, "not_found")

    async def test_lists_them_newest_first_page_by_page(self, boss: Staff, databases: Databases) -> None:
        since = to_rfc3339(utc_now())
        made = [await make_user(databases) for _ in range(3)]
        first = (await boss.get(_USERS, created_from=since, limit=2)).json()
        assert PageView[AdministeredUserView](**first).model_dump(mode="json") == first
        second = (await boss.get(_USERS, created_from=since, limit=2, cursor=first["next_cursor"])).json()
        assert [user["id"] for user in first["data"] + second["data"]] == [user.id for user in reversed(made)]
        assert not second["has_more"]

    async def test_narrows_the_list(self, boss: Staff, databases: Databases) -> None:
        now = utc_now()
        user = await make_user(databases, roles=["user", "service"], is_active=False, created_at=now)
        email = {"email": user.email}
        soon, before = to_rfc3339(now + timedelta(milliseconds=1)), to_rfc3339(now - timedelta(days=1))
        for query, is_found in (
            (email, True),
            ({"email": user.email.upper()}, True),
            ({"email": user.email[:-1]}, False),
            ({"email": "nobody"}, False),
            (email | {"role": "service"}, True),
            (email | {"role": "user"}, True),
            (email | {"role": "admin"}, False),
            (email | {"is_active": "false"}, True),
            (email | {"is_active": "true"}, False),
            (email | {"created_from": to_rfc3339(now), "created_to": soon}, True),
            (email | {"created_from": soon}, False),
            (email | {"created_to": to_rfc3339(now)}, False),
            (email | {"created_from": before}, True),
            ({"role": "service", "is_active": "false", "limit": "1"}, True),
        ):
            answer = await boss.get(_USERS, **query)
            assert answer.status_code == 200, answer.text
            assert [one["id"] for one in answer.json()["data"]] == [user.id] * is_found, query

    @pytest.mark.parametrize(
        "wrong", [{"role": "root"}, {"is_active": "perhaps"}, {"password_hash": "x"}, {"email[$ne]": "x"}]
    )
    async def test_refuses_filters_that_are_none(self, boss: Staff, wrong: dict[str, str]) -> None:
        assert refusal(await boss.get(_USERS, **wrong)) == (422, "invalid_fields")

    @pytest.mark.parametrize(
        ("condition", "index"),
        [
            ({}, "_id_"),
            ({"roles": "service"}, "role_newest"),
            ({"is_active": False}, "active_newest"),
            ({"email": "asha@example.com"}, "email"),
        ],
        ids=["all", "role", "activity", "e-mail"],
    )
    async def test_goes_by_an_index(self, databases: Databases, condition: dict[str, Any], index: str) -> None:
        users = databases.wallet["users"]
        plan = await users.find(condition).sort("_id", -1).limit(20).explain()
        assert f"'indexName': '{index}'" in str(plan["queryPlanner"]["winningPlan"])
        if index != "email":
            assert "'SORT'" not in str(plan["queryPlanner"]["winningPlan"])

    def test_has_an_example_that_is_right(self) -> None:
        assert AdministeredUserView(**_EXAMPLE).model_dump(mode="json") == _EXAMPLE


class TestDeactivating:
    async def test_shuts_somebody_out_at_once(
        self, api: httpx.AsyncClient, boss: Staff, databases: Databases, settings: Settings
    ) -> None:
        account = await make_account(databases, balance=1_000)
        headers = bearer(account.user, settings)
        answer = await deactivate(boss, account.user)
        assert (answer.status_code, answer.json()["is_active"]) == (200, False)
        assert await standing(databases, account.user) == (["user"], False, 1)
        login = {"email": account.user.email, "password": PASSWORD}
        assert refusal(await api.post("/api/v1/auth/login", json=login)) == (401, "invalid_credentials")
        order = {"amount": 100, "currency": "INR", "destination": "bank-account-0001"}
        sent = await api.post("/api/v1/withdrawals", json=order, headers={**headers, "Idempotency-Key": uuid4().hex})
        # Of the ledger, or of the process once it has heard of it: a second decides.
        assert refusal(sent) in {(403, "account_deactivated"), (401, "unauthenticated")}
        assert refusal(await api.get("/api/v1/me", headers=headers)) == (401, "unauthenticated")
        assert (await current(account.wallet)).available == 1_000

    async def test_ends_their_sessions(self, api: httpx.AsyncClient, boss: Staff, databases: Databases) -> None:
        user = await make_user(databases)
        tokens = await log_in(api, user)
        await deactivate(boss, user)
        await reactivate(boss, user)
        refreshed = await api.post("/api/v1/auth/refresh", json={"refresh_token": tokens["refresh_token"]})
        assert refreshed.status_code == 401, refreshed.text

    async def test_is_accounted_for_once(self, boss: Staff, databases: Databases) -> None:
        user = await make_user(databases)
        answers = await asyncio.gather(*(deactivate(boss, user) for _ in range(4)), deactivate(boss, user, "Again"))
        assert [answer.status_code for answer in answers] == [200] * 5
        (event,) = await boss.events(subject_id=user.id)
        assert (event["action"], event["actor_id"]) == ("user.deactivated", boss.user.id)
        assert await standing(databases, user) == (["user"], False, 1)

    async def test_ends_their_api_keys_until_they_are_back(
        self, api: httpx.AsyncClient, boss: Staff, databases: Databases
    ) -> None:
        relay = await make_user(databases, roles=["service"])
        key = await boss.post("/admin/api-keys", None, user_id=relay.id, name="Till", permissions=["wallets:read"])
        headers = {"X-API-Key": key.json()["secret"]}
        await deactivate(boss, relay)
        assert refusal(await api.get("/api/v1/wallets", headers=headers)) == (401, "unauthenticated")
        await reactivate(boss, relay)
        assert (await api.get("/api/v1/wallets", headers=headers)).status_code == 200

    @pytest.mark.parametrize(
        ("is_paid", "left", "status"),
        [(True, 600, OperationStatus.SUCCESS), (False, 1_000, OperationStatus.FAILED)],
        ids=["paid out", "given back"],
    )
    async def test_lets_end_what_is_under_way(
        self,
        api: httpx.AsyncClient,
        boss: Staff,
        databases: Databases,
        settings: Settings,
        is_paid: bool,
        left: int,
        status: OperationStatus,
    ) -> None:
        account = await make_account(databases, balance=1_000)
        order = {"amount": 400, "currency": "INR", "destination": "bank-account-0001"}
        headers = {**bearer(account.user, settings), "Idempotency-Key": uuid4().hex}
        accepted = await api.post("/api/v1/withdrawals", json=order, headers=headers)
        assert accepted.status_code == 202, accepted.text
        operation = await record_repository.find(accepted.json()["id"], Operation)
        assert operation is not None
        assert operation.type is OperationType.WITHDRAWAL
        end = settlement_of(operation) if is_paid else failure_of(operation)
        await change(databases, asking_before(end))
        assert (await deactivate(boss, account.user)).status_code == 200
        ended = await change(databases, end, is_bank_asked=False)
        assert ended.status is status
        wallet = await current(account.wallet)
        assert (wallet.available, wallet.held, wallet.open_operations) == (left, 0, 0)

    async def test_takes_a_reason(self, boss: Staff, databases: Databases) -> None:
        user = await make_user(databases)
        for body in ({}, {"reason": ""}, {"reason": " "}, {"reason": None}, {"reason": "x", "force": True}):
            for deed in ("deactivate", "reactivate"):
                answer = await boss.api.post(f"/api/v1{_USERS}/{user.id}/{deed}", json=body, headers=boss.headers)
                assert refusal(answer) == (422, "invalid_fields")
        assert refusal(await boss.post(f"{_USERS}/usr_nobody/deactivate", reason="x")) == (404, "not_found")


class TestReactivating:
    async def test_lets_somebody_log_in_again_but_not_go_on(
        self, api: httpx.AsyncClient, boss: Staff, databases: Databases, settings: Settings
    ) -> None:
        user = await make_user(databases)
        old = bearer(user, settings)
        await deactivate(boss, user)
        answers = [await reactivate(boss, user), await reactivate(boss, user)]
        assert [(answer.status_code, answer.json()["is_active"]) for answer in answers] == [(200, True)] * 2
        assert refusal(await api.get("/api/v1/me", headers=old)) == (401, "unauthenticated")
        login = await api.post("/api/v1/auth/login", json={"email": user.email, "password": PASSWORD})
        headers = {"Authorization": f"Bearer {login.json()['access_token']}"}
        assert (await api.get("/api/v1/me", headers=headers)).status_code == 200
        actions = [event["action"] for event in await boss.events(subject_id=user.id, actor_id=boss.user.id)]
        assert actions == ["user.reactivated", "user.deactivated"]


class TestRoles:
    async def test_are_replaced_and_accounted_for(self, boss: Staff, databases: Databases) -> None:
        user = await make_user(databases)
        answer = await set_roles(boss, user, "service", "user", reason="Integrates the shop")
        assert (answer.status_code, answer.json()["roles"]) == (202, ["user", "service"])
        answer = await set_roles(boss, user, "user", reason="Is integrated")
        assert (answer.status_code, answer.json()["roles"]) == (200, ["user"])
        taken, given = await boss.events(subject_id=user.id)
        assert (taken["action"], taken["reason"]) == ("user.roles_changed", "Is integrated")
        assert taken["details"] == {"roles": "user", "was_roles": "user,service"}
        assert (given["action"], given["reason"]) == ("user.roles_changed", "Integrates the shop")
        assert given["details"] == given["details"] | {"roles": "user,service", "was_roles": "user"}

    async def test_end_tokens_only_where_one_is_taken_away(self, boss: Staff, databases: Databases) -> None:
        user = await make_user(databases)
        for roles, version in ((("user", "admin"), 0), (("admin", "user"), 0), (("user",), 1), (("service",), 2)):
            assert (await set_roles(boss, user, *roles)).is_success
            assert (await standing(databases, user))[2] == version
        assert len(await boss.events(subject_id=user.id)) == 3

    async def test_that_are_new_come_with_the_next_token_of_the_session(
        self, api: httpx.AsyncClient, boss: Staff, databases: Databases
    ) -> None:
        user = await make_user(databases)
        tokens = await log_in(api, user)
        await set_roles(boss, user, "user", "admin")
        headers = {"Authorization": f"Bearer {tokens['access_token']}"}
        assert refusal(await api.get(f"/api/v1{_USERS}", headers=headers)) == (403, "forbidden")
        refreshed = await api.post("/api/v1/auth/refresh", json={"refresh_token": tokens["refresh_token"]})
        headers = {"Authorization": f"Bearer {refreshed.json()['access_token']}"}
        assert (await api.get(f"/api/v1{_USERS}", headers=headers)).status_code == 200

    async def test_that_were_taken_away_are_gone_at_once(
        self, boss: Staff, api: httpx.AsyncClient, databases: Databases, settings: Settings
    ) -> None:
        other = await Staff.hire(api, databases, settings, "admin")
        assert (await other.get(_USERS)).status_code == 200
        await set_roles(boss, other.user, "user")
        assert refusal(await other.get(_USERS)) == (401, "unauthenticated")
        assert refusal(await deactivate(other, boss.user)) == (401, "unauthenticated")

    @pytest.mark.parametrize("roles", [[], ["root"], ["user", "user"], "user", [1], None, {"$set": 1}], ids=str)
    async def test_are_of_those_that_there_are(self, boss: Staff, databases: Databases, roles: Any) -> None:
        user = await make_user(databases)
        answer = await boss.put(f"{_USERS}/{user.id}/roles", roles=roles, reason="x")
        assert refusal(answer) == (422, "invalid_fields")
        assert await standing(databases, user) == (["user"], True, 0)


class TestThereIsAlwaysAnAdmin:
    async def test_because_nobody_does_it_to_themself(self, boss: Staff, databases: Databases) -> None:
        assert refusal(await deactivate(boss, boss.user)) == (403, "own_account")
        assert refusal(await reactivate(boss, boss.user)) == (403, "own_account")
        for roles in (("user",), ("user", "admin"), ("user", "service", "admin")):
            assert refusal(await set_roles(boss, boss.user, *roles)) == (403, "own_account")
        assert await standing(databases, boss.user) == (["user", "admin"], True, 0)

    @pytest.mark.parametrize("count", [2, 3, 5])
    @pytest.mark.parametrize("round_number", range(5))
    async def test_also_where_all_demote_each_other_at_once(
        self, api: httpx.AsyncClient, databases: Databases, settings: Settings, count: int, round_number: int
    ) -> None:
        admins = [await Staff.hire(api, databases, settings, "admin") for _ in range(count)]
        pairs = list(zip(admins, [*admins[1:], admins[0]], strict=True))
        deeds = [
            deactivate(admin, other.user) if (number + round_number) % 2 else set_roles(admin, other.user, "user")
            for number, (admin, other) in enumerate(pairs)
        ]
        answers = await asyncio.gather(*deeds)
        ids = [admin.user.id for admin in admins]
        still = {"_id": {"$in": ids}, "roles": "admin", "is_active": True}
        left = await databases.wallet["users"].count_documents(still)
        assert left
        done = [answer.status_code for answer in answers].count(200)
        assert done == count - left
        for answer in answers:
            assert answer.status_code == 200 or refusal(answer) == (401, "unauthenticated")
