"""Four eyes under attack: one admin alone gives nobody access, whatever second account or key they make for it."""

import asyncio
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from service.database import Databases
from service.documents import User
from service.domain.clock import to_rfc3339, utc_now
from service.domain.sealed import SealedField
from service.domain.wallets import Wallet
from service.repositories import totp_enrolments as enrolment_repository
from service.services.first_admins import Deed, Outcome, appoint_admin
from service.services.sealing import seal
from service.settings import Settings
from service.startup import Resources
from tests.factories import current, make_funded_wallet, make_user, make_wallet
from tests.refusals import refusal
from tests.staff import Staff

_SECOND = (403, "second_admin_required")
_TRANSITION = (409, "illegal_transition")
_LARGE = 100_000_001


class Office:
    """Three admins who have nothing to do with each other, and somebody without a role."""

    def __init__(self, boss: Staff, second: Staff, third: Staff, user: User, settings: Settings) -> None:
        self.boss, self.second, self.third, self.user, self.settings = boss, second, third, user, settings
        self.api = boss.api

    async def ask_for_roles(self, *roles: str, by: Staff | None = None) -> httpx.Response:
        asking = by or self.boss
        return await asking.put(f"/admin/users/{self.user.id}/roles", roles=["user", *roles], reason="New work")

    async def ask_for_key(self, service: User, *permissions: str, by: Staff | None = None) -> httpx.Response:
        order: dict[str, Any] = {"user_id": service.id, "name": "Till", "permissions": list(permissions)}
        return await (by or self.boss).post("/admin/api-keys", **order)

    async def appoint(self, databases: Databases, by: Staff | None = None, confirmed_by: Staff | None = None) -> Staff:
        """Another admin, whom the boss asked for and the second admin confirmed, unless others are named."""
        user = await make_user(databases)
        roles = {"roles": ["user", "admin"], "reason": "New work"}
        asked = await (by or self.boss).put(f"/admin/users/{user.id}/roles", **roles)
        answer = await approve(confirmed_by or self.second, asked.json()["id"])
        assert answer.status_code == 200, answer.text
        return Staff(self.api, user.model_copy(update={"roles": roles["roles"]}), self.settings)

    async def approves(self, approver: Staff, asking: Staff, wallet: Wallet) -> bool:
        asked = (await credit(self.api, asking.headers, wallet.id, _LARGE)).json()["id"]
        answer = await approver.post(f"/adjustments/{asked}/approve")
        assert answer.status_code == 200 or refusal(answer) == _SECOND, answer.text
        return answer.status_code == 200


@pytest.fixture
async def office(api: httpx.AsyncClient, databases: Databases, settings: Settings) -> Office:
    boss, second, third = [await Staff.hire(api, databases, settings, "admin") for _ in range(3)]
    return Office(boss, second, third, await make_user(databases), settings)


async def approve(admin: Staff, proposal_id: str) -> httpx.Response:
    return await admin.post(f"/admin/proposals/{proposal_id}/approve")


async def roles_of(databases: Databases, user: User) -> list[str]:
    row: dict[str, Any] = await databases.wallet["users"].find_one({"_id": user.id}) or {}
    roles: list[str] = row["roles"]
    return roles


async def credit(api: httpx.AsyncClient, headers: dict[str, str], wallet_id: str, amount: int = 50) -> httpx.Response:
    body = {"amount": amount, "currency": "INR", "reason": "Charged twice"}
    headers = {**headers, "Idempotency-Key": uuid4().hex}
    return await api.post(f"/api/v1/wallets/{wallet_id}/credits", json=body, headers=headers)


