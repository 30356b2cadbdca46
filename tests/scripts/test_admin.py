"""The command that makes the first admins."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.database import Databases, connect, set_up
from service.errors import AccountDeactivated
from service.services.first_admins import Deed, Outcome, appoint_admin
from service.settings import Settings
from service.startup import Resources
from tests.commands import Ended, run_module
from tests.factories import make_account, make_user
from tests.servers import Servers, make_settings
from tests.test_settings import PRODUCTION, STAND_INS


@pytest.fixture
async def own(servers: Servers) -> AsyncIterator[tuple[Settings, Databases]]:
    """A database that nobody has been in."""
    settings = make_settings(servers)
    await set_up(settings)
    databases = connect(settings.mongo_url.get_secret_value(), settings)
    yield settings, databases
    await databases.client.close()


def _production() -> dict[str, str]:
    secrets = {f"WALLET_{name.upper()}": secret.get_secret_value() for name, secret in PRODUCTION.items()}
    return {"WALLET_ENV": "production", **secrets, **{f"WALLET_{name.upper()}": "true" for name in STAND_INS}}


class TestTheCommand:
    async def test_makes_two_admins_and_tells_what_to_do_next_and_refuses_a_third(
        self, own: tuple[Settings, Databases], tmp_path: Path
    ) -> None:
        settings, databases = own

        async def appoint(*arguments: str) -> Ended:
            return await run_module(settings, tmp_path, "scripts.admin", *arguments, **_production())

        first = await appoint("Ines@Example.com", "--first-name", "Ines", "--last-name", "Moreno")
        assert first.status == 0, first
        assert "password-reset/confirm" in first.out
        assert "second admin" in first.out
        user = await databases.wallet["users"].find_one({"email": "ines@example.com"})
        assert user is not None
        assert (user["first_name"], user["roles"], user["is_active"]) == ("Ines", ["user", "admin"], True)
        assert await databases.wallet["wallets"].count_documents({"user_id": user["_id"]}) == 1
        # A worker sends the mail; until then nobody knows a password.
        (row,) = await databases.wallet["outbox"].find().to_list()
        assert (row["topic"], row["subject_id"]) == ("password_reset", "ines@example.com")

        second = await appoint("jonas@example.com")
        assert (second.status, "second admin" in second.out) == (0, False), second
        third = await appoint("eve@example.com")
        assert (third.status, "--force" in third.err) == (1, True), third
        assert await databases.wallet["users"].count_documents({}) == 2
        events = await databases.wallet["audit_events"].find({"action": "admin.appointed"}).to_list()
        assert {event["actor_id"] for event in events} == {"operator"}
        assert len(events) == 2
        assert all(event["reason"] and "@" in event["details"]["by"] for event in events)

    async def test_refuses_what_is_no_address(self, settings: Settings, tmp_path: Path) -> None:
        # As make hands it on where EMAIL is not set.
        ended = await run_module(settings, tmp_path, "scripts.admin", "")
        assert (ended.status, "no e-mail address" in ended.err) == (2, True)


class TestAppointing:
    async def test_lets_somebody_who_is_there_keep_all_else(self, resources: Resources) -> None:
        databases = resources.databases
        user = (await make_account(databases)).user
        deed = Deed("somebody@here", "A test", is_forced=True)
        for outcome in (Outcome.PROMOTED, Outcome.UNCHANGED):
            done = await appoint_admin(
                databases.client, resources.passwords, user.email.upper(), ("New", "Admin"), "INR", deed
            )
            assert done.outcome is outcome
        after = await databases.wallet["users"].find_one({"_id": user.id})
        assert after is not None
        assert after["roles"] == [*user.roles, "admin"]
        assert (after["password_hash"], after["token_version"]) == (user.password_hash, user.token_version)
        (event,) = await databases.wallet["audit_events"].find({"subject_id": user.id}).to_list()
        assert (event["action"], event["reason"]) == ("admin.appointed", "A test")
        assert event["details"] == {"by": "somebody@here", "is_new": False, "is_forced": True}

    async def test_brings_nobody_back_who_was_deactivated(self, resources: Resources) -> None:
        databases = resources.databases
        user = await make_user(databases, is_active=False)
        with pytest.raises(AccountDeactivated):
            await appoint_admin(
                databases.client, resources.passwords, user.email, ("New", "Admin"), "INR", Deed("me", "why", True)
            )
