"""Withdrawals that the bank has never heard of, of a wallet frozen or a user deactivated meanwhile: they wait."""

import pytest

from service.database import Databases
from service.domain.operations import Operation, OperationStatus
from service.domain.wallets import Freeze
from service.errors import IllegalTransition, StillBlocked
from service.gateways.bank import BankOutcomeUnknown, BankState
from service.ledger.committer import Ledger
from service.services.bank_reports import apply_report
from service.services.callers import Caller
from service.services.user_administration import deactivate_user, reactivate_user
from service.settings import Settings
from tests.factories import (
    blocked_cancellation_of,
    cancellation_of,
    change,
    current,
    freeze,
    make_account,
    make_user,
    release_of,
    run,
    unfreeze,
    withdrawal_of,
)
from tests.services.test_settlement import Scene, ScriptedBank, report_on
from tests.services.test_settlement import ledger as ledger  # noqa: PLC0414 pytest takes it from here

_REASONS = ("wallet_frozen", "user_deactivated")


class Blocked(Scene):
    """As Scene; and the bank must not get the withdrawal any more."""

    async def open(self, databases: Databases) -> None:
        self.databases = databases
        self.admin = await make_user(databases, roles=["user", "admin"])

    async def block(self, reason: str) -> None:
        if reason == "wallet_frozen":
            await freeze(self.databases, self.wallet, self.admin)
        else:
            await self.let_act(is_active=False)

    async def let_act(self, *, is_active: bool) -> None:
        turn = reactivate_user if is_active else deactivate_user
        admin = Caller(self.admin.id, ("user", "admin"), self.admin.token_version)
        await turn(self.databases.client, admin, self.wallet.user_id, "Fraud?", None)

    async def rows(self) -> int:
        return await self.databases.wallet["outbox"].count_documents({"subject_id": self.operation.id})

    async def blocked(self, reason: str = "wallet_frozen") -> Operation:
        await self.block(reason)
        return await self.visit(ScriptedBank())

    async def pay(self) -> Operation:
        """A visit of a bank that pays at once what it gets."""
        bank = ScriptedBank([report_on(self.operation, BankState.SUCCESS)], [None])
        operation = await self.visit(bank)
        assert [order.reference for order in bank.submitted] == [self.operation.id]
        return operation


@pytest.fixture
async def scene(databases: Databases, ledger: Ledger, settings: Settings) -> Blocked:
    wallet = (await make_account(databases, balance=5_000)).wallet
    scene = Blocked(wallet, await change(databases, withdrawal_of(wallet, 1_000)), ledger, settings, databases)
    await scene.open(databases)
    return scene


