"""Holds over HTTP: who may do what, what each refusal says, and what nobody learns."""

import secrets
from typing import Any
from uuid import uuid4

import httpx
import pytest

from service.controllers.holds import HoldReceipt, HoldView
from service.controllers.schemas import PageView
from service.database import Databases
from service.domain.api_keys import PREFIX_ALPHABET, PREFIX_LENGTH, ApiKey, hash_secret, key_text
from service.domain.clock import utc_now
from service.domain.identifiers import Prefix, new_id
from service.domain.permissions import Permission
from service.repositories.records import to_row
from service.settings import Settings
from tests.factories import Account, bearer, current, make_account, make_user
from tests.refusals import refusal

HOLDS = "/api/v1/holds"


class Person:
    """An account, and what its owner does with holds."""

    def __init__(self, api: httpx.AsyncClient, account: Account, settings: Settings) -> None:
        self.api, self.account, self.headers = api, account, bearer(account.user, settings)

    @property
    def wallet_id(self) -> str:
        return self.account.wallet.id

    async def hold(self, key: str | None = None, **body: Any) -> httpx.Response:
        order = {"wallet_id": self.wallet_id, "amount": 1_000, "currency": "INR"}
        return await self._post("", key, order | body)

    async def capture(self, hold: dict[str, Any], key: str | None = None, **body: Any) -> httpx.Response:
        return await self._post(f"/{hold['id']}/capture", key, body)

    async def release(self, hold: dict[str, Any], key: str | None = None) -> httpx.Response:
        return await self._post(f"/{hold['id']}/release", key, None)

    async def _post(self, path: str, key: str | None, body: dict[str, Any] | None) -> httpx.Response:
        headers = {**self.headers, "Idempotency-Key": key or uuid4().hex}
        return await self.api.post(HOLDS + path, json=body, headers=headers)

    async def get(self, path: str = "", **query: Any) -> httpx.Response:
        return await self.api.get(HOLDS + path, params=query, headers=self.headers)

    async def balance(self) -> tuple[int, int]:
        wallet = await current(self.account.wallet)
        return wallet.available, wallet.held


@pytest.fixture
async def payer(api: httpx.AsyncClient, databases: Databases, settings: Settings) -> Person:
    return Person(api, await make_account(databases, balance=10_000), settings)


@pytest.fixture
async def payee(api: httpx.AsyncClient, databases: Databases, settings: Settings) -> Person:
    return Person(api, await make_account(databases), settings)


@pytest.fixture
async def stranger(api: httpx.AsyncClient, databases: Databases, settings: Settings) -> Person:
    return Person(api, await make_account(databases), settings)


@pytest.fixture(params=["service", "admin"])
async def house(
    request: pytest.FixtureRequest, api: httpx.AsyncClient, databases: Databases, settings: Settings
) -> Person:
    return Person(api, await make_account(databases, roles=[request.param]), settings)


async def held(payer: Person, **body: Any) -> dict[str, Any]:
    answer = await payer.hold(**body)
    assert answer.status_code == 201, answer.text
    hold: dict[str, Any] = answer.json()
    return hold


