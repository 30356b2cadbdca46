"""Payments that wait for a code, over HTTP: held at once, then confirmed, canceled or lapsed, with one end."""

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from service.controllers.operations import WithdrawalView
from service.controllers.transfers import TransferReceipt
from service.database import Databases, session_in_transaction
from service.domain.clock import utc_now
from service.domain.idempotency import Answer
from service.domain.money import MAX_AMOUNT_MINOR
from service.domain.outbox import OutboxRow, OutboxTopic, outbox_id, outbox_row
from service.domain.step_up import CODE_TRIES
from service.domain.totp import TRIES
from service.domain.wallets import Freeze, WalletStatus
from service.errors import LedgerBusy
from service.ledger.committer import Ledger
from service.repositories import outbox as outbox_repository
from service.services.outbox import pursue_row
from service.services.settlement import Desk
from service.settings import Settings
from service.startup import Resources
from tests.factories import Account, bearer, current, make_account
from tests.payer import Payer, enrol, outbox_topics, payment_row, right_code, shut, wrong_code
from tests.refusals import refusal

_BALANCE = 100_000_000
# The settings' own.
_THRESHOLD = 20_000_000
_LARGE = _THRESHOLD + 1

Payment = dict[str, Any]


class Waiting:
    """Somebody with a payment that waits for their code, and what befalls it."""

    def __init__(self, payer: Payer, recipient: Account, payment: Payment, resources: Resources) -> None:
        self.payer, self.recipient, self.payment, self.resources = payer, recipient, payment, resources

    @property
    def databases(self) -> Databases:
        return self.resources.databases

    async def code(self) -> str:
        return await right_code(self.databases, self.resources.settings, self.payment)

    async def confirm(self, code: str | None = None, key: str | None = None) -> httpx.Response:
        return await self.payer.confirm(self.payment, code or await self.code(), key)

    async def cancel(self, key: str | None = None) -> httpx.Response:
        return await self.payer.cancel(self.payment, key)

    async def expire(self) -> None:
        past = {"$set": {"challenge.expires_at": utc_now() - timedelta(milliseconds=1)}}
        await self.databases.wallet[f"{self.payment['type']}s"].update_one({"_id": self.payment["id"]}, past)

    async def work(self, topic: OutboxTopic) -> None:
        """As a worker does with a row that it has taken."""
        bank, mailbox, settings = self.resources.bank, self.resources.mailbox, self.resources.settings
        desk = Desk(self.resources.ledger, bank, mailbox, settings, self.databases.client)
        await pursue_row(self.row(topic), desk)

    def row(self, topic: OutboxTopic) -> OutboxRow:
        return outbox_row(topic, self.payment["id"], None, utc_now())

    async def status(self) -> str:
        row = await payment_row(self.databases, self.payment)
        return str(row["status"])

    async def tries_left(self) -> int:
        row = await payment_row(self.databases, self.payment)
        return int(row["challenge"]["tries_left"])

    async def topics(self) -> set[str]:
        return await outbox_topics(self.databases, self.payment)

    async def assert_given_back(self, failure_code: str | None, *, count: int = 0) -> None:
        """All of it, with its share of the limits, once, and nothing is left to do. `count` is what still counts."""
        row = await payment_row(self.databases, self.payment)
        assert (row["status"], row["failure_code"], row["challenge"]) == ("canceled", failure_code, None)
        wallet = await current(self.payer.wallet)
        assert (wallet.available, wallet.held, wallet.open_operations) == (_BALANCE, 0, 0)
        assert (wallet.usage.hour_count, wallet.usage.day_amount, wallet.usage.month_amount) == (count, 0, 0)
        assert await self.topics() == set()
        assert (await current(self.recipient.wallet)).available == 0
        entries = await self.databases.wallet["transaction_logs"].find({"reference": row["_id"]}).to_list()
        kinds = {"transfer": ["HOLD", "HOLD_RELEASE"], "withdrawal": ["WITHDRAWAL", "WITHDRAWAL_REFUND"]}
        assert sorted(entry["type"] for entry in entries) == kinds[self.payment["type"]]

    async def assert_held(self) -> None:
        assert await self.status() == "requires_approval"
        wallet = await current(self.payer.wallet)
        assert (wallet.available, wallet.held, wallet.open_operations) == (_BALANCE - _LARGE, _LARGE, 1)

    def mails(self) -> list[dict[str, str]]:
        path = Path(self.resources.settings.mailbox_path)
        lines = path.read_text().splitlines() if path.exists() else []
        return [mail for mail in map(json.loads, lines) if mail["id"].startswith(self.payment["id"])]