class TestWhatTheBankHasNeverHeardOf:
    @pytest.mark.parametrize("reason", _REASONS)
    async def test_waits_with_its_money_held_and_the_bank_is_not_asked(self, scene: Blocked, reason: str) -> None:
        await scene.block(reason)
        bank = ScriptedBank([report_on(scene.operation, BankState.SUCCESS)])
        operation = await scene.visit(bank)
        assert bank.submitted == []
        assert (operation.status, operation.failure_code, operation.attempts) == (OperationStatus.BLOCKED, reason, 0)
        assert await scene.balance() == (4_000, 1_000)
        assert await scene.rows() == 0

    @pytest.mark.parametrize("reason", _REASONS)
    async def test_waits_too_when_the_bank_was_asked_and_does_not_have_it(self, scene: Blocked, reason: str) -> None:
        await scene.visit(ScriptedBank([BankOutcomeUnknown("timeout")]))
        await scene.block(reason)
        scene.settings = scene.settings.model_copy(update={"bank_in_flight_s": 0})
        bank = ScriptedBank([report_on(scene.operation, BankState.SUCCESS)], [None])
        operation = await scene.visit(bank, attempts=2)
        assert bank.submitted == []
        assert (operation.status, operation.failure_code, operation.attempts) == (OperationStatus.BLOCKED, reason, 1)
        assert operation.attempt_log[-1].outcome == "not_found"

    async def test_is_asked_for_as_long_as_an_order_may_be_on_its_way(self, scene: Blocked) -> None:
        await scene.visit(ScriptedBank([BankOutcomeUnknown("timeout")]))
        await scene.block("wallet_frozen")
        bank = ScriptedBank([], [None])
        operation = await scene.visit(bank, attempts=2)
        assert (operation.status, operation.attempts, bank.submitted) == (OperationStatus.PROCESSING, 1, [])
        assert await scene.rows() == 1
        late = ScriptedBank([], [report_on(operation, BankState.SUCCESS)])
        assert (await scene.visit(late, attempts=3)).status is OperationStatus.SUCCESS

    async def test_goes_out_from_a_wallet_that_takes_nothing_in(self, scene: Blocked) -> None:
        await freeze(scene.databases, scene.wallet, scene.admin, Freeze.IN)
        assert (await scene.pay()).status is OperationStatus.SUCCESS

    async def test_what_the_bank_has_ends_as_it_says(self, scene: Blocked) -> None:
        await scene.ask()
        await scene.block("wallet_frozen")
        bank = ScriptedBank([], [report_on(scene.operation, BankState.SUCCESS)])
        assert (await scene.visit(bank, attempts=2)).status is OperationStatus.SUCCESS

    async def test_what_the_bank_has_accepted_and_then_does_not_know_is_not_blocked(self, scene: Blocked) -> None:
        await scene.ask()
        await scene.block("wallet_frozen")
        scene.settings = scene.settings.model_copy(update={"bank_in_flight_s": 0})
        bank = ScriptedBank([], [None])
        operation = await scene.visit(bank, attempts=2, last_outcome=await scene.known_outcome())
        assert (operation.status, bank.submitted) == (OperationStatus.PROCESSING, [])
        assert operation.accepted_at is not None
        assert await scene.rows() == 1

    async def test_stays_blocked_after_the_wallet_is_open_again(self, scene: Blocked) -> None:
        await scene.blocked("user_deactivated")
        await scene.let_act(is_active=True)
        assert (await scene.visit(ScriptedBank())).status is OperationStatus.BLOCKED