class TestHolding:
    async def test_sets_the_money_aside_and_shows_the_payer_their_own(self, payer: Person, payee: Person) -> None:
        answer = await payer.hold(
            to_wallet_id=payee.wallet_id, category="hotel", description="Three nights", metadata={"room": "12"}
        )
        assert answer.status_code == 201, answer.text
        hold = answer.json()
        assert hold["wallet"] == {
            "wallet_id": payer.wallet_id,
            "currency": "INR",
            "available": 9_000,
            "held": 1_000,
            "balance": 10_000,
            "owed": 0,
        }
        assert "to_wallet" not in hold
        assert (hold["status"], hold["category"], hold["metadata"]) == ("held", "hotel", {"room": "12"})
        assert HoldReceipt(**hold).model_dump(mode="json", exclude_none=True) == {
            name: value for name, value in hold.items() if value is not None
        }
        assert await payer.balance() == (9_000, 1_000)

    async def test_lasts_a_week_unless_it_says_otherwise(self, payer: Person, databases: Databases) -> None:
        for body, lifetime_s in (({}, 7 * 24 * 3600), ({"expires_in_s": 1}, 1), ({"expires_in_s": 2592000}, 2592000)):
            hold = await databases.wallet["holds"].find_one({"_id": (await held(payer, **body))["id"]})
            assert hold is not None
            assert (hold["expires_at"] - hold["created_at"]).total_seconds() == lifetime_s
            row = await databases.wallet["outbox"].find_one({"subject_id": hold["_id"]})
            assert row is not None
            assert (row["topic"], row["due_at"]) == ("expiry", hold["expires_at"])

    @pytest.mark.parametrize("expires_in_s", [0, -1, 2592001, 10**30, 1.5, "60", True])
    async def test_refuses_a_lifetime_that_cannot_be(self, payer: Person, expires_in_s: Any) -> None:
        answer = await payer.hold(expires_in_s=expires_in_s)
        assert refusal(answer) == (422, "invalid_fields")
        assert [one["pointer"] for one in answer.json()["errors"]] == ["/expires_in_s"]

    @pytest.mark.parametrize(
        ("body", "expected"),
        [
            ({"amount": 10_001}, (422, "insufficient_funds")),
            ({"amount": 20_000_001}, (422, "hold_above_step_up")),
            ({"amount": 0}, (422, "invalid_fields")),
            ({"amount": 10.5}, (422, "invalid_fields")),
            ({"currency": "USD"}, (422, "currency_mismatch")),
            ({"to_wallet_id": "wal_none"}, (404, "recipient_not_found")),
            ({"user_id": "usr_other"}, (422, "invalid_fields")),
        ],
    )
    async def test_is_refused(self, payer: Person, body: dict[str, Any], expected: tuple[int, str]) -> None:
        assert refusal(await payer.hold(**body)) == expected
        assert await payer.balance() == (10_000, 0)

    async def test_is_refused_to_oneself_and_from_somebody_elses_wallet(self, payer: Person, payee: Person) -> None:
        assert refusal(await payer.hold(to_wallet_id=payer.wallet_id)) == (422, "same_wallet")
        assert refusal(await payee.hold(wallet_id=payer.wallet_id)) == (404, "not_found")

    async def test_the_same_key_gets_the_same_answer_and_holds_once(self, payer: Person) -> None:
        first, again = await payer.hold("one"), await payer.hold("one")
        assert (again.status_code, again.content) == (201, first.content)
        assert again.headers["Idempotent-Replayed"] == "true"
        assert refusal(await payer.hold("one", amount=7)) == (422, "idempotency_key_reused")
        assert await payer.balance() == (9_000, 1_000)

    async def test_needs_a_key(self, payer: Person) -> None:
        body = {"wallet_id": payer.wallet_id, "amount": 1, "currency": "INR"}
        assert refusal(await payer.api.post(HOLDS, json=body, headers=payer.headers)) == (
            400,
            "idempotency_key_missing",
        )


async def take_key(person: Person, wallet_id: str, databases: Databases) -> None:
    """Makes the service act with a key that captures to this wallet."""
    prefix = "".join(secrets.choice(PREFIX_ALPHABET) for _ in range(PREFIX_LENGTH))
    text, secret = key_text(prefix, bytes(32)), hash_secret(bytes(32))
    now, name = utc_now(), new_id(Prefix.API_KEY)
    permissions = (Permission.HOLDS_WRITE, Permission.HOLDS_ANY)
    user_id = person.account.user.id
    key = ApiKey(name, user_id, "Till", prefix, permissions, secret, user_id, now, now, capture_to=(wallet_id,))
    await databases.wallet["api_keys"].insert_one(to_row(key))
    person.headers = {"X-API-Key": text}