@pytest.fixture
async def payer(api: httpx.AsyncClient, databases: Databases, settings: Settings) -> Payer:
    return await Payer.with_balance(api, databases, settings, _BALANCE)


async def _ask(kind: str, payer: Payer, resources: Resources) -> Waiting:
    recipient = await make_account(resources.databases)
    if kind == "transfer":
        answer = await payer.send(to_wallet_id=recipient.wallet.id, amount=_LARGE)
    else:
        answer = await payer.withdraw(_LARGE)
    assert answer.status_code == 202, answer.text
    return Waiting(payer, recipient, answer.json(), resources)


@pytest.fixture(params=["transfer", "withdrawal"])
async def waiting(request: pytest.FixtureRequest, payer: Payer, resources: Resources) -> Waiting:
    return await _ask(request.param, payer, resources)


@pytest.fixture
async def transfer(payer: Payer, resources: Resources) -> Waiting:
    return await _ask("transfer", payer, resources)


@pytest.fixture
async def withdrawal(payer: Payer, resources: Resources) -> Waiting:
    return await _ask("withdrawal", payer, resources)


class TestTheThreshold:
    async def test_at_it_no_approval_is_asked_for(self, payer: Payer, databases: Databases) -> None:
        recipient = await make_account(databases)
        transfer = await payer.send(to_wallet_id=recipient.wallet.id, amount=_THRESHOLD)
        assert (transfer.status_code, transfer.json()["status"]) == (201, "success")
        withdrawal = await payer.withdraw(_THRESHOLD)
        assert (withdrawal.status_code, withdrawal.json()["status"]) == (202, "pending")
        assert await outbox_topics(databases, withdrawal.json()) == {"bank_order"}

    async def test_above_it_the_funds_are_held_and_nobody_has_heard_of_it(self, waiting: Waiting) -> None:
        assert waiting.payment["status"] == "requires_approval"
        await waiting.assert_held()
        assert await waiting.topics() == {"approval_code", "expiry"}
        assert (await current(waiting.recipient.wallet)).seq == 0
        assert (await current(waiting.payer.wallet)).usage.day_amount == _LARGE
        assert waiting.mails() == []

    async def test_what_is_held_cannot_be_spent_again(self, waiting: Waiting) -> None:
        to = {"to_wallet_id": waiting.recipient.wallet.id}
        answer = await waiting.payer.send(amount=_BALANCE - _LARGE + 1, **to)
        assert refusal(answer) == (422, "insufficient_funds")

    async def test_nothing_of_the_challenge_stands_in_an_answer(self, waiting: Waiting) -> None:
        row = await payment_row(waiting.databases, waiting.payment)
        seen = json.dumps([waiting.payment, await waiting.payer.see(waiting.payment)])
        for secret in ("challenge", row["challenge"]["nonce"], row["challenge"]["code_hash"]):
            assert secret not in seen

    async def test_who_cannot_pay_is_told_so_at_once(self, payer: Payer, databases: Databases) -> None:
        recipient = await make_account(databases)
        for to in (recipient.wallet.id, "wal_missing"):
            answer = await payer.send(to_wallet_id=to, amount=_BALANCE + 1)
            assert refusal(answer) == (422, "insufficient_funds")
        assert refusal(await payer.send(to_wallet_id="wal_missing", amount=_LARGE)) == (404, "recipient_not_found")

    async def test_the_same_key_again_holds_once(self, payer: Payer, databases: Databases) -> None:
        recipient, key = await make_account(databases), uuid4().hex
        first, again = [await payer.send(key, to_wallet_id=recipient.wallet.id, amount=_LARGE) for _ in range(2)]
        assert (again.status_code, again.content) == (202, first.content)
        assert (await current(payer.wallet)).held == _LARGE