class TestGivingARole:
    @pytest.mark.parametrize("role", ["admin", "service"])
    async def test_takes_another_admin(self, office: Office, databases: Databases, role: str) -> None:
        answer = await office.ask_for_roles(role)
        assert (answer.status_code, answer.json()["status"]) == (202, "requires_approval"), answer.text
        proposal_id = answer.json()["id"]
        assert refusal(await approve(office.boss, proposal_id)) == _SECOND
        assert await roles_of(databases, office.user) == ["user"]
        approved = await approve(office.second, proposal_id)
        assert (approved.status_code, approved.json()["status"]) == (200, "success"), approved.text
        assert await roles_of(databases, office.user) == ["user", role]
        assert refusal(await approve(office.third, proposal_id)) == _TRANSITION
        (event,) = await office.boss.events(subject_id=office.user.id)
        assert (event["action"], event["actor_id"]) == ("user.roles_changed", office.second.user.id)
        assert event["details"]["requested_by"] == office.boss.user.id
        actions = [event["action"] for event in await office.boss.events(subject_id=proposal_id)]
        assert actions == ["proposal.approved", "proposal.requested"]

    async def test_makes_no_second_admin_for_whoever_gave_it(self, office: Office, databases: Databases) -> None:
        puppet = await office.appoint(databases)
        wallet = await make_funded_wallet(databases)
        asked = (await credit(office.api, office.boss.headers, wallet.id, _LARGE)).json()["id"]
        assert refusal(await puppet.post(f"/adjustments/{asked}/approve")) == _SECOND
        theirs = (await credit(office.api, puppet.headers, wallet.id, _LARGE)).json()["id"]
        for giver in (office.boss, office.second):
            assert refusal(await giver.post(f"/adjustments/{theirs}/approve")) == _SECOND
        assert (await current(wallet)).available == 10_000
        assert (await office.third.post(f"/adjustments/{theirs}/approve")).status_code == 200
        assert (await puppet.post(f"/adjustments/{asked}/reject", reason="Not needed")).status_code == 200

    async def test_is_not_confirmed_by_whom_the_asking_admin_made_one(
        self, office: Office, databases: Databases
    ) -> None:
        puppet = await office.appoint(databases)
        proposal_id = (await office.ask_for_roles("admin")).json()["id"]
        assert refusal(await approve(puppet, proposal_id)) == _SECOND
        by_puppet = (await office.ask_for_roles("admin", by=puppet)).json()["id"]
        assert refusal(await approve(office.boss, by_puppet)) == _SECOND
        assert (await approve(office.third, by_puppet)).status_code == 200

    async def test_is_done_once_where_two_confirm_it_at_once(self, office: Office) -> None:
        proposal_id = (await office.ask_for_roles("service")).json()["id"]
        answers = await asyncio.gather(approve(office.second, proposal_id), approve(office.third, proposal_id))
        assert sorted(answer.status_code for answer in answers) == [200, 409]
        assert len(await office.boss.events(subject_id=office.user.id)) == 1

    async def test_that_is_asked_for_again_makes_no_second_proposal(self, office: Office) -> None:
        first, again = [(await office.ask_for_roles("service")).json()["id"] for _ in range(2)]
        assert first == again

    async def test_is_taken_back_by_whoever_asked_and_never_done_then(
        self, office: Office, databases: Databases
    ) -> None:
        proposal_id = (await office.ask_for_roles("admin")).json()["id"]
        rejected = await office.boss.post(f"/admin/proposals/{proposal_id}/reject", reason="A mistake")
        assert (rejected.status_code, rejected.json()["status"]) == (200, "rejected")
        assert refusal(await approve(office.second, proposal_id)) == _TRANSITION
        assert await roles_of(databases, office.user) == ["user"]

    async def test_fits_the_roles_that_it_was_asked_for(self, office: Office, databases: Databases) -> None:
        proposal_id = (await office.ask_for_roles("admin")).json()["id"]
        other_id = (await office.ask_for_roles("service")).json()["id"]
        assert (await approve(office.second, other_id)).status_code == 200
        assert refusal(await approve(office.second, proposal_id)) == _TRANSITION
        assert await roles_of(databases, office.user) == ["user", "service"]

    async def test_comes_to_nothing_where_whoever_asked_was_shut_out(self, office: Office) -> None:
        proposal_id = (await office.ask_for_roles("admin")).json()["id"]
        shut_out = await office.third.post(f"/admin/users/{office.boss.user.id}/deactivate", reason="A thief")
        assert shut_out.status_code == 200
        assert refusal(await approve(office.second, proposal_id)) == _TRANSITION

    async def test_is_shown_to_the_others(self, office: Office) -> None:
        proposal_id = (await office.ask_for_roles("service")).json()["id"]
        page = (await office.second.get("/admin/proposals", status="requires_approval", limit=1)).json()
        (shown,) = page["data"]
        assert shown == (await office.second.get(f"/admin/proposals/{proposal_id}")).json()
        assert (shown["roles"], shown["requested_by"]) == (["user", "service"], office.boss.user.id)


