"""What the bank says that cannot be: an incident each, once, and no money moved."""

from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from service.database import Databases
from service.domain.clock import utc_now
from service.domain.identifiers import Prefix, new_id
from service.domain.incidents import Incident, IncidentKind, Said, SaidEvent
from service.domain.operations import Operation, OperationStatus, Verdict
from service.domain.policy import Policy
from service.domain.returns import Return, return_id_of
from service.domain.step_up import CODE_LIFETIME
from service.domain.wallets import Freeze, Wallet, WalletStatus
from service.gateways.bank import BankState
from service.ledger.commands import Command
from service.ledger.committer import Ledger
from service.ledger.orders import FlagForReview, NoteAttempt
from service.ledger.reviews import DecideReview
from service.repositories import bank_callbacks as inbox
from service.repositories import records as record_repository
from service.services.bank_callbacks import apply_callback
from service.services.bank_reports import fail
from service.startup import Resources
from tests.factories import (
    asking_of,
    cancellation_of,
    challenge_until,
    change,
    change_of,
    current,
    deposit_of,
    failure_of,
    make_funded_wallet,
    make_user,
    run,
    settlement_of,
    withdrawal_of,
)


@pytest.fixture
async def ledger(resources: Resources) -> AsyncIterator[Ledger]:
    ledger = Ledger(
        resources.databases.client,
        policy=Policy(),
        batch_limit=10,
        queue_limit=10,
        patience_s=5,
        on_committed=lambda _committed: None,
    )
    ledger.start()
    yield ledger
    await ledger.close()


class Scene:
    """A wallet with 5000, operations about it, and a bank that says things."""

    def __init__(self, wallet: Wallet, ledger: Ledger, databases: Databases) -> None:
        self.wallet, self.ledger, self.databases = wallet, ledger, databases

    async def withdrawal(self, status: str, amount: int = 1_000) -> Operation:
        """In that status, with `bnk_test` as the bank's reference where it has ended."""
        if status == "failed in review":
            return await self._failed_in_review(amount)
        challenge = challenge_until(utc_now() + CODE_LIFETIME) if status == "requires_approval" else None
        asked = await change(self.databases, withdrawal_of(self.wallet, amount, challenge=challenge))
        match status:
            case "requires_approval" | "pending":
                return asked
            case "canceled":
                await run(self.databases, cancellation_of(asked))
                return await now(asked)
            case "processing":
                return await change(self.databases, asking_of(asked))
            case "requires_review":
                await change(self.databases, asking_of(asked))
                why = {"failure_code": "bank_outcome_unknown", "failure_message": "No outcome"}
                return await change(self.databases, change_of(FlagForReview, asked, **why))
            case _:
                end = settlement_of if status == "success" else failure_of
                return await change(self.databases, end(asked))

    async def _failed_in_review(self, amount: int) -> Operation:
        operation = await self.withdrawal("requires_review", amount)
        boss = await make_user(self.databases, roles=["admin"])
        decision = DecideReview(
            now=utc_now(),
            transaction_id=new_id(Prefix.TRANSACTION),
            user_id=boss.id,
            token_version=None,
            audit_event_id=new_id(Prefix.AUDIT_EVENT),
            reason="A test",
            operation_id=operation.id,
            wallet_id=operation.wallet_id,
            verdict=Verdict.FAIL,
            entry_id=new_id(Prefix.ENTRY),
        )
        return await change(self.databases, decision)

    async def deposit(self, amount: int = 1_000) -> Operation:
        asked = await change(self.databases, deposit_of(self.wallet, amount))
        return await change(self.databases, settlement_of(asked))

    async def say(self, reference: str, **said: Any) -> dict[str, Any]:
        """A callback, under an id of its own, as it lies in the inbox once it was applied."""
        payload = {"type": "payment.settled", "reference": reference, "amount": 1_000, "currency": "INR"}
        usual = {"status": "success", "bank_reference": "bnk_test"}
        if said.get("type") == "payment.returned":
            usual = {"return_code": "account_closed", "bank_reference": "ret_test"}
        attempts = said.pop("attempts", 1)
        callback_id = f"msg_{uuid4().hex}"
        assert await inbox.insert_once(callback_id, payload | usual | said, None, utc_now())
        rows = self.databases.wallet["bank_callbacks"]
        row = await rows.find_one({"_id": callback_id})
        assert row is not None
        await apply_callback(row | {"attempts": attempts}, self.ledger)
        return await self.inbox_row(row)

    async def inbox_row(self, row: dict[str, Any]) -> dict[str, Any]:
        """As it is now."""
        found = await self.databases.wallet["bank_callbacks"].find_one({"_id": row["_id"]})
        assert found is not None
        return found

    async def give_back(self, operation: Operation, **said: Any) -> dict[str, Any]:
        return await self.say(operation.id, type="payment.returned", **said)

    async def take_up(self, row: dict[str, Any]) -> dict[str, Any]:
        """As a worker does with a callback that waits again."""
        waiting = await self.inbox_row(row)
        assert "due_at" in waiting
        await apply_callback(waiting, self.ledger)
        applied = await self.inbox_row(row)
        assert "due_at" not in applied
        return applied

    async def balance(self) -> tuple[int, int]:
        wallet = await current(self.wallet)
        return wallet.available, wallet.held

    async def incidents(self, reference: str) -> list[dict[str, Any]]:
        return await self.databases.wallet["incidents"].find({"reference": reference}).to_list()

    async def entries(self, reference: str) -> list[str]:
        rows = self.databases.wallet["transaction_logs"].find({"reference": reference}, sort=[("seq", 1)])
        return [row["type"] for row in await rows.to_list()]