class TestTheMail:
    async def test_goes_to_the_payer_with_the_right_code_and_ends_its_row(self, waiting: Waiting) -> None:
        await waiting.work(OutboxTopic.APPROVAL_CODE)
        (mail,) = waiting.mails()
        assert mail["to"] == waiting.payer.account.user.email
        assert await waiting.code() in mail["text"]
        assert await waiting.topics() == {"expiry"}
        await waiting.assert_held()
        code = mail["text"].splitlines()[0].removeprefix("Your code is ")
        assert (await waiting.confirm(code)).is_success

    async def test_does_not_go_out_once_the_payment_has_been_answered(self, waiting: Waiting) -> None:
        await waiting.cancel()
        await waiting.work(OutboxTopic.APPROVAL_CODE)
        assert waiting.mails() == []

    async def test_does_not_go_out_after_the_time_to_answer(self, waiting: Waiting) -> None:
        await waiting.expire()
        await waiting.work(OutboxTopic.APPROVAL_CODE)
        assert waiting.mails() == []

    async def test_sent_again_by_a_worker_after_a_crash_is_the_same_mail(self, waiting: Waiting) -> None:
        for _ in range(2):
            await waiting.work(OutboxTopic.APPROVAL_CODE)
        first, second = waiting.mails()
        assert first == second