class TestAKey:
    async def test_ends_after_a_quarter_unless_two_admins_want_it_otherwise(
        self, office: Office, databases: Databases
    ) -> None:
        service, lifetime = await make_user(databases, roles=["service"]), timedelta(days=90)
        usual = (await office.ask_for_key(service, "wallets:read")).json()
        assert usual["status"] == "active"
        assert timedelta() <= datetime.fromisoformat(usual["expires_at"]) - utc_now() <= lifetime
        order: dict[str, Any] = {"user_id": service.id, "name": "Till", "permissions": ["wallets:read"]}
        for late in (None, to_rfc3339(utc_now() + lifetime + timedelta(hours=1))):
            asked = await office.boss.post("/admin/api-keys", **order, expires_at=late)
            assert (asked.status_code, asked.json()["status"]) == (202, "requires_approval"), asked.text
            assert (await approve(office.second, asked.json()["proposal_id"])).status_code == 200

    @pytest.mark.parametrize("deed", ["deactivate", "demote", "lockdown"])
    async def test_ends_with_whoever_made_it(self, office: Office, databases: Databases, deed: str) -> None:
        service = await make_user(databases, roles=["service"])
        key = (await office.ask_for_key(service, "wallets:read", "payments:write")).json()
        assert (await approve(office.second, key["proposal_id"])).status_code == 200
        shown = (await office.third.get("/admin/api-keys", user_id=service.id)).json()["data"][0]
        assert shown["makers"] == sorted((office.boss.user.id, office.second.user.id))
        path = f"/admin/users/{office.second.user.id}"
        if deed == "demote":
            done = await office.third.put(f"{path}/roles", roles=["user"], reason="Left")
        else:
            done = await office.third.post(f"{path}/{deed}", reason="Left")
        assert done.status_code == 200, done.text
        headers = {"X-API-Key": key["secret"]}
        assert refusal(await office.api.get("/api/v1/wallets", headers=headers)) == (401, "unauthenticated")
        (event, *_) = await office.boss.events(subject_id=key["id"])
        assert (event["action"], event["details"]["made_by"]) == ("api_key.revoked", office.second.user.id)

    async def test_goes_on_where_it_was_handed_over_before(self, office: Office, databases: Databases) -> None:
        service = await make_user(databases, roles=["service"])
        key = (await office.ask_for_key(service, "wallets:read")).json()
        overlapping = await office.second.post(f"/admin/api-keys/{key['id']}/rotate", overlap_s=60)
        assert overlapping.json()["makers"] == sorted((office.boss.user.id, office.second.user.id))
        handed_over = (await office.third.post(f"/admin/api-keys/{key['id']}/rotate", overlap_s=0)).json()
        assert handed_over["makers"] == [office.third.user.id]
        for gone in (office.boss, office.second):
            left = await office.third.post(f"/admin/users/{gone.user.id}/deactivate", reason="Left")
            assert left.status_code == 200, left.text
        headers = {"X-API-Key": handed_over["secret"]}
        assert (await office.api.get("/api/v1/wallets", headers=headers)).status_code == 200


