"""Transfers over HTTP: who may pay whom, what each refusal says, and what nobody learns."""

import asyncio
from typing import Any
from uuid import uuid4

import httpx
import pytest
from bson.int64 import Int64

from service.controllers.transfers import TransferBatchView, TransferReceipt, TransferView
from service.database import Databases
from service.domain.limits import Limits
from service.domain.money import MAX_AMOUNT_MINOR
from service.domain.wallets import Freeze, WalletStatus
from service.settings import Settings
from tests.factories import Account, current, make_account, make_email, make_user, make_wallet
from tests.payer import Payer, outbox_topics, shut
from tests.refusals import refusal

# Above the settings' amount from which on a transfer waits for approval.
_LARGE = 20_000_001
# Long enough to stand in no id by chance.
_TELLING = 7_777_777_777_777


@pytest.fixture
async def sender(api: httpx.AsyncClient, databases: Databases, settings: Settings) -> Payer:
    return await Payer.with_balance(api, databases, settings, 10_000)


@pytest.fixture
async def recipient(databases: Databases) -> Account:
    return await make_account(databases)


class TestATransfer:
    async def test_moves_both_wallets_and_shows_the_sender_their_own(
        self, sender: Payer, recipient: Account, databases: Databases
    ) -> None:
        answer = await sender.send(to_wallet_id=recipient.wallet.id)
        assert answer.status_code == 201, answer.text
        body = answer.json()
        TransferReceipt.model_validate(body)
        assert body["from_wallet"] == {
            "wallet_id": sender.wallet.id,
            "currency": "INR",
            "available": 9_000,
            "held": 0,
            "balance": 9_000,
            "owed": 0,
        }
        assert "to_wallet" not in body
        assert (await current(recipient.wallet)).available == 1_000
        entries = await databases.wallet["transaction_logs"].find({"reference": body["id"]}).sort("type").to_list()
        assert [entry["type"] for entry in entries] == ["TRANSFER_IN", "TRANSFER_OUT"]
        assert [entry["counterparty"] for entry in entries] == [sender.wallet.id, recipient.wallet.id]
        assert {entry["transaction_id"] for entry in entries} == {body["transaction_id"]}

    async def test_reaches_a_person_by_their_address(self, sender: Payer, recipient: Account) -> None:
        answer = await sender.send(to_email=recipient.user.email.upper())
        assert answer.status_code == 201, answer.text
        assert answer.json()["to_wallet_id"] == recipient.wallet.id

    async def test_leaves_nothing_open_and_nothing_for_a_worker(
        self, sender: Payer, recipient: Account, databases: Databases
    ) -> None:
        transfer = (await sender.send(to_wallet_id=recipient.wallet.id)).json()
        assert transfer["status"] == "success"
        assert (await current(sender.wallet)).open_operations == 0
        assert await outbox_topics(databases, transfer) == set()

    async def test_of_all_that_there_is_leaves_an_empty_wallet(self, sender: Payer, recipient: Account) -> None:
        assert (await sender.send(to_wallet_id=recipient.wallet.id, amount=10_000)).status_code == 201
        assert (await current(sender.wallet)).available == 0

    async def test_counts_for_the_senders_limits_and_not_for_the_recipients(
        self, sender: Payer, recipient: Account
    ) -> None:
        await sender.send(to_wallet_id=recipient.wallet.id, amount=700)
        usage = (await current(sender.wallet)).usage
        assert (usage.hour_count, usage.day_amount, usage.month_amount) == (1, 700, 700)
        assert (await current(recipient.wallet)).usage.hour_count == 0