@pytest.fixture
async def scene(databases: Databases, ledger: Ledger) -> Scene:
    return Scene(await make_funded_wallet(databases, 5_000), ledger, databases)


async def now(operation: Operation) -> Operation:
    found = await record_repository.find(operation.id, Operation)
    assert found is not None
    return found


async def returned_of(operation: Operation) -> Return | None:
    return await record_repository.find(return_id_of(operation.id), Return)


class TestAContradiction:
    @pytest.mark.parametrize(
        ("status", "said", "kind"),
        [
            ("success", {"status": "failed"}, "failure_after_success"),
            ("failed", {"status": "success"}, "success_after_failure"),
            ("failed in review", {"status": "success"}, "success_after_failure"),
            ("success", {"amount": 999}, "other_amount"),
            ("success", {"currency": "USD"}, "other_amount"),
            ("failed", {"status": "failed", "amount": 999}, "other_amount"),
            ("success", {"bank_reference": "bnk_other"}, "other_bank_reference"),
            ("failed", {"status": "failed", "bank_reference": "bnk_other"}, "other_bank_reference"),
            ("requires_approval", {"status": "success"}, "never_submitted"),
            ("pending", {"status": "success"}, "never_submitted"),
            ("pending", {"status": "failed"}, "never_submitted"),
            ("canceled", {"status": "success"}, "never_submitted"),
            ("canceled", {"status": "failed"}, "never_submitted"),
        ],
    )
    async def test_opens_an_incident_and_changes_nothing_else(
        self, scene: Scene, status: str, said: dict[str, Any], kind: str
    ) -> None:
        operation = await scene.withdrawal(status)
        before = await now(operation), await scene.balance(), await scene.entries(operation.id)
        applied = await scene.say(operation.id, **said)
        assert (await now(operation), await scene.balance(), await scene.entries(operation.id)) == before
        (incident,) = await scene.incidents(operation.id)
        assert (incident["kind"], incident["status"]) == (kind, "open")
        assert (applied["result"], applied["incident_id"]) == ("contradiction", incident["_id"])
        assert incident["said"]["callback_id"] == applied["_id"]
        assert incident["said"]["amount"] == said.get("amount", 1_000)
        assert incident["stands"] == {
            "status": operation.status,
            "amount": 1_000,
            "currency": "INR",
            "bank_reference": operation.bank_reference,
            "return_id": None,
        }

    async def test_said_again_and_again_is_one_incident(self, scene: Scene) -> None:
        operation = await scene.withdrawal("success")
        applied = [await scene.say(operation.id, status="failed") for _ in range(3)]
        (incident,) = await scene.incidents(operation.id)
        assert {row["incident_id"] for row in applied} == {incident["_id"]}
        events = scene.databases.wallet["audit_events"]
        assert await events.count_documents({"subject_id": incident["_id"], "action": "incident.opened"}) == 1

    async def test_said_otherwise_is_another_one(self, scene: Scene) -> None:
        operation = await scene.withdrawal("success")
        await scene.say(operation.id, status="failed")
        await scene.say(operation.id, amount=7)
        await scene.say(operation.id, amount=8)
        kinds = sorted(incident["kind"] for incident in await scene.incidents(operation.id))
        assert kinds == ["failure_after_success", "other_amount", "other_amount"]

    @pytest.mark.parametrize("status", ["success", "failed"])
    async def test_is_not_that_the_bank_says_the_same_again(self, scene: Scene, status: str) -> None:
        operation = await now(await scene.withdrawal(status))
        for reference in ("bnk_test", None):
            applied = await scene.say(operation.id, status=status, bank_reference=reference)
            assert applied["result"] == status
        assert await scene.incidents(operation.id) == []
        assert await now(operation) == operation

    async def test_is_a_refusal_of_what_it_has_reported_as_paid(self, scene: Scene) -> None:
        operation = await scene.withdrawal("success")
        applied = await fail(operation, "invalid_account", "No such account", None, scene.ledger)
        (incident,) = await scene.incidents(operation.id)
        assert (applied.result, incident["kind"]) == ("contradiction", "failure_after_success")
        assert (incident["said"]["amount"], incident["said"]["callback_id"]) == (None, None)

    @pytest.mark.parametrize("reference", ["wdr_unknown", "xyz_unknown", "unknown", "$where"])
    @pytest.mark.parametrize("kind", ["payment.settled", "payment.returned"])
    async def test_is_a_reference_that_is_nobodys(self, scene: Scene, reference: str, kind: str) -> None:
        named = f"{reference}{uuid4().hex}"
        applied = await scene.say(named, type=kind)
        (incident,) = await scene.incidents(named)
        assert (incident["kind"], incident["operation_id"], incident["stands"]) == ("unknown_reference", None, None)
        assert (applied["result"], applied["incident_id"]) == ("unknown_reference", incident["_id"])