class TestAdminsWhomOthersMade:
    async def test_approve_for_none_who_goes_back_to_the_same_admin(self, office: Office, databases: Databases) -> None:
        """A team of four: the first two work with each other, whomever they make, and nobody else does."""
        wallet = await make_funded_wallet(databases)
        first, other = await office.appoint(databases), await office.appoint(databases)
        # Whom one of those makes, with an admin who has nothing to do with them, goes back to the same two.
        later = await office.appoint(databases, by=first, confirmed_by=office.third)
        made = {"boss": office.boss, "second": office.second, "first": first, "other": other, "later": later}
        pairs = [
            f"{approver} for {asking}"
            for approver in made
            for asking in made
            if approver != asking and await office.approves(made[approver], made[asking], wallet)
        ]
        assert pairs == ["boss for second", "second for boss"]

    async def test_confirm_no_access_for_each_other(self, office: Office, databases: Databases) -> None:
        first, other = await office.appoint(databases), await office.appoint(databases)
        proposal_id = (await office.ask_for_roles("admin", by=first)).json()["id"]
        assert refusal(await approve(other, proposal_id)) == _SECOND
        assert (await approve(office.third, proposal_id)).status_code == 200

    async def test_are_ones_own_where_whoever_runs_the_service_appoints_them(
        self, office: Office, databases: Databases, resources: Resources
    ) -> None:
        puppet, wallet = await office.appoint(databases), await make_funded_wallet(databases)
        assert not await office.approves(puppet, office.boss, wallet)
        deed = Deed("root@here", "Nobody else is left", is_forced=True)
        client, email = databases.client, puppet.user.email
        done = await appoint_admin(client, resources.passwords, email, ("New", "Admin"), "INR", deed)
        assert done.outcome is Outcome.VOUCHED
        assert await office.approves(puppet, office.boss, wallet)
        (event, *_) = await office.boss.events(subject_id=puppet.user.id)
        assert (event["action"], event["actor_id"]) == ("admin.appointed", "operator")
        givers = sorted((office.boss.user.id, office.second.user.id))
        assert event["details"]["was_given_by"] == ",".join(givers)