class TestRefusals:
    """Each with its own code, and nothing moved."""

    async def test_to_oneself(self, sender: Payer) -> None:
        assert refusal(await sender.send(to_wallet_id=sender.wallet.id)) == (422, "same_wallet")
        assert refusal(await sender.send(to_email=sender.account.user.email)) == (422, "same_wallet")

    async def test_to_nobody(self, sender: Payer, databases: Databases) -> None:
        in_dollars = await make_account(databases, currency="USD")
        deactivated = await make_account(databases, is_active=False)
        closed = await make_account(databases)
        await shut(databases, closed.wallet, WalletStatus.CLOSED)
        not_found = (404, "recipient_not_found")
        for to in (
            {"to_wallet_id": "wal_0198c0ffee0070008000000000000001"},
            {"to_wallet_id": sender.account.user.id},
            {"to_wallet_id": closed.wallet.id},
            {"to_email": make_email()},
            {"to_email": "no address at all"},
            {"to_email": ""},
            {"to_email": (await make_user(databases)).email},
            {"to_email": in_dollars.user.email},
            {"to_email": deactivated.user.email},
            {"to_email": closed.user.email},
        ):
            assert refusal(await sender.send(**to)) == not_found, to
        assert (await current(sender.wallet)) == sender.wallet

    async def test_in_another_currency_than_either_wallets(self, sender: Payer, databases: Databases) -> None:
        in_dollars = await make_account(databases, currency="USD")
        other = await make_account(databases)
        answer = await sender.send(to_wallet_id=in_dollars.wallet.id)
        assert refusal(answer) == (422, "currency_mismatch")
        assert (answer.json()["wallet_id"], answer.json()["currency"]) == (in_dollars.wallet.id, "USD")
        answer = await sender.send(to_wallet_id=other.wallet.id, currency="USD")
        assert refusal(answer) == (422, "currency_mismatch")
        assert (answer.json()["wallet_id"], answer.json()["currency"]) == (sender.wallet.id, "INR")
        own = await make_wallet(databases, sender.account.user, currency="USD")
        assert refusal(await sender.send(to_wallet_id=own.id)) == (422, "currency_mismatch")

    @pytest.mark.parametrize("currency", ["PTS", "XXX", "inr"])
    async def test_in_points_or_in_what_is_no_money(self, sender: Payer, recipient: Account, currency: str) -> None:
        answer = await sender.send(to_wallet_id=recipient.wallet.id, currency=currency)
        assert refusal(answer) == (422, "invalid_fields")
        assert [error["pointer"] for error in answer.json()["errors"]] == ["/currency"]

    @pytest.mark.parametrize("how", list(Freeze))
    async def test_from_a_wallet_that_is_frozen(
        self, sender: Payer, recipient: Account, databases: Databases, how: Freeze
    ) -> None:
        await shut(databases, sender.wallet, how)
        answer = await sender.send(to_wallet_id=recipient.wallet.id)
        if how is Freeze.IN:
            assert answer.status_code == 201
        else:
            assert refusal(answer) == (422, "wallet_frozen")
            assert answer.json()["frozen"] == how

    @pytest.mark.parametrize("how", list(Freeze))
    async def test_to_a_wallet_that_is_frozen(
        self, sender: Payer, recipient: Account, databases: Databases, how: Freeze
    ) -> None:
        await shut(databases, recipient.wallet, how)
        for to in ({"to_wallet_id": recipient.wallet.id}, {"to_email": recipient.user.email}):
            answer = await sender.send(**to)
            if how is Freeze.OUT:
                assert answer.status_code == 201
            else:
                assert refusal(answer) == (422, "recipient_wallet_frozen")

    async def test_from_a_closed_wallet(self, sender: Payer, recipient: Account, databases: Databases) -> None:
        await shut(databases, sender.wallet, WalletStatus.CLOSED)
        assert refusal(await sender.send(to_wallet_id=recipient.wallet.id)) == (422, "wallet_closed")

    async def test_of_more_than_there_is(self, sender: Payer, recipient: Account) -> None:
        answer = await sender.send(to_wallet_id=recipient.wallet.id, amount=10_001)
        assert refusal(answer) == (422, "insufficient_funds")
        assert (answer.json()["available"], answer.json()["requested"]) == (10_000, 10_001)
        assert (await current(sender.wallet)) == sender.wallet

    async def test_of_more_than_the_recipient_can_hold(self, sender: Payer, databases: Databases) -> None:
        full = await make_account(databases, balance=MAX_AMOUNT_MINOR - 999)
        assert refusal(await sender.send(to_wallet_id=full.wallet.id)) == (422, "recipient_balance_overflow")
        assert (await sender.send(to_wallet_id=full.wallet.id, amount=999)).status_code == 201
        assert (await current(full.wallet)).available == MAX_AMOUNT_MINOR

    async def test_beyond_a_limit(
        self, api: httpx.AsyncClient, recipient: Account, databases: Databases, settings: Settings
    ) -> None:
        payer = await Payer.with_balance(api, databases, settings, 10_000)
        await set_limits(databases, payer.account, Limits(per_day=1_500))
        assert (await payer.send(to_wallet_id=recipient.wallet.id)).status_code == 201
        answer = await payer.send(to_wallet_id=recipient.wallet.id)
        assert refusal(answer) == (422, "limit_exceeded")
        assert (answer.json()["limit"], answer.json()["left"]) == ("per_day", 500)
        assert (await payer.send(to_wallet_id=recipient.wallet.id, amount=500)).status_code == 201

    async def test_from_somebody_elses_wallet(self, sender: Payer, databases: Databases) -> None:
        victim = await make_account(databases, balance=500)
        missing = await sender.send(from_wallet_id="wal_missing", to_wallet_id=sender.wallet.id)
        for to in ({"to_wallet_id": sender.wallet.id}, {"to_email": sender.account.user.email}):
            answer = await sender.send(from_wallet_id=victim.wallet.id, amount=500, **to)
            assert refusal(answer) == refusal(missing) == (404, "not_found")
        assert (await current(victim.wallet)) == victim.wallet

    async def test_by_somebody_deactivated_who_still_has_a_token(
        self, sender: Payer, recipient: Account, databases: Databases
    ) -> None:
        users = databases.wallet["users"]
        await users.update_one({"_id": sender.account.user.id}, {"$set": {"is_active": False}})
        key = uuid4().hex
        for _ in range(2):
            answer = await sender.send(key, to_wallet_id=recipient.wallet.id)
            assert refusal(answer) == (403, "account_deactivated")
        batch = await sender.batch("best_effort", [{"to_wallet_id": recipient.wallet.id}])
        assert refusal(batch) == (403, "account_deactivated")
        await users.update_one({"_id": sender.account.user.id}, {"$set": {"is_active": True}})
        assert (await sender.send(key, to_wallet_id=recipient.wallet.id)).status_code == 201

    @pytest.mark.parametrize(
        "body",
        [
            {},
            {"to_wallet_id": "wal_b", "to_email": "b@example.com"},
            {"to_wallet_id": None, "to_email": None},
            {"to_wallet_id": ""},
            {"to_wallet_id": {"$ne": ""}},
            {"to_email": {"$gt": ""}},
            {"to_wallet_id": "wal_b", "amount": 0},
            {"to_wallet_id": "wal_b", "amount": -1},
            {"to_wallet_id": "wal_b", "amount": 1.0},
            {"to_wallet_id": "wal_b", "amount": True},
            {"to_wallet_id": "wal_b", "amount": MAX_AMOUNT_MINOR + 1},
            {"to_wallet_id": "wal_b", "user_id": "usr_b"},
            {"to_wallet_id": "wal_b", "from_wallet_id": ["wal_a"]},
        ],
        ids=str,
    )
    async def test_of_a_body_that_does_not_say_whom_and_how_much(self, sender: Payer, body: dict[str, Any]) -> None:
        assert refusal(await sender.send(**body)) == (422, "invalid_fields")
        assert refusal(await sender.batch("best_effort", [body])) == (422, "invalid_fields")

    async def test_to_more_than_a_hundred_addresses_are_refused(self, sender: Payer) -> None:
        orders = [{"to_email": f"nobody-{number}@example.com"} for number in range(101)]
        answer = await sender.batch("best_effort", orders)
        assert refusal(answer) == (422, "invalid_fields")
        assert [one["code"] for one in answer.json()["errors"]] == ["too_many_addresses"]
        assert (await sender.batch("best_effort", orders[1:])).status_code == 201

    async def test_without_a_key_or_a_token(self, sender: Payer, recipient: Account, api: httpx.AsyncClient) -> None:
        order = sender.order(to_wallet_id=recipient.wallet.id)
        for path, body in (("", order), ("/batch", {"mode": "best_effort", "transfers": [order]})):
            answer = await api.post(f"/api/v1/transfers{path}", json=body, headers=sender.headers)
            assert refusal(answer) == (400, "idempotency_key_missing")
            answer = await api.post(f"/api/v1/transfers{path}", json=body, headers={"Idempotency-Key": "k"})
            assert refusal(answer) == (401, "unauthenticated")