class TestConfirming:
    async def test_a_transfer_pays_it(self, transfer: Waiting) -> None:
        answer = await transfer.confirm()
        assert answer.status_code == 200, answer.text
        TransferReceipt.model_validate(answer.json())
        assert answer.json()["status"] == "success"
        assert answer.json()["from_wallet"]["held"] == 0
        assert "to_wallet" not in answer.json()
        wallet = await current(transfer.payer.wallet)
        assert (wallet.available, wallet.held, wallet.open_operations) == (_BALANCE - _LARGE, 0, 0)
        assert (await current(transfer.recipient.wallet)).available == _LARGE
        assert await transfer.topics() == set()
        logs = transfer.databases.wallet["transaction_logs"]
        entries = await logs.find({"reference": transfer.payment["id"]}).to_list()
        types = ["HOLD", "HOLD_RELEASE", "TRANSFER_IN", "TRANSFER_OUT"]
        assert sorted(entry["type"] for entry in entries) == types
        paid = {entry["transaction_id"] for entry in entries if entry["type"] != "HOLD"}
        assert paid == {answer.json()["transaction_id"]}

    async def test_a_withdrawal_hands_it_to_the_bank(self, withdrawal: Waiting) -> None:
        answer = await withdrawal.confirm()
        assert answer.status_code == 202, answer.text
        WithdrawalView.model_validate(answer.json())
        assert answer.json()["status"] == "pending"
        assert await withdrawal.topics() == {"bank_order"}
        wallet = await current(withdrawal.payer.wallet)
        assert (wallet.available, wallet.held, wallet.open_operations) == (_BALANCE - _LARGE, _LARGE, 1)

    async def test_keeps_its_share_of_the_limits(self, waiting: Waiting) -> None:
        await waiting.confirm()
        usage = (await current(waiting.payer.wallet)).usage
        assert (usage.hour_count, usage.day_amount, usage.month_amount) == (1, _LARGE, _LARGE)

    async def test_happens_once(self, waiting: Waiting) -> None:
        key, code = uuid4().hex, await waiting.code()
        first = await waiting.confirm(code, key)
        again = await waiting.confirm(code, key)
        assert (again.status_code, again.content) == (first.status_code, first.content)
        assert again.headers["Idempotent-Replayed"] == "true"
        assert refusal(await waiting.confirm(code)) == (409, "illegal_transition")
        assert refusal(await waiting.confirm(wrong_code(code), key)) == (422, "idempotency_key_reused")
        assert (await current(waiting.payer.wallet)).available == _BALANCE - _LARGE

    async def test_takes_a_code_with_white_space(self, waiting: Waiting) -> None:
        code = await waiting.code()
        assert (await waiting.confirm(f" {code[:3]} {code[3:]} ")).is_success

    async def test_with_the_code_of_another_payment_is_wrong(self, waiting: Waiting) -> None:
        other = await waiting.payer.withdraw(_LARGE)
        code = await right_code(waiting.databases, waiting.resources.settings, other.json())
        assert refusal(await waiting.confirm(code)) == (422, "invalid_code")

    async def test_by_somebody_else_finds_nothing_and_costs_no_try(self, waiting: Waiting) -> None:
        code = await waiting.code()
        # Nobody is nearer to it than who is to be paid.
        other = Payer.of(waiting.payer.api, waiting.recipient, waiting.resources.settings)
        for answer in (await other.confirm(waiting.payment, code), await other.cancel(waiting.payment)):
            assert refusal(answer) == (404, "not_found")
        assert await waiting.tries_left() == CODE_TRIES
        await waiting.assert_held()

    async def test_by_somebody_deactivated_meanwhile_is_refused(self, waiting: Waiting) -> None:
        users, me = waiting.databases.wallet["users"], {"_id": waiting.payer.account.user.id}
        await users.update_one(me, {"$set": {"is_active": False}})
        assert refusal(await waiting.confirm()) == (403, "account_deactivated")
        assert refusal(await waiting.cancel()) == (403, "account_deactivated")
        await users.update_one(me, {"$set": {"is_active": True, "token_version": 1}})
        assert refusal(await waiting.confirm()) == (401, "unauthenticated")
        await waiting.assert_held()

    @pytest.mark.parametrize(
        ("how", "status", "code"),
        [
            (Freeze.OUT, 422, "wallet_frozen"),
            (Freeze.BOTH, 422, "wallet_frozen"),
            (Freeze.IN, None, None),
        ],
    )
    async def test_from_a_wallet_frozen_meanwhile(
        self, waiting: Waiting, how: Freeze, status: int | None, code: str | None
    ) -> None:
        await shut(waiting.databases, waiting.payer.wallet, how)
        answer = await waiting.confirm()
        if status is None:
            assert answer.is_success
            return
        assert refusal(answer) == (status, code)
        assert await waiting.tries_left() == CODE_TRIES
        await waiting.assert_held()
        await shut(waiting.databases, waiting.payer.wallet, WalletStatus.ACTIVE)
        assert (await waiting.confirm()).is_success

    @pytest.mark.parametrize(
        ("how", "refused"),
        [
            (Freeze.IN, (422, "recipient_wallet_frozen")),
            (Freeze.BOTH, (422, "recipient_wallet_frozen")),
            (Freeze.OUT, None),
            (WalletStatus.CLOSED, (404, "recipient_not_found")),
        ],
    )
    async def test_to_a_wallet_shut_meanwhile(
        self, transfer: Waiting, how: Freeze | WalletStatus, refused: tuple[int, str] | None
    ) -> None:
        await shut(transfer.databases, transfer.recipient.wallet, how)
        answer = await transfer.confirm()
        if refused is None:
            assert answer.status_code == 200
            return
        assert refusal(answer) == refused
        await transfer.assert_held()
        assert (await transfer.cancel()).status_code == 200
        await transfer.assert_given_back(None)

    async def test_to_a_wallet_that_is_full_by_now(self, payer: Payer, resources: Resources) -> None:
        full = await make_account(resources.databases, balance=MAX_AMOUNT_MINOR - _LARGE)
        asked = await payer.send(to_wallet_id=full.wallet.id, amount=_LARGE)
        assert asked.status_code == 202
        assert (await payer.send(to_wallet_id=full.wallet.id, amount=1)).status_code == 201
        waiting = Waiting(payer, full, asked.json(), resources)
        assert refusal(await waiting.confirm()) == (422, "recipient_balance_overflow")
        assert await waiting.status() == "requires_approval"

    @pytest.mark.parametrize("body", [{}, {"code": "12345"}, {"code": 123456}, {"code": "1" * 65}, {"code": None}])
    async def test_without_anything_like_a_code_costs_no_try(self, waiting: Waiting, body: dict[str, Any]) -> None:
        path = f"/{waiting.payment['type']}s/{waiting.payment['id']}/confirm"
        assert refusal(await waiting.payer.post(path, body)) == (422, "invalid_fields")
        assert await waiting.tries_left() == CODE_TRIES

    async def test_and_canceling_take_a_key_and_the_right_kind_of_id(self, waiting: Waiting) -> None:
        kinds = {"transfer": "withdrawal", "withdrawal": "transfer"}
        payer, payment = waiting.payer, waiting.payment
        as_other = {**payment, "type": kinds[payment["type"]]}
        assert refusal(await payer.confirm(as_other, "123456")) == (422, "invalid_fields")
        assert refusal(await payer.cancel(as_other)) == (422, "invalid_fields")
        missing = {**payment, "id": f"{payment['id'][:4]}missing"}
        assert refusal(await payer.confirm(missing, "123456")) == (404, "not_found")
        assert refusal(await payer.cancel(missing)) == (404, "not_found")
        for action, body in (("confirm", {"code": "123456"}), ("cancel", None)):
            path = f"/api/v1/{payment['type']}s/{payment['id']}/{action}"
            answer = await payer.api.post(path, json=body, headers=payer.headers)
            assert refusal(answer) == (400, "idempotency_key_missing")
        await waiting.assert_held()