class TestAKeyThatMovesOtherPeoplesMoney:
    @pytest.mark.parametrize("permission", ["adjustments:write", "holds:any", "payments:write", "webhooks:write"])
    async def test_opens_nothing_before_another_admin_confirms_it(
        self, office: Office, databases: Databases, permission: str
    ) -> None:
        service = await make_user(databases, roles=["service"])
        answer = await office.ask_for_key(service, permission, "wallets:read")
        assert (answer.status_code, answer.json()["status"]) == (202, "requires_approval"), answer.text
        key = answer.json()
        headers = {"X-API-Key": key["secret"]}
        assert refusal(await office.api.get("/api/v1/wallets", headers=headers)) == (401, "unauthenticated")
        assert refusal(await approve(office.boss, key["proposal_id"])) == _SECOND
        assert (await approve(office.second, key["proposal_id"])).status_code == 200
        assert (await office.api.get("/api/v1/wallets", headers=headers)).status_code == 200

    async def test_for_ones_own_money_takes_nobody_else(self, office: Office, databases: Databases) -> None:
        own = await Staff.hire(office.api, databases, office.settings, "service", "admin")
        body: dict[str, Any] = {"user_id": own.user.id, "name": "Till"}
        for permission, status in (("payments:write", 201), ("adjustments:write", 202), ("holds:any", 202)):
            made = await own.post("/admin/api-keys", **body, permissions=[permission])
            assert made.status_code == status, made.text
        theirs = await office.boss.post("/admin/api-keys", **body, permissions=["payments:write"])
        assert theirs.status_code == 202

    async def test_of_somebody_else_has_no_other_secret_by_one_admin_alone(
        self, office: Office, databases: Databases
    ) -> None:
        """Also not one that its user made alone."""
        own = await Staff.hire(office.api, databases, office.settings, "service", "admin")
        permissions = ["payments:write"]
        key = (await own.post("/admin/api-keys", user_id=own.user.id, name="Till", permissions=permissions)).json()
        rotated = await office.boss.post(f"/admin/api-keys/{key['id']}/rotate", overlap_s=0)
        assert rotated.status_code == 202, rotated.text
        own_again = await own.post(f"/admin/api-keys/{key['id']}/rotate", overlap_s=0)
        assert own_again.status_code == 200, own_again.text

    async def test_is_revoked_where_it_is_rejected(self, office: Office, databases: Databases) -> None:
        service = await make_user(databases, roles=["service"])
        key = (await office.ask_for_key(service, "adjustments:write")).json()
        rejected = await office.second.post(f"/admin/proposals/{key['proposal_id']}/reject", reason="Not needed")
        assert rejected.status_code == 200
        assert (await office.boss.get(f"/admin/api-keys/{key['id']}")).json()["status"] == "revoked"

    async def test_has_no_other_secret_by_one_admin_alone(self, office: Office, databases: Databases) -> None:
        service = await make_user(databases, roles=["service"])
        wallet = await make_funded_wallet(databases)
        key = (await office.ask_for_key(service, "adjustments:write")).json()
        assert (await approve(office.second, key["proposal_id"])).status_code == 200
        rotated = await office.third.post(f"/admin/api-keys/{key['id']}/rotate", overlap_s=0)
        assert rotated.status_code == 202, rotated.text
        new, old = {"X-API-Key": rotated.json()["secret"]}, {"X-API-Key": key["secret"]}
        assert refusal(await credit(office.api, new, wallet.id)) == (401, "unauthenticated")
        assert (await credit(office.api, old, wallet.id)).status_code == 201
        assert refusal(await approve(office.third, rotated.json()["proposal_id"])) == _SECOND
        assert (await approve(office.boss, rotated.json()["proposal_id"])).status_code == 200
        assert (await credit(office.api, new, wallet.id)).status_code == 201
        assert refusal(await credit(office.api, old, wallet.id)) == (401, "unauthenticated")

    async def test_asks_for_nothing_that_its_makers_approve(self, office: Office, databases: Databases) -> None:
        both = await make_user(databases, roles=["service", "admin"])
        wallet = await make_wallet(databases, office.user)
        key = (await office.ask_for_key(both, "adjustments:write")).json()
        if "proposal_id" in key:
            assert (await approve(office.second, key["proposal_id"])).status_code == 200
        asked = await credit(office.api, {"X-API-Key": key["secret"]}, wallet.id, _LARGE)
        assert asked.status_code == 202, asked.text
        for maker in (office.boss, office.second):
            assert refusal(await maker.post(f"/adjustments/{asked.json()['id']}/approve")) == _SECOND
        assert (await office.third.post(f"/adjustments/{asked.json()['id']}/approve")).status_code == 200

    async def test_asks_for_nothing_that_those_approve_whom_its_makers_made(
        self, office: Office, databases: Databases
    ) -> None:
        puppet, wallet = await office.appoint(databases), await make_funded_wallet(databases)
        makers = {"boss": (office.boss, office.second), "puppet": (puppet, office.third)}
        for asking, confirming in makers.values():
            service = await make_user(databases, roles=["service", "admin"])
            key = (await office.ask_for_key(service, "adjustments:write", by=asking)).json()
            assert (await approve(confirming, key["proposal_id"])).status_code == 200
            asked = await credit(office.api, {"X-API-Key": key["secret"]}, wallet.id, _LARGE)
            assert asked.status_code == 202, asked.text
            path = f"/adjustments/{asked.json()['id']}/approve"
            for related in (office.boss, office.second, puppet):
                assert refusal(await related.post(path)) == _SECOND


def bounded(office: Office, monkeypatch: pytest.MonkeyPatch, day_above: int) -> None:
    ledger = office.api._transport.app.state.resources.ledger  # type: ignore[attr-defined]  # the app's own
    monkeypatch.setattr(ledger, "policy", ledger.policy._replace(adjustment_day_above={"INR": day_above}))