async def set_limits(databases: Databases, account: Account, limits: Limits) -> None:
    row = {name: None if value is None else Int64(value) for name, value in limits._asdict().items()}
    await databases.wallet["wallets"].update_one({"_id": account.wallet.id}, {"$set": {"limits": row}})


class TestWhatNobodyLearns:
    @pytest.mark.parametrize("trouble", ["insufficient_funds", "wallet_frozen", "wallet_closed", "limit_exceeded"])
    async def test_who_cannot_pay_gets_the_same_bytes_whoever_is_there_to_be_paid(
        self, sender: Payer, recipient: Account, databases: Databases, trouble: str
    ) -> None:
        amount = 1_000
        match trouble:
            case "insufficient_funds":
                amount = 10_001
            case "wallet_frozen":
                await shut(databases, sender.wallet, Freeze.OUT)
            case "wallet_closed":
                await shut(databases, sender.wallet, WalletStatus.CLOSED)
            case _:
                await set_limits(databases, sender.account, Limits(per_transaction=999))
        in_dollars = await make_account(databases, currency="USD")
        frozen = await make_account(databases)
        await shut(databases, frozen.wallet, Freeze.BOTH)
        answers = [
            await sender.post("/transfers", sender.order(amount=amount, **to), **{"X-Request-ID": "the-same"})
            for to in (
                {"to_wallet_id": recipient.wallet.id},
                {"to_wallet_id": "wal_missing"},
                {"to_wallet_id": in_dollars.wallet.id},
                {"to_wallet_id": frozen.wallet.id},
                {"to_email": recipient.user.email},
                {"to_email": make_email()},
                {"to_email": in_dollars.user.email},
            )
        ]
        assert answers[0].json()["error"] == trouble
        assert {(answer.status_code, answer.content) for answer in answers} == {
            (answers[0].status_code, answers[0].content)
        }

    async def test_the_recipients_balance_stands_in_no_answer(self, sender: Payer, databases: Databases) -> None:
        rich = await make_account(databases, balance=_TELLING)
        key = uuid4().hex
        made = await sender.send(key, to_wallet_id=rich.wallet.id)
        answers = [
            made,
            await sender.send(key, to_wallet_id=rich.wallet.id),
            await sender.batch("best_effort", [{"to_wallet_id": rich.wallet.id}, {"to_email": rich.user.email}]),
            await sender.get(f"/transfers/{made.json()['id']}"),
            await sender.get("/transfers"),
        ]
        for answer in answers:
            assert answer.is_success, answer.text
            assert not any(str(seen) in answer.text for seen in range(_TELLING, _TELLING + 4_000, 1_000))
            assert rich.user.email not in answer.text
            assert rich.user.id not in answer.text