class TestWrongCodes:
    async def test_count_down_leave_the_key_free_and_the_fifth_gives_the_funds_back(self, waiting: Waiting) -> None:
        key, wrong = uuid4().hex, wrong_code(await waiting.code())
        for left in (4, 3, 2, 1):
            answer = await waiting.confirm(wrong, key)
            assert (refusal(answer), answer.json()["tries_left"]) == ((422, "invalid_code"), left)
            await waiting.assert_held()
        last = await waiting.confirm(wrong, key)
        assert refusal(last) == (409, "too_many_tries")
        await waiting.assert_given_back("too_many_tries", count=1)
        again = await waiting.confirm(wrong, key)
        assert (again.content, again.headers["Idempotent-Replayed"]) == (last.content, "true")
        await waiting.assert_given_back("too_many_tries", count=1)

    async def test_four_and_then_the_right_one_under_the_same_key_pay(self, waiting: Waiting) -> None:
        key, right = uuid4().hex, await waiting.code()
        for _ in range(4):
            await waiting.confirm(wrong_code(right), key)
        assert (await waiting.confirm(right, key)).is_success

    async def test_after_the_fifth_the_right_one_does_not_pay(self, waiting: Waiting) -> None:
        right = await waiting.code()
        for _ in range(5):
            await waiting.confirm(wrong_code(right))
        assert refusal(await waiting.confirm(right)) == (409, "illegal_transition")
        await waiting.assert_given_back("too_many_tries", count=1)

    async def test_ten_at_once_are_no_more_than_five_tries(self, waiting: Waiting) -> None:
        wrong = wrong_code(await waiting.code())
        answers = await asyncio.gather(*(waiting.confirm(wrong) for _ in range(10)))
        codes = sorted(refusal(answer)[1] for answer in answers)
        assert codes == ["invalid_code"] * 4 + ["too_many_attempts"] * 5 + ["too_many_tries"]
        await waiting.assert_given_back("too_many_tries", count=1)