class TestCapturing:
    async def test_by_the_payee_pays_them_and_shows_them_their_own(self, payer: Person, payee: Person) -> None:
        hold = await held(payer, to_wallet_id=payee.wallet_id)
        answer = await payee.capture(hold)
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert (body["status"], body["captured_amount"]) == ("captured", 1_000)
        assert body["to_wallet"]["available"] == 1_000
        assert "wallet" not in body
        assert (await payer.balance(), await payee.balance()) == ((9_000, 0), (1_000, 0))

    async def test_of_a_part_gives_the_rest_back(self, payer: Person, payee: Person, databases: Databases) -> None:
        hold = await held(payer, to_wallet_id=payee.wallet_id)
        body = (await payer.capture(hold, amount=400)).json()
        assert (body["amount"], body["captured_amount"], body["wallet"]["available"]) == (1_000, 400, 9_600)
        entries = await databases.wallet["transaction_logs"].find({"reference": hold["id"]}).sort("_id").to_list()
        assert sorted((entry["type"], entry["amount"]) for entry in entries) == [
            ("HOLD", 1_000),
            ("HOLD_CAPTURE", 400),
            ("HOLD_RELEASE", 600),
            ("TRANSFER_IN", 400),
        ]
        assert {entry["transaction_id"] for entry in entries[1:]} == {body["transaction_id"]}
        assert await databases.wallet["outbox"].count_documents({"subject_id": hold["id"]}) == 0

    async def test_with_a_key_names_a_recipient_that_the_key_lists_where_the_hold_does_not(
        self, payer: Person, payee: Person, house: Person, databases: Databases
    ) -> None:
        # Keys are of services; by a token of either nobody is named.
        refused = await house.capture(await held(payer), to_wallet_id=payee.wallet_id)
        assert refusal(refused) == (403, "forbidden")
        if "service" not in house.account.user.roles:
            return
        await take_key(house, payee.wallet_id, databases)
        body = (await house.capture(await held(payer), to_wallet_id=payee.wallet_id)).json()
        assert body["to_wallet_id"] == payee.wallet_id
        assert body.keys().isdisjoint({"wallet", "to_wallet"})
        assert await payee.balance() == (1_000, 0)

    async def test_without_a_recipient_goes_to_the_house(self, payer: Person, databases: Databases) -> None:
        hold = await held(payer)
        assert (await payer.capture(hold)).json()["to_wallet_id"] is None
        entry = await databases.wallet["transaction_logs"].find_one({"reference": hold["id"], "type": "HOLD_CAPTURE"})
        assert entry is not None
        assert entry["counterparty"] == "house:revenue"
        assert await payer.balance() == (9_000, 0)

    async def test_is_refused(self, payer: Person, payee: Person, stranger: Person) -> None:
        hold, open_hold = await held(payer, to_wallet_id=payee.wallet_id), await held(payer)
        answers = [
            await payee.capture(hold, amount=1_001),
            await payer.capture(hold, to_wallet_id=stranger.wallet_id),
            await stranger.capture(hold),
            await payee.capture(open_hold),
            await stranger.capture({"id": "hld_none"}),
            await payer.capture(open_hold, to_wallet_id=payer.wallet_id),
            await payee.capture(hold, amount=0),
            await payee.capture(hold, to_user_id="usr_me"),
        ]
        assert [refusal(answer) for answer in answers] == [
            (422, "capture_exceeds_hold"),
            (409, "recipient_already_named"),
            (404, "not_found"),
            (404, "not_found"),
            (404, "not_found"),
            (422, "same_wallet"),
            (422, "invalid_fields"),
            (422, "invalid_fields"),
        ]
        assert (answers[0].json()["held"], answers[0].json()["requested"]) == (1_000, 1_001)
        assert await payer.balance() == (8_000, 2_000)

    async def test_happens_once_and_the_same_key_gets_the_same_answer(self, payer: Person, payee: Person) -> None:
        hold = await held(payer, to_wallet_id=payee.wallet_id)
        first, again = await payee.capture(hold, "one", amount=1), await payee.capture(hold, "one", amount=1)
        assert (again.status_code, again.content) == (200, first.content)
        assert refusal(await payee.capture(hold, amount=1)) == (409, "illegal_transition")
        # The key belongs to this hold's capture and to no other one's.
        other = await held(payer, to_wallet_id=payee.wallet_id)
        assert refusal(await payee.capture(other, "one", amount=1)) == (422, "idempotency_key_reused")
        assert await payee.balance() == (1, 0)

    async def test_after_its_time_is_refused_and_gives_the_money_back(
        self, payer: Person, payee: Person, databases: Databases
    ) -> None:
        hold = await held(payer, to_wallet_id=payee.wallet_id)
        row = await databases.wallet["holds"].find_one({"_id": hold["id"]})
        assert row is not None
        await databases.wallet["holds"].update_one({"_id": hold["id"]}, {"$set": {"expires_at": row["created_at"]}})
        assert refusal(await payee.capture(hold)) == (409, "hold_expired")
        assert (await payee.get(f"/{hold['id']}")).json()["status"] == "expired"
        assert await payer.balance() == (10_000, 0)
        assert await databases.wallet["outbox"].count_documents({"subject_id": hold["id"]}) == 0

    async def test_of_a_promise_outlives_a_freeze_of_the_payers_wallet_unless_it_is_shut_both_ways(
        self, payer: Person, payee: Person, databases: Databases
    ) -> None:
        async def freeze(which: str) -> None:
            frozen = {"$set": {"status": "frozen", "freeze": which}}
            await databases.wallet["wallets"].update_one({"_id": payer.wallet_id}, frozen)

        hold = await held(payer, to_wallet_id=payee.wallet_id)
        await freeze("both")
        assert refusal(await payee.capture(hold)) == (422, "wallet_frozen")
        await freeze("out")
        assert (await payee.capture(hold)).status_code == 200