class TestSeeingOne:
    async def test_both_sides_see_the_same_and_nobody_else_sees_anything(
        self,
        sender: Payer,
        recipient: Account,
        databases: Databases,
        settings: Settings,
    ) -> None:
        made = (await sender.send(to_wallet_id=recipient.wallet.id, description="October", category="rent")).json()
        path = f"/transfers/{made['id']}"
        other_side = Payer.of(sender.api, recipient, settings)
        third = await Payer.with_balance(sender.api, databases, settings, 1)
        seen = await sender.get(path)
        assert seen.status_code == 200
        TransferView.model_validate(seen.json())
        assert seen.json() == {name: value for name, value in made.items() if name != "from_wallet"}
        assert (await other_side.get(path)).content == seen.content
        assert refusal(await third.get(path)) == (404, "not_found")
        assert refusal(await third.get("/transfers/trf_missing")) == (404, "not_found")
        for path in ("/transfers/wdr_missing", f"/transfers/{sender.wallet.id}", f"/withdrawals/{made['id']}"):
            assert refusal(await sender.get(path)) == (404, "not_found")

    async def test_a_list_has_what_one_sent_newest_first_page_by_page(
        self, sender: Payer, recipient: Account, settings: Settings
    ) -> None:
        made = [(await sender.send(to_wallet_id=recipient.wallet.id, amount=n)).json()["id"] for n in (1, 2, 3)]
        first = (await sender.get("/transfers", limit=2)).json()
        assert ([one["id"] for one in first["data"]], first["has_more"]) == ([made[2], made[1]], True)
        rest = (await sender.get("/transfers", limit=2, cursor=first["next_cursor"])).json()
        assert ([one["id"] for one in rest["data"]], rest["has_more"]) == ([made[0]], False)
        other_side = Payer.of(sender.api, recipient, settings)
        assert (await other_side.get("/transfers")).json()["data"] == []
        stolen = await other_side.get("/transfers", limit=2, cursor=first["next_cursor"])
        assert refusal(stolen) == (400, "invalid_cursor")
        received = (await other_side.get(f"/wallets/{recipient.wallet.id}/transactions")).json()["data"]
        assert [(one["type"], one["reference"]) for one in received] == [("TRANSFER_IN", one) for one in made[::-1]]