class TestAReturnedWithdrawal:
    async def test_comes_back_into_the_wallet_once(self, scene: Scene) -> None:
        operation = await scene.withdrawal("success")
        for _ in range(3):
            assert (await scene.give_back(operation))["result"] == "returned"
        assert await scene.balance() == (5_000, 0)
        returned = await returned_of(operation)
        assert returned is not None
        assert (returned.status, returned.amount, returned.return_code) == ("success", 1_000, "account_closed")
        assert await scene.entries(returned.id) == ["WITHDRAWAL_RETURN"]
        stands = await now(operation)
        assert (stands.status, stands.return_id) == (OperationStatus.SUCCESS, returned.id)
        assert stands.returned_at is not None
        assert await scene.incidents(operation.id) == []

    async def test_gives_back_its_share_of_the_limits(self, scene: Scene) -> None:
        operation = await scene.withdrawal("success")
        before = (await current(scene.wallet)).usage
        await scene.give_back(operation)
        after = (await current(scene.wallet)).usage
        assert (before.day_amount - after.day_amount, before.hour_count - after.hour_count) == (1_000, 1)

    async def test_also_lands_on_a_frozen_wallet(self, scene: Scene) -> None:
        operation = await scene.withdrawal("success")
        await scene.databases.wallet["wallets"].update_one(
            {"_id": scene.wallet.id}, {"$set": {"status": "frozen", "freeze": "both"}}
        )
        await scene.give_back(operation)
        assert await scene.balance() == (5_000, 0)

    async def test_to_a_closed_wallet_waits_for_a_person(self, scene: Scene) -> None:
        operation = await scene.withdrawal("success")
        await scene.databases.wallet["wallets"].update_one({"_id": scene.wallet.id}, {"$set": {"status": "closed"}})
        applied = await scene.give_back(operation)
        returned = await returned_of(operation)
        assert returned is not None
        assert (returned.status, returned.trouble) == ("requires_review", "wallet_closed")
        assert await scene.balance() == (4_000, 0)
        (incident,) = await scene.incidents(operation.id)
        assert incident["kind"] == "return_not_booked"
        assert (applied["result"], applied["incident_id"]) == ("return_requires_review", incident["_id"])

    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            ("failed", "return_of_unsettled"),
            ("canceled", "never_submitted"),
            ("pending", "never_submitted"),
            ("requires_approval", "never_submitted"),
        ],
    )
    async def test_that_never_was_paid_is_an_incident(self, scene: Scene, status: str, kind: str) -> None:
        operation = await scene.withdrawal(status)
        before = await scene.balance()
        await scene.give_back(operation)
        (incident,) = await scene.incidents(operation.id)
        assert (incident["kind"], await scene.balance()) == (kind, before)
        assert await returned_of(operation) is None

    @pytest.mark.parametrize("said", [{"amount": 999}, {"currency": "USD"}])
    async def test_with_another_amount_is_an_incident(self, scene: Scene, said: dict[str, Any]) -> None:
        operation = await scene.withdrawal("success")
        await scene.give_back(operation, **said)
        (incident,) = await scene.incidents(operation.id)
        assert (incident["kind"], await scene.balance()) == ("return_of_other_amount", (4_000, 0))

    @pytest.mark.parametrize("said", [{"bank_reference": "ret_second"}, {"amount": 1}])
    async def test_a_second_time_is_an_incident(self, scene: Scene, said: dict[str, Any]) -> None:
        operation = await scene.withdrawal("success")
        await scene.give_back(operation)
        await scene.give_back(operation, **said)
        (incident,) = await scene.incidents(operation.id)
        assert (incident["kind"], await scene.balance()) == ("second_return", (5_000, 0))

    @pytest.mark.parametrize(("first", "again"), [("ret_1", None), (None, "ret_1"), (None, None)])
    async def test_the_same_one_with_and_without_its_reference_is_none(
        self, scene: Scene, first: str | None, again: str | None
    ) -> None:
        operation = await scene.withdrawal("success")
        for reference in (first, again):
            await scene.give_back(operation, bank_reference=reference)
        assert (await scene.incidents(operation.id), await scene.balance()) == ([], (5_000, 0))

    @pytest.mark.parametrize("status", ["processing", "requires_review"])
    async def test_before_we_know_that_it_was_paid_waits_for_that(self, scene: Scene, status: str) -> None:
        operation = await scene.withdrawal(status)
        waiting = await scene.give_back(operation)
        assert "result" not in waiting
        assert waiting["due_at"] > waiting["received_at"]
        await scene.say(operation.id)
        await apply_callback(waiting, scene.ledger)
        assert await scene.balance() == (5_000, 0)
        assert await scene.incidents(operation.id) == []

    async def test_that_has_waited_for_long_is_an_incident_once_and_goes_on_waiting(self, scene: Scene) -> None:
        operation = await scene.withdrawal("requires_review")
        waiting = await scene.give_back(operation, attempts=20)
        (incident,) = await scene.incidents(operation.id)
        assert (waiting["incident_id"], incident["kind"]) == (incident["_id"], "return_of_unsettled")
        for attempts in (21, 5_000):
            await apply_callback(waiting | {"attempts": attempts}, scene.ledger)
            waiting = await scene.inbox_row(waiting)
            assert "result" not in waiting
            assert waiting["due_at"] - utc_now() > timedelta(minutes=20)
        assert len(await scene.incidents(operation.id)) == 1

    @pytest.mark.parametrize(
        ("end", "result", "balance"),
        [(settlement_of, "returned", (5_000, 0)), (failure_of, "contradiction", (5_000, 0))],
    )
    async def test_that_goes_on_waiting_ends_with_the_operation_even_if_nobody_lived_to_tell_it(
        self, scene: Scene, end: Callable[[Operation], Command], result: str, balance: tuple[int, int]
    ) -> None:
        operation = await scene.withdrawal("processing")
        waiting = await scene.give_back(operation, attempts=20)
        # Whoever settled it died when that was committed.
        await run(scene.databases, end(operation))
        ended = await scene.take_up(waiting)
        (incident,) = await scene.incidents(operation.id)
        assert (ended["result"], ended["incident_id"]) == (result, incident["_id"])
        assert await scene.balance() == balance
        assert ((await now(operation)).return_id is None) == (result == "contradiction")

    @pytest.mark.parametrize("attempts", [10, 20])
    async def test_that_waits_is_due_as_soon_as_the_bank_says_that_it_was_paid(
        self, scene: Scene, attempts: int
    ) -> None:
        operation = await scene.withdrawal("requires_review")
        waiting = await scene.give_back(operation, attempts=attempts)
        assert waiting["due_at"] > utc_now()
        await scene.say(operation.id)
        assert (await scene.inbox_row(waiting))["due_at"] <= utc_now()
        await scene.take_up(waiting)
        assert await scene.balance() == (5_000, 0)
        assert (await now(operation)).return_id == return_id_of(operation.id)

    async def test_that_is_put_off_just_when_it_is_settled_is_due_all_the_same(
        self, scene: Scene, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        operation = await scene.withdrawal("processing")
        postpone = inbox.postpone

        async def postpone_late(row: dict[str, Any], due_at: datetime) -> None:
            await scene.say(operation.id)
            await postpone(row, due_at)

        monkeypatch.setattr(inbox, "postpone", postpone_late)
        waiting = await scene.give_back(operation, attempts=20)
        assert waiting["due_at"] <= utc_now()
        await scene.take_up(waiting)
        assert await scene.balance() == (5_000, 0)

    async def test_that_waits_with_another_amount_waits_no_longer_than_the_operation(self, scene: Scene) -> None:
        operation = await scene.withdrawal("processing")
        waiting = await scene.give_back(operation, attempts=20, amount=7)
        await scene.say(operation.id)
        taken = await scene.take_up(waiting)
        assert (taken["result"], await scene.balance()) == ("contradiction", (4_000, 0))


class TestAReturnedDeposit:
    async def test_is_taken_out_again(self, scene: Scene) -> None:
        operation = await scene.deposit()
        assert await scene.balance() == (6_000, 0)
        await scene.give_back(operation)
        assert await scene.balance() == (5_000, 0)
        returned = await returned_of(operation)
        assert returned is not None
        assert await scene.entries(returned.id) == ["DEPOSIT_RETURN"]
        assert (await now(operation)).status is OperationStatus.SUCCESS

    async def test_that_was_spent_takes_what_is_there_freezes_the_wallet_and_is_told_to_people(
        self, scene: Scene
    ) -> None:
        operation = await scene.deposit()
        await scene.withdrawal("success", 5_500)
        for _ in range(2):
            applied = await scene.give_back(operation)
            assert applied["result"] == "return_owed"
        wallet = await current(scene.wallet)
        assert (wallet.available, wallet.held, wallet.owed) == (0, 0, 500)
        assert (wallet.status, wallet.freeze, wallet.open_operations) == (WalletStatus.FROZEN, Freeze.OUT, 1)
        returned = await returned_of(operation)
        assert returned is not None
        assert (returned.status, returned.trouble, returned.owed) == ("owed", "insufficient_funds", 500)
        (incident,) = await scene.incidents(operation.id)
        assert incident["kind"] == "return_not_booked"
        frozen = scene.databases.wallet["audit_events"].find({"subject_id": wallet.id, "action": "wallet.frozen"})
        assert [event["actor_id"] for event in await frozen.to_list()] == ["bank"]

    async def test_that_was_said_before_it_was_settled_is_an_incident_of_its_own_when_it_is_not_covered(
        self, scene: Scene
    ) -> None:
        asked = await change(scene.databases, deposit_of(scene.wallet, 1_000))
        operation = await change(scene.databases, change_of(NoteAttempt, asked))
        waiting = await scene.give_back(operation, attempts=20)
        await scene.say(operation.id)
        await scene.withdrawal("success", 5_500)
        booked = await scene.take_up(waiting)
        incidents = {row["kind"]: row["_id"] for row in await scene.incidents(operation.id)}
        assert set(incidents) == {"return_of_unsettled", "return_not_booked"}
        assert (booked["result"], booked["incident_id"]) == ("return_owed", incidents["return_not_booked"])

    async def test_keeps_a_wallet_shut_that_was_shut_the_other_way(self, scene: Scene) -> None:
        operation = await scene.deposit()
        await scene.withdrawal("success", 5_500)
        await scene.databases.wallet["wallets"].update_one(
            {"_id": scene.wallet.id}, {"$set": {"status": "frozen", "freeze": "in"}}
        )
        await scene.give_back(operation)
        assert (await current(scene.wallet)).freeze is Freeze.BOTH


class TestAnIdThatIsUsedTwice:
    async def test_is_an_incident_and_the_second_body_comes_to_nothing(self, scene: Scene) -> None:
        operation = await scene.withdrawal("processing")
        payload = {"type": "payment.settled", "reference": operation.id, "status": "failed", "amount": 1_000}
        payload |= {"currency": "INR", "bank_reference": "bnk_test"}
        named = f"msg_{uuid4().hex}"
        for _ in range(2):
            await inbox.insert_reuse(f"{named}#1", named, payload, None, utc_now())
        row = await scene.databases.wallet["bank_callbacks"].find_one({"_id": f"{named}#1"})
        assert row is not None
        await apply_callback(row, scene.ledger)
        (incident,) = await scene.incidents(operation.id)
        assert incident["kind"] == IncidentKind.MESSAGE_ID_REUSED
        assert (await now(operation)).status is OperationStatus.PROCESSING
        assert await scene.balance() == (4_000, 1_000)


class TestRecords:
    async def test_an_incident_comes_back_from_the_database_as_it_went(self, scene: Scene) -> None:
        operation = await scene.withdrawal("success")
        await scene.say(operation.id, status="failed")
        (row,) = await scene.incidents(operation.id)
        incident = await record_repository.find(row["_id"], Incident)
        assert incident is not None
        assert incident.said == Said(
            SaidEvent.SETTLED, "failed", 1_000, "INR", "bnk_test", None, None, incident.said.callback_id
        )

    async def test_an_operation_comes_back_with_its_attempts(self, scene: Scene) -> None:
        operation = await scene.withdrawal("success")
        (attempt,) = operation.attempt_log
        assert (await now(operation)).attempt_log == (attempt,)
        assert (attempt.call, attempt.outcome) == ("submit", "success")

    async def test_no_more_than_twenty_attempts_are_kept(self, scene: Scene) -> None:
        operation = await scene.withdrawal("processing")
        for _ in range(25):
            operation = await change(scene.databases, change_of(NoteAttempt, operation))
        assert (len(operation.attempt_log), operation.attempts) == (20, 26)
        assert {attempt.outcome for attempt in operation.attempt_log[:-1]} == {"unknown"}
        assert operation.attempt_log[-1].outcome is None

    async def test_the_bank_is_not_believed_about_what_a_person_has_decided(self, scene: Scene) -> None:
        operation = await scene.withdrawal("failed in review")
        await scene.say(operation.id, status=BankState.SUCCESS)
        (incident,) = await scene.incidents(operation.id)
        assert incident["stands"]["status"] == "failed"
        assert await scene.balance() == (5_000, 0)