class TestCanceling:
    async def test_gives_everything_back_once(self, waiting: Waiting) -> None:
        key = uuid4().hex
        answer = await waiting.cancel(key)
        assert (answer.status_code, answer.json()["status"]) == (200, "canceled"), answer.text
        again = await waiting.cancel(key)
        assert (again.content, again.headers["Idempotent-Replayed"]) == (answer.content, "true")
        assert refusal(await waiting.cancel()) == (409, "illegal_transition")
        assert refusal(await waiting.confirm("123456")) == (409, "illegal_transition")
        await waiting.assert_given_back(None)

    async def test_is_allowed_from_a_frozen_wallet(self, waiting: Waiting) -> None:
        await shut(waiting.databases, waiting.payer.wallet, Freeze.BOTH)
        assert (await waiting.cancel()).status_code == 200
        await waiting.assert_given_back(None)

    async def test_a_withdrawal_is_possible_until_the_bank_hears_of_it(self, withdrawal: Waiting) -> None:
        await withdrawal.confirm()
        assert (await withdrawal.cancel()).status_code == 200
        await withdrawal.assert_given_back(None)
        await withdrawal.work(OutboxTopic.BANK_ORDER)
        assert await withdrawal.databases.bank["orders"].find_one({"_id": withdrawal.payment["id"]}) is None
        await withdrawal.assert_given_back(None)

    async def test_a_withdrawal_that_the_bank_has_is_too_late(self, withdrawal: Waiting) -> None:
        await withdrawal.confirm()
        await withdrawal.work(OutboxTopic.BANK_ORDER)
        answer = await withdrawal.cancel()
        assert refusal(answer) == (409, "illegal_transition")
        assert answer.json()["status_now"] == "processing"
        assert (await current(withdrawal.payer.wallet)).held == _LARGE

    async def test_a_transfer_that_is_paid_is_too_late(self, transfer: Waiting) -> None:
        await transfer.confirm()
        assert refusal(await transfer.cancel()) == (409, "illegal_transition")
        small = (await transfer.payer.send(to_wallet_id=transfer.recipient.wallet.id)).json()
        assert refusal(await transfer.payer.cancel(small)) == (409, "illegal_transition")
        assert (await current(transfer.recipient.wallet)).available == _LARGE + 1_000

    async def test_a_deposit_is_not_possible(self, payer: Payer) -> None:
        body = {"amount": 5, "currency": "INR", "source": "bank-account-0001"}
        deposit = (await payer.post("/deposits", body)).json()
        assert (await payer.cancel(deposit)).status_code == 404
        assert refusal(await payer.post(f"/withdrawals/{deposit['id']}/cancel")) == (422, "invalid_fields")


class TestTheEndOfTheTime:
    async def test_a_right_code_that_comes_too_late_gives_the_funds_back(self, waiting: Waiting) -> None:
        key, code = uuid4().hex, await waiting.code()
        await waiting.expire()
        answer = await waiting.confirm(code, key)
        assert refusal(answer) == (409, "approval_lapsed")
        await waiting.assert_given_back("approval_lapsed")
        assert (await waiting.confirm(code, key)).content == answer.content

    async def test_a_worker_gives_the_funds_back_however_often_it_looks(self, waiting: Waiting) -> None:
        await waiting.expire()
        for _ in range(2):
            await waiting.work(OutboxTopic.EXPIRY)
        await waiting.assert_given_back("approval_lapsed")
        seen = await waiting.payer.see(waiting.payment)
        assert (seen["status"], seen["failure_code"]) == ("canceled", "approval_lapsed")

    async def test_the_row_for_it_is_due_then_and_not_before(self, waiting: Waiting) -> None:
        row_id = outbox_id(OutboxTopic.EXPIRY, waiting.payment["id"])
        row = await waiting.databases.wallet["outbox"].find_one({"_id": row_id})
        assert row is not None
        challenge = (await payment_row(waiting.databases, waiting.payment))["challenge"]
        assert row["due_at"] == challenge["expires_at"]

    async def test_a_worker_that_comes_after_a_confirmation_changes_nothing(self, waiting: Waiting) -> None:
        await waiting.confirm()
        before = await current(waiting.payer.wallet)
        # As it might have been left by a version of the service that forgot to take it away.
        async with session_in_transaction(waiting.databases.client) as session:
            await outbox_repository.insert_many([waiting.row(OutboxTopic.EXPIRY)], session=session)
        await waiting.work(OutboxTopic.EXPIRY)
        assert await current(waiting.payer.wallet) == before
        assert await waiting.status() in ("success", "pending")
        assert OutboxTopic.EXPIRY not in await waiting.topics()