class TestOneKey:
    async def test_a_replay_is_the_same_to_the_byte_and_pays_once(self, sender: Payer, recipient: Account) -> None:
        key = uuid4().hex
        first = await sender.send(key, to_wallet_id=recipient.wallet.id)
        await sender.send(to_wallet_id=recipient.wallet.id)
        again = await sender.send(key, to_wallet_id=recipient.wallet.id)
        assert (again.status_code, again.content) == (first.status_code, first.content)
        assert again.headers["Idempotent-Replayed"] == "true"
        assert (await current(recipient.wallet)).available == 2_000

    async def test_a_refusal_is_kept_too(self, sender: Payer, databases: Databases) -> None:
        key, late = uuid4().hex, await make_user(databases)
        first = await sender.send(key, to_email=late.email)
        assert refusal(first) == (404, "recipient_not_found")
        await make_wallet(databases, late)
        again = await sender.send(key, to_email=late.email)
        assert (again.status_code, again.content) == (first.status_code, first.content)
        assert (await sender.send(to_email=late.email)).status_code == 201

    async def test_another_request_under_it_is_refused(self, sender: Payer, recipient: Account) -> None:
        key, to = uuid4().hex, {"to_wallet_id": recipient.wallet.id}
        assert (await sender.send(key, **to)).status_code == 201
        reused = (422, "idempotency_key_reused")
        assert refusal(await sender.send(key, amount=1_001, **to)) == reused
        assert refusal(await sender.send(key, to_email=recipient.user.email)) == reused
        assert refusal(await sender.batch("best_effort", [to], key)) == reused
        assert refusal(await sender.withdraw(1_000, key)) == reused
        assert (await current(recipient.wallet)).available == 1_000

    async def test_is_the_users_own(self, sender: Payer, databases: Databases, settings: Settings) -> None:
        other = await Payer.with_balance(sender.api, databases, settings, 5_000)
        key = uuid4().hex
        first = await sender.send(key, to_wallet_id=other.wallet.id)
        second = await other.send(key, to_wallet_id=sender.wallet.id)
        assert [first.status_code, second.status_code] == [201, 201]
        assert "Idempotent-Replayed" not in second.headers


