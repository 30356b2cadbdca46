"""Cancel, callback, poll and a person at once, in any order and two processes: one outcome, and money that adds up."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import date, timedelta
from typing import Any
from uuid import uuid4

import pytest

from service.database import Databases
from service.domain.clock import utc_now
from service.domain.identifiers import Prefix, new_id
from service.domain.operations import Operation, OperationStatus, Verdict
from service.domain.outbox import OutboxTopic, outbox_row
from service.domain.policy import Policy
from service.domain.wallets import Wallet
from service.errors import IllegalTransition
from service.gateways.bank import BankOrder, BankReport, BankState, StatementLine
from service.gateways.mailbox import FileMailbox
from service.ledger.committer import Ledger
from service.ledger.orders import FlagForReview
from service.ledger.reviews import AskAgain, DecideReview
from service.repositories import bank_callbacks as inbox
from service.repositories import records as record_repository
from service.services.bank_callbacks import apply_callback
from service.services.settlement import Desk, pursue_order
from service.settings import Settings
from tests.factories import (
    asking_of,
    cancellation_of,
    change,
    change_of,
    current,
    make_funded_wallet,
    make_user,
    withdrawal_of,
)

_TIMES = 20

Step = Callable[[], Awaitable[object]]


class TruthfulBank:
    """Executes what it is given at once, as the test says, and knows of nothing else."""

    def __init__(self, state: BankState) -> None:
        self.state = state
        self.orders: dict[str, BankOrder] = {}

    async def submit(self, order: BankOrder) -> BankReport:
        self.orders[order.reference] = order
        return self._report(order)

    async def find(self, reference: str) -> BankReport | None:
        order = self.orders.get(reference)
        return None if order is None else self._report(order)

    async def statement(self, day: date) -> list[StatementLine]:
        raise AssertionError(f"nobody asks for the statement of {day}")

    def _report(self, order: BankOrder) -> BankReport:
        return BankReport(order.reference, self.state, order.amount, order.currency, "bnk_1", None, None)


class Scene:
    def __init__(self, databases: Databases, ledgers: list[Ledger], settings: Settings) -> None:
        self.databases, self.ledgers, self.settings = databases, ledgers, settings
        self._turn = random.Random()  # noqa: S311 no secret

    async def at_once(self, *steps: Step) -> None:
        """In any order; that one came too late for something is no failure."""
        shuffled = self._turn.sample(steps, len(steps))
        results = await asyncio.gather(*(step() for step in shuffled), return_exceptions=True)
        unexpected = [one for one in results if isinstance(one, Exception) and not isinstance(one, IllegalTransition)]
        assert not unexpected, unexpected

    def ledger(self) -> Ledger:
        return self._turn.choice(self.ledgers)

    def visit(self, operation: Operation, bank: TruthfulBank) -> Step:
        """As a worker, or the sweep in another one."""
        now = utc_now()
        until = now + timedelta(seconds=self.settings.bank_recheck_s)
        row = outbox_row(OutboxTopic.BANK_ORDER, operation.id, None, now, until)._replace(attempts=1)
        desk = Desk(self.ledger(), bank, FileMailbox(self.settings), self.settings, self.databases.client)
        return lambda: pursue_order(row, desk)

    def say(self, operation: Operation, **said: Any) -> Step:
        payload = {"type": "payment.settled", "reference": operation.id, "amount": operation.amount}
        payload |= {"currency": "INR", "bank_reference": "bnk_1"} | said
        callback_id = f"msg_{uuid4().hex}"

        async def receive_and_apply() -> None:
            assert await inbox.insert_once(callback_id, payload, None, utc_now())
            row = await self.databases.wallet["bank_callbacks"].find_one({"_id": callback_id})
            assert row is not None
            await apply_callback(row | {"attempts": 1}, self.ledger())

        return receive_and_apply

    async def outcome(self, operation: Operation, wallet: Wallet) -> tuple[str, int, int, list[str]]:
        found = await record_repository.find(operation.id, Operation)
        assert found is not None
        is_now = await current(wallet)
        entries = self.databases.wallet["transaction_logs"].find({"reference": operation.id})
        return found.status, is_now.available, is_now.held, sorted([entry["type"] async for entry in entries])

    async def incidents(self, operation: Operation) -> list[str]:
        rows = self.databases.wallet["incidents"].find({"reference": operation.id})
        return sorted([row["kind"] async for row in rows])


@pytest.fixture
async def scene(databases: Databases, settings: Settings) -> AsyncIterator[Scene]:
    limits: dict[str, Any] = {"policy": Policy(), "batch_limit": 64, "queue_limit": 1_000, "patience_s": 20.0}
    ledgers = [Ledger(databases.client, **limits, on_committed=lambda _: None) for _ in range(2)]
    for ledger in ledgers:
        ledger.start()
    yield Scene(databases, ledgers, settings)
    for ledger in ledgers:
        await ledger.close()


_ENDS = {
    "success": ("success", 900, 0, ["WITHDRAWAL", "WITHDRAWAL_SETTLEMENT"]),
    "failed": ("failed", 1_000, 0, ["WITHDRAWAL", "WITHDRAWAL_REFUND"]),
    "canceled": ("canceled", 1_000, 0, ["WITHDRAWAL", "WITHDRAWAL_REFUND"]),
}


class TestOneOutcome:
    @pytest.mark.parametrize("state", [BankState.SUCCESS, BankState.FAILED])
    async def test_of_a_cancellation_two_workers_and_callbacks(self, scene: Scene, state: BankState) -> None:
        """Whoever cancels before the order goes out has canceled; else it ends as the bank says."""
        ends = set()
        for _ in range(_TIMES):
            wallet = await make_funded_wallet(scene.databases, 1_000)
            operation = await change(scene.databases, withdrawal_of(wallet, 100))
            bank = TruthfulBank(state)
            await scene.at_once(
                lambda: scene.ledger().execute(cancellation_of(operation)),  # noqa: B023 awaited within the round
                scene.visit(operation, bank),
                scene.visit(operation, bank),
                scene.say(operation, status=state),
                scene.say(operation, status=state),
            )
            outcome = await scene.outcome(operation, wallet)
            assert outcome == _ENDS["canceled" if operation.id not in bank.orders else state]
            # A callback that came before any order went out speaks of what cannot be.
            assert set(await scene.incidents(operation)) <= {"never_submitted"}
            ends.add(outcome[0])
        assert ends <= {"canceled", state}

    async def test_of_two_contradicting_callbacks_and_the_bank_itself(self, scene: Scene) -> None:
        for _ in range(_TIMES):
            wallet = await make_funded_wallet(scene.databases, 1_000)
            operation = await change(scene.databases, withdrawal_of(wallet, 100))
            await change(scene.databases, asking_of(operation))
            await scene.at_once(
                scene.say(operation, status="success"),
                scene.say(operation, status="failed"),
                scene.say(operation, status="success"),
                scene.say(operation, status="failed"),
            )
            outcome = await scene.outcome(operation, wallet)
            assert outcome == _ENDS[outcome[0]]
            contrary = {"success": "failure_after_success", "failed": "success_after_failure"}
            assert await scene.incidents(operation) == [contrary[outcome[0]]]

    async def test_of_a_person_a_late_word_and_asking_again(self, scene: Scene) -> None:
        boss = await make_user(scene.databases, roles=["admin"])

        def by() -> dict[str, Any]:
            ids = {"transaction_id": new_id(Prefix.TRANSACTION), "audit_event_id": new_id(Prefix.AUDIT_EVENT)}
            return {"now": utc_now(), "user_id": boss.id, "token_version": None, "reason": "A race", **ids}

        for _ in range(_TIMES):
            wallet = await make_funded_wallet(scene.databases, 1_000)
            asked = await change(scene.databases, withdrawal_of(wallet, 100))
            await change(scene.databases, asking_of(asked))
            why = {"failure_code": "bank_outcome_unknown", "failure_message": "No outcome"}
            operation = await change(scene.databases, change_of(FlagForReview, asked, **why))
            about: dict[str, Any] = {"operation_id": operation.id, "wallet_id": wallet.id}
            decisions = [
                DecideReview(**by(), **about, verdict=verdict, entry_id=new_id(Prefix.ENTRY)) for verdict in Verdict
            ]
            await scene.at_once(
                *(lambda one=one: scene.ledger().execute(one) for one in decisions),
                lambda: scene.ledger().execute(AskAgain(**by(), **about)),  # noqa: B023 awaited within the round
                scene.say(operation, status="success"),
                scene.visit(operation, TruthfulBank(BankState.SUCCESS)),
            )
            outcome = await scene.outcome(operation, wallet)
            assert outcome == _ENDS[outcome[0]]
            assert await scene.incidents(operation) == (["success_after_failure"] if outcome[0] == "failed" else [])

    async def test_of_a_return_that_comes_many_times_before_and_with_the_success(self, scene: Scene) -> None:
        for _ in range(_TIMES):
            wallet = await make_funded_wallet(scene.databases, 1_000)
            operation = await change(scene.databases, withdrawal_of(wallet, 100))
            await change(scene.databases, asking_of(operation))
            returned = {"type": "payment.returned", "return_code": "account_closed", "bank_reference": "ret_1"}
            await scene.at_once(
                *(scene.say(operation, **returned) for _ in range(4)), scene.say(operation, status="success")
            )
            # Those that came too early are looked at again.
            await scene.say(operation, **returned)()
            status, available, held, _ = await scene.outcome(operation, wallet)
            assert (status, available, held) == (OperationStatus.SUCCESS, 1_000, 0)
            assert await scene.incidents(operation) == []
            logs = scene.databases.wallet["transaction_logs"]
            assert await logs.count_documents({"wallet_id": wallet.id, "type": "WITHDRAWAL_RETURN"}) == 1