class TestMakingMoneyForASecondAccount:
    """Each time within what one admin makes alone, and not without end."""

    async def test_ends_at_the_days_sum(
        self, office: Office, databases: Databases, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bounded(office, monkeypatch, 100)
        wallet = await make_wallet(databases, office.user)
        answers = await asyncio.gather(
            *(credit(office.api, office.boss.headers, wallet.id, 30) for _ in range(5)),
        )
        assert sorted(answer.status_code for answer in answers) == [201, 201, 201, 202, 202]
        assert (await current(wallet)).available == 90
        # Another admin, who has made none, sees what waits; that then counts for nobody.
        waiting = next(answer.json()["id"] for answer in answers if answer.status_code == 202)
        assert refusal(await office.boss.post(f"/adjustments/{waiting}/approve")) == _SECOND
        assert (await office.second.post(f"/adjustments/{waiting}/approve")).status_code == 200
        assert (await credit(office.api, office.boss.headers, wallet.id, 10)).status_code == 201
        assert (await credit(office.api, office.second.headers, wallet.id, 100)).status_code == 201
        debit = await office.boss.post(f"/wallets/{wallet.id}/debits", amount=1, currency="INR", reason="A mistake")
        assert debit.status_code == 202

    async def test_with_a_key_counts_for_the_key_and_whoever_made_it(
        self, office: Office, databases: Databases, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bounded(office, monkeypatch, 100)
        wallet = await make_wallet(databases, office.user)
        for number, status in ((60, 201), (60, 202)):
            # Another service and key each time.
            service = await make_user(databases, roles=["service"])
            confirming = office.second if status == 201 else office.third
            key = (await office.ask_for_key(service, "adjustments:write")).json()
            assert (await approve(confirming, key["proposal_id"])).status_code == 200
            answer = await credit(office.api, {"X-API-Key": key["secret"]}, wallet.id, number)
            assert answer.status_code == status, answer.text
        assert (await credit(office.api, office.boss.headers, wallet.id, 41)).status_code == 202
        assert (await credit(office.api, office.third.headers, wallet.id, 100)).status_code == 201

    async def test_by_taking_debits_back_ends_there_too(
        self, office: Office, databases: Databases, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bounded(office, monkeypatch, 100)
        wallet = await make_funded_wallet(databases)
        debit: dict[str, Any] = {"amount": 60, "currency": "INR", "reason": "A mistake"}
        first = (await office.boss.post(f"/wallets/{wallet.id}/debits", **debit)).json()["id"]
        second = (await office.second.post(f"/wallets/{wallet.id}/debits", **debit)).json()["id"]
        path = f"/adjustments/{first}/reversal"
        assert refusal(await office.boss.post(path, reason="None after all")) == _SECOND
        assert (await office.third.post(path, reason="None after all")).status_code == 201
        assert refusal(await office.third.post(f"/adjustments/{second}/reversal", reason="Again")) == _SECOND
        # Taking a credit back gives nobody anything.
        given = (await credit(office.api, office.boss.headers, wallet.id, 40)).json()["id"]
        assert (await office.third.post(f"/adjustments/{given}/reversal", reason="Again")).status_code == 201


class TestAKeyThatCapturesAnyHold:
    async def test_pays_nobody_but_the_house_and_wallets_that_it_lists(
        self, office: Office, databases: Databases
    ) -> None:
        guest, listed = await make_funded_wallet(databases), await make_funded_wallet(databases)
        service = await make_user(databases, roles=["service"])
        own = await make_wallet(databases, service)
        order: dict[str, Any] = {"user_id": service.id, "name": "Till", "permissions": ["holds:write", "holds:any"]}
        key = (await office.boss.post("/admin/api-keys", **order, capture_to=[listed.id])).json()
        proposal = (await office.second.get(f"/admin/proposals/{key['proposal_id']}")).json()
        assert proposal["capture_to"] == key["capture_to"] == [listed.id]
        assert (await approve(office.second, key["proposal_id"])).status_code == 200
        payer = await User.get(guest.user_id)
        assert payer is not None
        guest_of = Staff(office.api, payer, office.settings)
        relay, by_key = Staff(office.api, service, office.settings), Staff(office.api, service, office.settings)
        by_key.headers = {"X-API-Key": key["secret"]}
        hold: dict[str, Any] = {"wallet_id": guest.id, "amount": 10, "currency": "INR"}
        for captor in (by_key, relay, office.boss):
            path = f"/holds/{(await guest_of.post('/holds', **hold)).json()['id']}/capture"
            assert refusal(await captor.post(path, to_wallet_id=own.id)) == (403, "forbidden")
            to = {"to_wallet_id": listed.id} if captor is by_key else {}
            captured = await captor.post(path, None, **to)
            assert captured.status_code == 200, captured.text
        assert ((await current(listed)).available, (await current(own)).available) == (10_010, 0)
        # Whoever pays names whom they like.
        path = f"/holds/{(await guest_of.post('/holds', **hold)).json()['id']}/capture"
        assert (await guest_of.post(path, to_wallet_id=own.id)).status_code == 200


class TestAService:
    async def test_credits_its_own_wallet_only_with_an_admins_approval(
        self, office: Office, databases: Databases
    ) -> None:
        service = await Staff.hire(office.api, databases, office.settings, "service")
        own = await make_wallet(databases, service.user)
        answer = await credit(office.api, service.headers, own.id, 1)
        assert (answer.status_code, answer.json()["status"]) == (202, "requires_approval"), answer.text
        assert (await current(own)).available == 0
        assert (await office.boss.post(f"/adjustments/{answer.json()['id']}/approve")).status_code == 200
        assert (await current(own)).available == 1

    async def test_credits_no_wallet_of_whoever_made_it(self, office: Office, databases: Databases) -> None:
        """By its role, or by its key: each of them has two makers."""
        proposal_id = (await office.ask_for_roles("service")).json().get("id")
        await approve(office.second, proposal_id)
        service = Staff(office.api, office.user.model_copy(update={"roles": ["user", "service"]}), office.settings)
        another = await make_user(databases, roles=["service"])
        key = (await office.ask_for_key(another, "adjustments:write")).json()
        await approve(office.second, key.get("proposal_id"))
        for maker in (office.boss, office.second):
            wallet = await make_wallet(databases, maker.user)
            for headers in (service.headers, {"X-API-Key": key["secret"]}):
                answer = await credit(office.api, headers, wallet.id, 1)
                assert answer.status_code == 202, answer.text
                path = f"/adjustments/{answer.json()['id']}/approve"
                assert refusal(await office.boss.post(path)) == refusal(await office.second.post(path)) == _SECOND
            assert (await current(wallet)).available == 0


class TestRemovingASecondFactor:
    async def test_takes_another_admin_and_is_accounted_for(self, office: Office, databases: Databases) -> None:
        sealed = seal(office.settings, "JBSWY3DPEHPK3PXP", SealedField.TOTP_SECRET, office.user.id)
        await enrolment_repository.insert_active(office.user.id, "an-app", sealed, utc_now())
        path = f"/admin/users/{office.user.id}/totp/remove"
        asked = await office.boss.post(path, reason="Lost the telephone")
        assert asked.status_code == 202, asked.text
        assert refusal(await approve(office.boss, asked.json()["id"])) == _SECOND
        kept = await enrolment_repository.find(office.user.id)
        assert kept is not None
        assert kept.status == "active"
        assert (await approve(office.second, asked.json()["id"])).status_code == 200
        removed = await enrolment_repository.find(office.user.id)
        assert removed is not None
        assert (removed.status, removed.sealed_secret) == ("none", None)
        (event,) = await office.boss.events(subject_id=office.user.id)
        assert (event["action"], event["actor_id"]) == ("totp.removed", office.second.user.id)
        assert await databases.wallet["outbox"].count_documents({"subject_id": office.user.id}) == 1
        assert refusal(await office.boss.post(path, reason="Again")) == (409, "totp_not_enrolled")