class TestWithAnApp:
    async def test_no_mail_is_sent_and_the_apps_code_confirms(self, waiting: Waiting) -> None:
        code, _ = await enrol(waiting.payer.api, waiting.payer.headers)
        await waiting.work(OutboxTopic.APPROVAL_CODE)
        assert waiting.mails() == []
        assert await waiting.topics() == {"expiry"}
        assert (await waiting.confirm(code)).is_success

    async def test_a_recovery_code_confirms_and_is_used_up(self, waiting: Waiting) -> None:
        _, recovery_codes = await enrol(waiting.payer.api, waiting.payer.headers)
        assert (await waiting.confirm(recovery_codes[0])).is_success
        other = (await waiting.payer.withdraw(_LARGE)).json()
        assert refusal(await waiting.payer.confirm(other, recovery_codes[0])) == (422, "invalid_code")
        assert (await waiting.payer.confirm(other, recovery_codes[1])).status_code == 202

    async def test_the_apps_code_confirms_one_payment_only(self, waiting: Waiting) -> None:
        other = (await waiting.payer.withdraw(_LARGE)).json()
        code, _ = await enrol(waiting.payer.api, waiting.payer.headers)
        assert (await waiting.confirm(code)).is_success
        answer = await waiting.payer.confirm(other, code)
        assert (refusal(answer), answer.json()["tries_left"]) == ((422, "invalid_code"), 4)

    async def test_a_refusal_that_is_asked_for_again_costs_no_tries_of_the_app(
        self, waiting: Waiting, databases: Databases
    ) -> None:
        code, _ = await enrol(waiting.payer.api, waiting.payer.headers)
        await shut(databases, waiting.payer.wallet, Freeze.OUT)
        first = await waiting.confirm(code, "one-key")
        assert refusal(first) == (422, "wallet_frozen")
        for _ in range(7):
            again = await waiting.confirm(code, "one-key")
            assert (again.status_code, again.content) == (422, first.content)

    async def test_the_code_of_a_mail_sent_before_is_wrong(self, waiting: Waiting) -> None:
        await waiting.work(OutboxTopic.APPROVAL_CODE)
        mailed = await waiting.code()
        await enrol(waiting.payer.api, waiting.payer.headers)
        assert refusal(await waiting.confirm(mailed)) == (422, "invalid_code")
        await waiting.assert_held()

    async def test_somebody_elses_app_confirms_nothing(self, waiting: Waiting) -> None:
        other = await make_account(waiting.databases)
        _, recovery_codes = await enrol(waiting.payer.api, bearer(other.user, waiting.resources.settings))
        await enrol(waiting.payer.api, waiting.payer.headers)
        assert refusal(await waiting.confirm(recovery_codes[0])) == (422, "invalid_code")

    async def test_a_replay_uses_up_no_second_code(self, waiting: Waiting) -> None:
        _, recovery_codes = await enrol(waiting.payer.api, waiting.payer.headers)
        key = uuid4().hex
        first = await waiting.confirm(recovery_codes[0], key)
        # More often than wrong codes would be looked at.
        for _ in range(TRIES + 1):
            again = await waiting.confirm(recovery_codes[0], key)
            assert (again.content, again.headers["Idempotent-Replayed"]) == (first.content, "true")
        state = await waiting.payer.get("/me/totp")
        assert state.json()["recovery_codes_left"] == 9

    async def test_five_wrong_codes_give_the_funds_back(self, waiting: Waiting) -> None:
        await enrol(waiting.payer.api, waiting.payer.headers)
        codes = [refusal(await waiting.confirm("not a code"))[1] for _ in range(5)]
        assert codes == ["invalid_code"] * 4 + ["too_many_tries"]
        await waiting.assert_given_back("too_many_tries", count=1)

    @pytest.mark.parametrize("kind", ["code", "recovery code"])
    async def test_a_code_that_met_with_an_outage_is_good_for_the_same_request_again(
        self, waiting: Waiting, monkeypatch: pytest.MonkeyPatch, kind: str
    ) -> None:
        code, recovery_codes = await enrol(waiting.payer.api, waiting.payer.headers)
        sent, key = (code if kind == "code" else recovery_codes[0]), uuid4().hex
        with monkeypatch.context() as broken:
            broken.setattr(Ledger, "execute", _refuse_for_now)
            assert refusal(await waiting.confirm(sent, key)) == (503, "ledger_busy")
        assert refusal(await waiting.confirm(sent)) == (422, "invalid_code")
        assert (await waiting.confirm(sent, key)).is_success

    async def test_who_is_out_uses_no_code_up(self, waiting: Waiting) -> None:
        code, _ = await enrol(waiting.payer.api, waiting.payer.headers)
        users, user_id = waiting.databases.wallet["users"], waiting.payer.account.user.id
        await users.update_one({"_id": user_id}, {"$inc": {"token_version": 1}})
        assert refusal(await waiting.confirm(code)) == (401, "unauthenticated")
        await users.update_one({"_id": user_id}, {"$inc": {"token_version": -1}, "$set": {"is_active": False}})
        assert refusal(await waiting.confirm(code)) == (403, "account_deactivated")
        await users.update_one({"_id": user_id}, {"$set": {"is_active": True}})
        assert (await waiting.confirm(code)).is_success