class TestRelease:
    @pytest.mark.parametrize("reason", _REASONS)
    async def test_is_refused_while_the_block_stands_unless_it_is_forced(self, scene: Blocked, reason: str) -> None:
        operation = await scene.blocked(reason)
        (refused,) = await run(scene.databases, release_of(operation, scene.admin))
        assert isinstance(refused.error, StillBlocked)
        assert refused.error.facts[reason] is True
        released = await change(scene.databases, release_of(operation, scene.admin, is_forced=True))
        assert released.release is not None
        assert released.release[:2] == (scene.admin.id, "Looked into")
        assert released.release[3:5] == (reason == "wallet_frozen", reason == "user_deactivated")
        assert await scene.rows() == 1
        assert (await scene.pay()).status is OperationStatus.SUCCESS
        assert await scene.balance() == (4_000, 0)

    async def test_is_recorded_as_an_audit_event(self, scene: Blocked) -> None:
        await change(scene.databases, release_of(await scene.blocked(), scene.admin, is_forced=True))
        found = await scene.databases.wallet["audit_events"].find_one({"subject_id": scene.operation.id})
        assert found is not None
        assert (found["actor_id"], found["action"]) == (scene.admin.id, "withdrawal.released")
        assert found["details"]["despite_freeze"] is True

    async def test_notes_the_freeze_that_it_overrides(self, scene: Blocked) -> None:
        released = await change(scene.databases, release_of(await scene.blocked(), scene.admin, is_forced=True))
        event = await scene.databases.wallet["audit_events"].find_one({"action": "wallet.frozen"})
        assert event is not None
        assert released.release is not None
        assert (await current(scene.wallet)).freeze_event_id == released.release.freeze_event_id == event["_id"]

    async def test_of_a_frozen_wallet_does_not_let_out_what_is_blocked_for_something_else(self, scene: Blocked) -> None:
        await change(scene.databases, release_of(await scene.blocked(), scene.admin, is_forced=True))
        operation = await scene.blocked("user_deactivated")
        assert (operation.status, operation.failure_code) == (OperationStatus.BLOCKED, "user_deactivated")

    async def test_despite_a_freeze_does_not_let_it_out_despite_a_later_one(self, scene: Blocked) -> None:
        await change(scene.databases, release_of(await scene.blocked(), scene.admin, is_forced=True))
        await unfreeze(scene.databases, scene.wallet, scene.admin)
        operation = await scene.blocked()
        assert (operation.status, operation.failure_code) == (OperationStatus.BLOCKED, "wallet_frozen")
        await change(scene.databases, release_of(operation, scene.admin, is_forced=True))
        assert (await scene.pay()).status is OperationStatus.SUCCESS

    async def test_despite_a_freeze_does_not_let_it_out_once_the_wallet_is_shut_another_way(
        self, scene: Blocked
    ) -> None:
        await change(scene.databases, release_of(await scene.blocked(), scene.admin, is_forced=True))
        await freeze(scene.databases, scene.wallet, scene.admin, Freeze.BOTH)
        assert (await scene.visit(ScriptedBank())).failure_code == "wallet_frozen"

    async def test_of_an_earlier_version_lets_it_out_despite_a_freeze_of_an_earlier_version(
        self, scene: Blocked
    ) -> None:
        await change(scene.databases, release_of(await scene.blocked(), scene.admin, is_forced=True))
        books = scene.databases.wallet
        await books["wallets"].update_one({"_id": scene.wallet.id}, {"$unset": {"freeze_event_id": ""}})
        await books["withdrawals"].update_one({"_id": scene.operation.id}, {"$unset": {"release.freeze_event_id": ""}})
        assert (await scene.pay()).status is OperationStatus.SUCCESS

    async def test_despite_a_deactivation_does_not_let_it_out_despite_a_later_one(self, scene: Blocked) -> None:
        operation = await scene.blocked("user_deactivated")
        released = await change(scene.databases, release_of(operation, scene.admin, is_forced=True))
        await scene.let_act(is_active=True)
        operation = await scene.blocked("user_deactivated")
        assert (operation.status, operation.failure_code) == (OperationStatus.BLOCKED, "user_deactivated")
        again = await change(scene.databases, release_of(operation, scene.admin, is_forced=True))
        assert again.release is not None
        assert released.release is not None
        assert again.release.deactivation_event_id not in (None, released.release.deactivation_event_id)
        assert (await scene.pay()).status is OperationStatus.SUCCESS

    async def test_of_an_earlier_version_covers_a_deactivation_of_an_earlier_version_alone(
        self, scene: Blocked
    ) -> None:
        operation = await scene.blocked("user_deactivated")
        users = scene.databases.wallet["users"]
        await users.update_one({"_id": scene.wallet.user_id}, {"$unset": {"deactivation_event_id": ""}})
        await change(scene.databases, release_of(operation, scene.admin, is_forced=True))
        unset = {"$unset": {"release.deactivation_event_id": ""}}
        await scene.databases.wallet["withdrawals"].update_one({"_id": scene.operation.id}, unset)
        assert (await scene.pay()).status is OperationStatus.SUCCESS

    async def test_of_what_the_bank_was_asked_before_asks_it_by_reference_first(self, scene: Blocked) -> None:
        await scene.visit(ScriptedBank([BankOutcomeUnknown("timeout")]))
        scene.settings = scene.settings.model_copy(update={"bank_in_flight_s": 0})
        await scene.block("wallet_frozen")
        operation = await scene.visit(ScriptedBank([], [None]), attempts=2)
        await change(scene.databases, release_of(operation, scene.admin, is_forced=True))
        late = ScriptedBank([], [report_on(operation, BankState.SUCCESS)])
        assert (await scene.visit(late)).status is OperationStatus.SUCCESS
        assert late.submitted == []

    async def test_makes_no_payment_cancelable_that_the_bank_may_have(self, scene: Blocked) -> None:
        await scene.visit(ScriptedBank([BankOutcomeUnknown("timeout")]))
        scene.settings = scene.settings.model_copy(update={"bank_in_flight_s": 0})
        await scene.block("wallet_frozen")
        operation = await scene.visit(ScriptedBank([], [None]), attempts=2)
        (refused,) = await run(scene.databases, cancellation_of(operation))
        assert refused.answer is not None
        assert refused.answer.status_code == 409
        released = await change(scene.databases, release_of(operation, scene.admin, is_forced=True))
        (refused,) = await run(scene.databases, cancellation_of(released))
        assert refused.answer is not None
        assert refused.answer.status_code == 409