class TestBatches:
    async def test_all_or_nothing_makes_none_where_one_is_refused(self, sender: Payer, recipient: Account) -> None:
        good: dict[str, Any] = {"to_wallet_id": recipient.wallet.id}
        answer = await sender.batch("all_or_nothing", [good, good | {"amount": 9_001}])
        assert refusal(answer) == (422, "transfer_batch_refused")
        assert (answer.json()["position"], answer.json()["cause"]) == (1, "insufficient_funds")
        assert (await current(recipient.wallet)).available == 0
        assert (await current(sender.wallet)).available == 10_000

    async def test_a_refused_one_leaves_nothing_behind_but_its_answer(
        self, api: httpx.AsyncClient, databases: Databases, settings: Settings
    ) -> None:
        payer = await Payer.with_balance(api, databases, settings, 100_000_000)
        recipient = await make_account(databases)
        wallets = {"_id": {"$in": [payer.wallet.id, recipient.wallet.id]}}
        before = await databases.wallet["wallets"].find(wallets).sort("_id").to_list()
        rows_before = await databases.wallet["outbox"].count_documents({})
        good: dict[str, Any] = {"to_wallet_id": recipient.wallet.id}
        orders = [good, good | {"amount": _LARGE}, good, {"to_wallet_id": "wal_missing"}, good]
        key = uuid4().hex
        answer = await payer.batch("all_or_nothing", orders, key)
        assert refusal(answer) == (422, "transfer_batch_refused")
        assert (answer.json()["position"], answer.json()["cause"]) == (3, "recipient_not_found")
        assert await databases.wallet["wallets"].find(wallets).sort("_id").to_list() == before
        assert await databases.wallet["outbox"].count_documents({}) == rows_before
        own = {"user_id": payer.account.user.id}
        assert await databases.wallet["transfers"].count_documents(own) == 0
        entries = {"wallet_id": {"$in": [payer.wallet.id, recipient.wallet.id]}}
        assert await databases.wallet["transaction_logs"].count_documents(entries) == 1
        again = await payer.batch("all_or_nothing", orders, key)
        assert (again.content, again.headers["Idempotent-Replayed"]) == (answer.content, "true")

    async def test_best_effort_tells_of_each(self, sender: Payer, recipient: Account) -> None:
        good: dict[str, Any] = {"to_wallet_id": recipient.wallet.id}
        answer = await sender.batch("best_effort", [good, good | {"amount": 9_001}, good])
        assert answer.status_code == 201, answer.text
        TransferBatchView.model_validate(answer.json())
        results = answer.json()["results"]
        assert [result["status"] for result in results] == ["success", "refused", "success"]
        assert results[1]["error"]["error"] == "insufficient_funds"
        assert (answer.json()["accepted"], answer.json()["refused"]) == (2, 1)
        assert {results[n]["transfer"]["batch_id"] for n in (0, 2)} == {answer.json()["id"]}
        assert (await current(recipient.wallet)).available == 2_000

    async def test_each_sees_what_those_before_it_left(self, sender: Payer, recipient: Account) -> None:
        good: dict[str, Any] = {"to_wallet_id": recipient.wallet.id}
        amounts = (6_000, 6_000, 4_000, 1)
        answer = await sender.batch("best_effort", [good | {"amount": amount} for amount in amounts])
        results = answer.json()["results"]
        assert [result["status"] for result in results] == ["success", "refused", "success", "refused"]
        assert results[1]["error"]["available"] == 4_000
        left = [result["transfer"]["from_wallet"]["available"] for result in results if "transfer" in result]
        assert left == [4_000, 0]

    async def test_a_refused_part_does_not_count_for_the_limits(
        self, sender: Payer, recipient: Account, databases: Databases
    ) -> None:
        await set_limits(databases, sender.account, Limits(per_day=2_000, count_per_hour=3))
        good: dict[str, Any] = {"to_wallet_id": recipient.wallet.id}
        orders = [good, good | {"amount": 1_001}, good | {"amount": 500}, {"to_wallet_id": "wal_missing", "amount": 1}]
        answer = await sender.batch("best_effort", [*orders, good | {"amount": 500}, good | {"amount": 1}])
        results = answer.json()["results"]
        codes = [result["error"]["error"] if "error" in result else result["status"] for result in results]
        limit = "limit_exceeded"
        assert codes == ["success", limit, "success", "recipient_not_found", "success", limit]
        usage = (await current(sender.wallet)).usage
        assert (usage.hour_count, usage.day_amount) == (3, 2_000)

    async def test_a_replay_is_the_same_to_the_byte_and_pays_once(self, sender: Payer, recipient: Account) -> None:
        key, orders = uuid4().hex, [{"to_wallet_id": recipient.wallet.id}] * 3
        first = await sender.batch("best_effort", orders, key)
        again = await sender.batch("best_effort", orders, key)
        assert (again.status_code, again.content) == (first.status_code, first.content)
        assert again.headers["Idempotent-Replayed"] == "true"
        assert refusal(await sender.batch("all_or_nothing", orders, key)) == (422, "idempotency_key_reused")
        assert (await current(recipient.wallet)).available == 3_000

    async def test_what_is_large_waits_for_approval_and_the_rest_is_paid(
        self, api: httpx.AsyncClient, databases: Databases, settings: Settings
    ) -> None:
        payer = await Payer.with_balance(api, databases, settings, 100_000_000)
        recipient = await make_account(databases)
        good: dict[str, Any] = {"to_wallet_id": recipient.wallet.id}
        answer = await payer.batch("all_or_nothing", [good, good | {"amount": _LARGE}, good, good | {"amount": _LARGE}])
        assert answer.status_code == 201, answer.text
        results = answer.json()["results"]
        assert [one["status"] for one in results] == ["success", "requires_approval", "success", "requires_approval"]
        assert answer.json()["accepted"] == 4
        wallet = await current(payer.wallet)
        assert (wallet.held, wallet.open_operations) == (2 * _LARGE, 2)
        assert (await current(recipient.wallet)).available == 2_000
        for result, topics in zip(results, (set(), {"approval_code", "expiry"}) * 2, strict=True):
            assert await outbox_topics(databases, result["transfer"]) == topics

    async def test_takes_500_and_no_more(
        self, api: httpx.AsyncClient, databases: Databases, settings: Settings
    ) -> None:
        payer = await Payer.with_balance(api, databases, settings, 1_000)
        recipients = [await make_account(databases) for _ in range(10)]
        orders = [{"to_wallet_id": recipients[n % 10].wallet.id, "amount": 1} for n in range(500)]
        answer = await payer.batch("all_or_nothing", orders)
        assert answer.status_code == 201, answer.text
        assert answer.json()["accepted"] == 500
        assert [(await current(one.wallet)).available for one in recipients] == [50] * 10
        assert (await current(payer.wallet)).available == 500
        transfers = databases.wallet["transfers"]
        assert await transfers.count_documents({"batch_id": answer.json()["id"]}) == 500
        assert refusal(await payer.batch("best_effort", [*orders, orders[0]])) == (422, "invalid_fields")
        assert refusal(await payer.batch("best_effort", [])) == (422, "invalid_fields")
        assert refusal(await payer.batch("some", orders)) == (422, "invalid_fields")
        assert (await current(payer.wallet)).available == 500

    async def test_only_this_route_takes_a_body_beyond_64_kib(self, sender: Payer, recipient: Account) -> None:
        note = {f"key-{n}": "x" * 256 for n in range(20)}
        orders = [{"to_wallet_id": recipient.wallet.id, "amount": 1, "metadata": note}] * 20
        answer = await sender.batch("best_effort", orders)
        assert len(answer.request.content) > 64 * 1024
        assert answer.status_code == 201, answer.text
        too_large = (413, "body_too_large")
        padding = " " * (64 * 1024)
        for path in ("/transfers", "/withdrawals", "/deposits", "/transfers/trf_x/confirm"):
            assert refusal(await sender.post(path, {"padding": padding})) == too_large
        assert refusal(await sender.batch("best_effort", [{"description": " " * 4 * 1024 * 1024}])) == too_large


class TestABatchBesideOthers:
    async def test_single_transfers_beside_two_batches_of_500_all_come_through(
        self, api: httpx.AsyncClient, databases: Databases, settings: Settings
    ) -> None:
        payers = [await Payer.with_balance(api, databases, settings, 1_000) for _ in range(4)]
        target = await make_account(databases)
        one: dict[str, Any] = {"to_wallet_id": target.wallet.id, "amount": 1}
        answers = await asyncio.gather(
            *(payer.send(**one) for payer in payers for _ in range(50)),
            payers[0].batch("all_or_nothing", [one] * 500),
            payers[1].batch("best_effort", [one] * 500),
            *(payer.send(**one) for payer in payers for _ in range(50)),
        )
        assert {answer.status_code for answer in answers} == {201}
        assert (await current(target.wallet)).available == 400 + 1_000
        assert [(await current(payer.wallet)).available for payer in payers] == [400, 400, 900, 900]