async def _refuse_for_now(*_anything: object) -> Answer:
    raise LedgerBusy(retry_after_s=1)


class TestRaces:
    async def test_two_confirmations_with_the_right_code_pay_once(self, waiting: Waiting) -> None:
        code = await waiting.code()
        # As many as a user has tries: each costs one until it is found right.
        answers = await asyncio.gather(*(waiting.confirm(code) for _ in range(CODE_TRIES)))
        assert sum(answer.is_success for answer in answers) == 1
        assert {refusal(answer) for answer in answers if answer.is_error} == {(409, "illegal_transition")}
        wallet = await current(waiting.payer.wallet)
        assert wallet.available == _BALANCE - _LARGE

    async def test_with_one_recovery_code_pay_once_and_keep_the_funds(self, waiting: Waiting) -> None:
        _, recovery_codes = await enrol(waiting.payer.api, waiting.payer.headers)
        answers = await asyncio.gather(*(waiting.confirm(recovery_codes[0]) for _ in range(3)))
        assert sum(answer.is_success for answer in answers) == 1
        assert {refusal(one)[1] for one in answers if one.is_error} <= {"invalid_code", "illegal_transition"}

    async def test_confirming_canceling_and_lapsing_at_once_have_one_winner(self, waiting: Waiting) -> None:
        code = await waiting.code()
        confirmed, canceled, _ = await asyncio.gather(
            waiting.confirm(code), waiting.cancel(), waiting.work(OutboxTopic.APPROVAL_CODE)
        )
        if confirmed.is_error:
            await waiting.assert_given_back(None)
        elif canceled.is_error:
            assert (await current(waiting.payer.wallet)).available == _BALANCE - _LARGE
        else:
            # A withdrawal that was confirmed can still be canceled, as long as the bank has not heard of it.
            assert waiting.payment["type"] == "withdrawal"
            await waiting.assert_given_back(None)

    async def test_canceling_a_withdrawal_while_a_worker_takes_it_to_the_bank_has_one_winner(
        self, withdrawal: Waiting
    ) -> None:
        await withdrawal.confirm()
        canceled, _ = await asyncio.gather(withdrawal.cancel(), withdrawal.work(OutboxTopic.BANK_ORDER))
        order = await withdrawal.databases.bank["orders"].find_one({"_id": withdrawal.payment["id"]})
        if canceled.is_success:
            assert order is None
            await withdrawal.assert_given_back(None)
        else:
            assert refusal(canceled) == (409, "illegal_transition")
            assert order is not None
            assert await withdrawal.status() == "processing"
            assert (await current(withdrawal.payer.wallet)).held == _LARGE