class TestCancellation:
    async def test_gives_the_money_and_the_limits_back_and_is_recorded(self, scene: Blocked) -> None:
        canceled = await change(scene.databases, blocked_cancellation_of(await scene.blocked(), scene.admin))
        assert (canceled.status, canceled.failure_code) == (OperationStatus.CANCELED, "canceled_by_admin")
        assert await scene.balance() == (5_000, 0)
        wallet = await current(scene.wallet)
        assert (wallet.usage.day_amount, wallet.usage.hour_count, wallet.open_operations) == (0, 0, 0)
        found = await scene.databases.wallet["audit_events"].find_one({"subject_id": canceled.id})
        assert found is not None
        assert (found["actor_id"], found["action"]) == (scene.admin.id, "withdrawal.canceled")

    async def test_is_the_owners_too_while_the_bank_knows_nothing_of_it(self, scene: Blocked) -> None:
        canceled = await run(scene.databases, cancellation_of(await scene.blocked()))
        assert canceled[0].answer is not None
        assert canceled[0].answer.status_code == 200
        assert await scene.balance() == (5_000, 0)

    async def test_of_two_who_decide_the_first_one_counts(self, scene: Blocked) -> None:
        operation = await scene.blocked()
        done, late = await run(
            scene.databases,
            blocked_cancellation_of(operation, scene.admin),
            release_of(operation, scene.admin, is_forced=True),
        )
        assert done.error is None
        assert isinstance(late.error, IllegalTransition)


class TestTheBanksLateWord:
    @pytest.mark.parametrize(("state", "available"), [(BankState.SUCCESS, 4_000), (BankState.FAILED, 5_000)])
    async def test_ends_a_blocked_one_that_had_been_submitted(
        self, scene: Blocked, state: BankState, available: int
    ) -> None:
        await scene.visit(ScriptedBank([BankOutcomeUnknown("timeout")]))
        scene.settings = scene.settings.model_copy(update={"bank_in_flight_s": 0})
        await scene.block("wallet_frozen")
        operation = await scene.visit(ScriptedBank([], [None]), attempts=2)
        applied = await apply_report(operation, report_on(operation, state), scene.ledger)
        assert applied == (state.value, None)
        assert await scene.balance() == (available, 0)

    async def test_about_one_that_was_never_submitted_is_an_incident(self, scene: Blocked) -> None:
        operation = await scene.blocked()
        applied = await apply_report(operation, report_on(operation, BankState.SUCCESS), scene.ledger)
        assert applied.result == "contradiction"
        incident = await scene.databases.wallet["incidents"].find_one({"operation_id": operation.id})
        assert incident is not None
        assert incident["kind"] == "never_submitted"
        assert await scene.balance() == (4_000, 1_000)

    @pytest.mark.parametrize(
        ("state", "result"), [(BankState.SUCCESS, "contradiction"), (BankState.FAILED, "canceled")]
    )
    async def test_about_a_canceled_one_that_had_been_submitted_is_one_where_it_paid(
        self, scene: Blocked, state: BankState, result: str
    ) -> None:
        await scene.visit(ScriptedBank([BankOutcomeUnknown("timeout")]))
        scene.settings = scene.settings.model_copy(update={"bank_in_flight_s": 0})
        await scene.block("wallet_frozen")
        operation = await scene.visit(ScriptedBank([], [None]), attempts=2)
        canceled = await change(scene.databases, blocked_cancellation_of(operation, scene.admin))
        applied = await apply_report(canceled, report_on(canceled, state), scene.ledger)
        assert applied.result == result
        incident = await scene.databases.wallet["incidents"].find_one({"operation_id": canceled.id})
        assert (incident or {}).get("kind") == ("success_after_failure" if result == "contradiction" else None)
        assert await scene.balance() == (5_000, 0)
