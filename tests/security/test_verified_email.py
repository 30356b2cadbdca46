"""An address that nobody has proven: it is nobody's yet, and whoever proves it first inherits nothing."""

from typing import Any

import httpx
import pytest

from service.database import Databases
from service.documents import User
from service.domain.clock import utc_now
from service.domain.outbox import OutboxTopic, outbox_row
from service.repositories import outbox as outbox_repository
from service.repositories import users as user_repository
from service.services.email_proofs import mark_addresses_proven_before
from service.services.outbox import pursue_row
from service.settings import Settings
from service.startup import Resources
from tests.controllers.test_password_changes import NEW_PASSWORD, Office, confirm
from tests.factories import PASSWORD, make_account, make_user
from tests.logins import OUT, PASSWORD_CHANGE, Login, audit_actions
from tests.payer import Payer
from tests.refusals import refusal
from tests.staff import Staff

_UNPROVEN: dict[str, Any] = {"email_verified_at": None}


@pytest.fixture
def office(resources: Resources, api: httpx.AsyncClient) -> Office:
    return Office(resources, api)


class TestAnUnprovenAddress:
    async def test_cannot_be_paid_until_its_owner_has_proven_it(
        self, api: httpx.AsyncClient, databases: Databases, settings: Settings, office: Office
    ) -> None:
        sender = await Payer.with_balance(api, databases, settings, 10_000)
        squatter = (await make_account(databases, **_UNPROVEN)).user
        assert refusal(await sender.send(to_email=squatter.email)) == (404, "recipient_not_found")
        assert (await confirm(api, await office.reset_token(squatter))).status_code == 204
        assert (await sender.send(to_email=squatter.email)).status_code == 201

    async def test_gets_no_notices(self, databases: Databases, office: Office) -> None:
        for proven, mails in (({}, 1), (_UNPROVEN, 0)):
            user = await make_user(databases, **proven)
            row = outbox_row(OutboxTopic.PASSWORD_NOTICE, user.id, None, utc_now())
            await outbox_repository.insert_many([row], session=None)
            await pursue_row(row, office.desk())
            assert len(office.mails(user)) == mails


class TestTheFirstProof:
    async def test_ends_whatever_was_made_before_it(
        self, api: httpx.AsyncClient, databases: Databases, settings: Settings, office: Office
    ) -> None:
        """Somebody registers with an address that is not theirs, and waits for its owner to come."""
        squatter = await Login.of_somebody(api, databases, roles=["user", "service"], **_UNPROVEN)
        app = await squatter.post("/api/v1/me/totp", {"password": PASSWORD})
        assert app.status_code in (200, 201, 202), app.text
        hook = await squatter.post("/api/v1/webhook-endpoints", {"url": "http://127.0.0.1:9/events"})
        assert hook.status_code == 201, hook.text
        admin = await Staff.hire(api, databases, settings, "admin")
        key = await admin.post("/admin/api-keys", user_id=squatter.user.id, name="A key", permissions=["wallets:read"])
        assert key.status_code == 201, key.text

        assert (await confirm(api, await office.reset_token(squatter.user))).status_code == 204

        assert refusal(await api.get("/api/v1/me", headers=squatter.headers)) == OUT
        assert (await squatter.refresh()).status_code == 401
        by_key = await api.get("/api/v1/wallets", headers={"X-API-Key": key.json()["key"]})
        assert by_key.status_code == 401
        owner = await Login.of(api, squatter.user, NEW_PASSWORD)
        me = (await api.get("/api/v1/me", headers=owner.headers)).json()
        assert me["is_email_verified"] is True
        assert (await api.get("/api/v1/webhook-endpoints", headers=owner.headers)).json()["data"] == []
        totp = (await api.get("/api/v1/me/totp", headers=owner.headers)).json()
        assert totp["status"] == "none"
        assert "user.email_verified" in await audit_actions(databases, squatter.user)

    async def test_is_no_change_of_the_password_by_who_knows_it(
        self, api: httpx.AsyncClient, databases: Databases
    ) -> None:
        squatter = await Login.of_somebody(api, databases, **_UNPROVEN)
        body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
        assert (await squatter.post(PASSWORD_CHANGE, body)).status_code == 200
        after = await user_repository.find(squatter.user.id)
        assert after is not None
        assert after.email_verified_at is None

    async def test_is_the_only_one_that_ends_anything(
        self, api: httpx.AsyncClient, databases: Databases, office: Office
    ) -> None:
        user = await Login.of_somebody(api, databases)
        assert (await user.post("/api/v1/webhook-endpoints", {"url": "http://127.0.0.1:9/events"})).status_code == 201
        assert (await confirm(api, await office.reset_token(user.user))).status_code == 204
        owner = await Login.of(api, user.user, NEW_PASSWORD)
        assert len((await api.get("/api/v1/webhook-endpoints", headers=owner.headers)).json()["data"]) == 1
        assert "user.email_verified" not in await audit_actions(databases, user.user)


class TestUsersOfOldData:
    async def test_have_proven_their_address_where_they_reset_their_password_by_mail(
        self, api: httpx.AsyncClient, databases: Databases, office: Office
    ) -> None:
        reset, other = (await make_account(databases)).user, await make_user(databases)
        assert (await confirm(api, await office.reset_token(reset))).status_code == 204
        ids = [reset.id, other.id]
        await databases.wallet["users"].update_many({"_id": {"$in": ids}}, {"$unset": {"email_verified_at": ""}})
        for _ in range(2):
            await mark_addresses_proven_before()
            found: list[User | None] = [await user_repository.find(user_id) for user_id in ids]
            assert [user is not None and user.email_verified_at is not None for user in found] == [True, False]