class TestReleasing:
    async def test_by_the_payee_gives_it_back(self, payer: Person, payee: Person) -> None:
        body = (await payee.release(await held(payer, to_wallet_id=payee.wallet_id))).json()
        assert (body["status"], body["captured_amount"]) == ("released", 0)
        assert body.keys().isdisjoint({"wallet", "to_wallet"})
        assert await payer.balance() == (10_000, 0)

    async def test_by_the_house_gives_it_back(self, payer: Person, payee: Person, house: Person) -> None:
        assert (await house.release(await held(payer, to_wallet_id=payee.wallet_id))).status_code == 200
        assert await payer.balance() == (10_000, 0)

    async def test_by_the_payer_only_where_it_guarantees_nothing(self, payer: Person, payee: Person) -> None:
        hold = await held(payer, to_wallet_id=payee.wallet_id)
        assert refusal(await payer.release(hold, "one")) == (403, "hold_guaranteed")
        body = (await payer.release(await held(payer))).json()
        assert body["wallet"]["available"] == 9_000
        # Who asked was at fault, not what was asked for: the key is free.
        assert (await payer.hold("one")).status_code == 201

    async def test_happens_once_and_the_same_key_gets_the_same_answer(self, payer: Person) -> None:
        hold = await held(payer)
        first, again = await payer.release(hold, "one"), await payer.release(hold, "one")
        assert (again.status_code, again.content) == (200, first.content)
        assert refusal(await payer.release(hold)) == (409, "illegal_transition")
        assert refusal(await payer.capture(hold)) == (409, "illegal_transition")
        assert await payer.balance() == (10_000, 0)

    async def test_is_not_for_strangers(self, payer: Person, stranger: Person) -> None:
        assert refusal(await stranger.release(await held(payer))) == (404, "not_found")
        assert refusal(await stranger.release({"id": "wdr_none"})) == (404, "not_found")


class TestReading:
    async def test_is_for_both_sides_and_nobody_else(self, payer: Person, payee: Person, stranger: Person) -> None:
        hold = await held(payer, to_wallet_id=payee.wallet_id)
        answers = [await person.get(f"/{hold['id']}") for person in (payer, payee)]
        assert answers[0].json() == answers[1].json() == {name: hold[name] for name in hold if name != "wallet"}
        assert HoldView(**answers[0].json()).model_dump().keys() == answers[0].json().keys()
        assert refusal(await stranger.get(f"/{hold['id']}")) == (404, "not_found")

    async def test_lists_ones_own_newest_first_page_by_page(self, payer: Person, payee: Person) -> None:
        ids = [(await held(payer, to_wallet_id=payee.wallet_id, amount=n))["id"] for n in (1, 2, 3)]
        first = (await payer.get(limit=2)).json()
        assert [hold["id"] for hold in first["data"]] == [ids[2], ids[1]]
        second = (await payer.get(limit=2, cursor=first["next_cursor"])).json()
        assert [hold["id"] for hold in second["data"]] == [ids[0]]
        assert PageView[HoldView](**second).model_dump().keys() == second.keys()
        assert (await payee.get()).json()["data"] == []

    async def test_lists_those_that_one_is_to_be_paid_by(self, payer: Person, payee: Person) -> None:
        hold = await held(payer, to_wallet_id=payee.wallet_id)
        await held(payer)
        assert [one["id"] for one in (await payee.get(role="payee")).json()["data"]] == [hold["id"]]
        assert (await payer.get(role="payee")).json()["data"] == []

    async def test_can_be_narrowed(self, payer: Person) -> None:
        first, second = await held(payer, category="hotel"), await held(payer)
        await payer.release(first)
        for query, found in (
            ({"status": "held"}, [second]),
            ({"status": "released"}, [first]),
            ({"category": "hotel"}, [first]),
            ({"currency": "INR"}, [second, first]),
            ({"currency": "USD"}, []),
            ({"created_from": "2100-01-01T00:00:00Z"}, []),
            ({"created_to": "2100-01-01T00:00:00Z"}, [second, first]),
        ):
            listed = (await payer.get(**query)).json()["data"]
            assert [one["id"] for one in listed] == [one["id"] for one in found], query
        assert refusal(await payer.get(status="pending")) == (422, "invalid_fields")
        assert refusal(await payer.get(role="admin")) == (422, "invalid_fields")

    async def test_finds_what_a_payee_is_to_get_by_an_index(self, databases: Databases) -> None:
        query = {"to_user_id": (await make_user(databases)).id}
        plan = await databases.wallet["holds"].find(query).sort("_id", -1).explain()
        assert "payee_newest" in str(plan["queryPlanner"]["winningPlan"])


class TestTokens:
    async def test_of_an_older_version_end_no_hold_whatever_role_they_carry(
        self, payer: Person, api: httpx.AsyncClient, databases: Databases, settings: Settings
    ) -> None:
        former = await make_account(databases, roles=["admin"], token_version=2)
        token = former.user.model_copy(update={"token_version": 1})
        person = Person(api, Account(token, former.wallet), settings)
        hold = await held(payer)
        for answer in (await person.capture(hold), await person.release(hold)):
            assert refusal(answer) == (401, "unauthenticated")
        assert await payer.balance() == (9_000, 1_000)
