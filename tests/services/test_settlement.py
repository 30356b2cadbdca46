"""The way of an order to the bank and back, with a bank that says what the test tells it to."""

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator
from datetime import date, datetime, timedelta
from typing import Any, cast

import pytest
import structlog
from pydantic import SecretStr
from structlog.testing import LogCapture

from service.database import Databases
from service.documents import OutboxDocument
from service.domain.clock import utc_now
from service.domain.operations import ATTEMPTS_KEPT, BankCall, Operation, OperationStatus
from service.domain.outbox import OutboxTopic, outbox_row
from service.domain.policy import Policy
from service.domain.wallets import Wallet
from service.gateways.bank import (
    Bank,
    BankOrder,
    BankOutcomeUnknown,
    BankRejected,
    BankReport,
    BankState,
    OrderKind,
    StatementLine,
)
from service.gateways.bank_breaker import BankBreaker, BreakerState
from service.gateways.mailbox import FileMailbox
from service.gateways.quick_redis import QuickRedis
from service.ledger.batch import Decided
from service.ledger.commands import Command
from service.ledger.committer import Ledger
from service.ledger.orders import Fail, NoteAttempt
from service.repositories import outbox as outbox_repository
from service.repositories import records as record_repository
from service.repositories.figures import find_overdue_orders
from service.services.bank_reports import about, apply_report
from service.services.outbox import BANK_TOPICS
from service.services.settlement import Desk, pursue_order
from service.settings import Settings
from service.startup import Resources
from tests.factories import change, current, failure_of, make_funded_wallet, settlement_of, withdrawal_of
from tests.servers import Servers, make_settings

Word = BankReport | Exception | None


class ScriptedBank:
    """Answers submissions and questions in the order given; running out of answers fails the test."""

    def __init__(self, submissions: list[Word] | None = None, answers: list[Word] | None = None) -> None:
        self._submissions = submissions or []
        self._answers = answers or []
        self.submitted: list[BankOrder] = []
        self.asked: list[str] = []

    async def submit(self, order: BankOrder) -> BankReport:
        self.submitted.append(order)
        word = _say(self._submissions.pop(0))
        assert word is not None
        return word

    async def find(self, reference: str) -> BankReport | None:
        self.asked.append(reference)
        return _say(self._answers.pop(0))

    async def statement(self, day: date) -> list[StatementLine]:
        raise AssertionError(f"nobody asks for the statement of {day}")


def _say(word: Word) -> BankReport | None:
    if isinstance(word, Exception):
        raise word
    return word


def report_on(operation: Operation, state: BankState, **overrides: Any) -> BankReport:
    return BankReport(operation.id, state, operation.amount, operation.currency, "bnk_1", None, None)._replace(
        **overrides
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
    """A withdrawal of 1000 from a wallet with 5000, and its row in the outbox."""

    def __init__(
        self, wallet: Wallet, operation: Operation, ledger: Ledger, settings: Settings, databases: Databases
    ) -> None:
        self.wallet, self.operation, self.ledger, self.settings = wallet, operation, ledger, settings
        self.client = databases.client
        self.claimed_for_s: float | None = None
        self.waits_since: datetime | None = None

    async def visit(
        self, bank: Bank, attempts: int = 1, visits: int | None = None, last_outcome: str | None = None
    ) -> Operation:
        """`attempts` counts claims; unless told otherwise, each before this one led to the bank."""
        operation = self.operation
        now = utc_now()
        until = now + timedelta(seconds=self.claimed_for_s or self.settings.bank_recheck_s)
        row = outbox_row(OutboxTopic.BANK_ORDER, operation.id, None, self.waits_since or now, until)._replace(
            attempts=attempts, visits=attempts - 1 if visits is None else visits, last_outcome=last_outcome
        )
        desk = Desk(self.ledger, bank, FileMailbox(self.settings), self.settings, self.client)
        await pursue_order(row, desk)
        return await self.now()

    async def ask(self) -> Operation:
        """The bank has the order, and has said nothing yet."""
        return await self.visit(ScriptedBank([report_on(self.operation, BankState.ACCEPTED)]))

    async def known_outcome(self) -> str | None:
        """What the row tells the next visit."""
        row = await OutboxDocument.get_pymongo_collection().find_one({"subject_id": self.operation.id})
        assert row is not None
        return cast("str | None", row["last_outcome"])

    async def now(self) -> Operation:
        found = await record_repository.find(self.operation.id, Operation)
        assert found is not None
        return found

    async def balance(self) -> tuple[int, int]:
        wallet = await current(self.wallet)
        return wallet.available, wallet.held


@pytest.fixture
async def scene(databases: Databases, ledger: Ledger, settings: Settings) -> Scene:
    wallet = await make_funded_wallet(databases, 5_000)
    operation = await change(databases, withdrawal_of(wallet, 1_000))
    return Scene(wallet, operation, ledger, settings, databases)


class TestFirstVisit:
    async def test_submits_under_our_own_reference_and_notes_it_first(self, scene: Scene) -> None:
        bank = ScriptedBank([report_on(scene.operation, BankState.ACCEPTED)])
        operation = await scene.visit(bank)
        assert (operation.status, operation.attempts) == (OperationStatus.PROCESSING, 1)
        assert [order.reference for order in bank.submitted] == [scene.operation.id]
        assert await scene.balance() == (4_000, 1_000)

    async def test_tells_the_bank_the_account_that_is_sealed(self, scene: Scene) -> None:
        bank = ScriptedBank([report_on(scene.operation, BankState.ACCEPTED)])
        await scene.visit(bank)
        assert [order.account for order in bank.submitted] == ["bank-account-0001"]

    async def test_an_account_that_no_key_opens_is_asked_about_nowhere_and_fails_nothing(
        self, scene: Scene, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        scene.settings = settings.model_copy(update={"encryption_key": SecretStr("A" * 43 + "=")})
        bank = ScriptedBank()
        logs = LogCapture()
        log = structlog.wrap_logger(None, processors=[logs], cache_logger_on_first_use=False)
        monkeypatch.setattr("service.services.settlement.log", log)
        operation = await scene.visit(bank)
        assert (bank.submitted, operation.status, operation.attempts) == ([], OperationStatus.PENDING, 0)
        assert await scene.balance() == (4_000, 1_000)
        assert ("critical", "operation.account_unreadable") in {
            (line["log_level"], line["event"]) for line in logs.entries
        }

    async def test_a_refused_order_gives_the_money_back_when_the_bank_does_not_have_it(self, scene: Scene) -> None:
        bank = ScriptedBank([BankRejected("invalid_account", "no such account")], [None])
        operation = await scene.visit(bank)
        assert (operation.status, operation.failure_code) == (OperationStatus.FAILED, "invalid_account")
        assert await scene.balance() == (5_000, 0)

    async def test_a_refused_order_that_the_bank_has_all_the_same_is_left_to_a_person(self, scene: Scene) -> None:
        bank = ScriptedBank(
            [BankRejected("reference_reused", "known")], [report_on(scene.operation, BankState.SUCCESS)]
        )
        operation = await scene.visit(bank)
        assert operation.status is OperationStatus.REQUIRES_REVIEW
        assert await scene.balance() == (4_000, 1_000)

    async def test_keeps_the_money_held_when_the_outcome_is_unknown(self, scene: Scene, databases: Databases) -> None:
        operation = await scene.visit(ScriptedBank([BankOutcomeUnknown("timeout")]))
        assert operation.status is OperationStatus.PROCESSING
        assert await scene.balance() == (4_000, 1_000)
        row = await databases.wallet["outbox"].find_one({"subject_id": operation.id})
        assert row is not None
        assert utc_now() < row["due_at"] < utc_now() + timedelta(seconds=3)


class TestLaterVisits:
    async def test_ask_by_reference_and_do_not_submit_what_the_bank_has(self, scene: Scene) -> None:
        await scene.visit(ScriptedBank([BankOutcomeUnknown("timeout")]))
        bank = ScriptedBank(answers=[report_on(scene.operation, BankState.SUCCESS)])
        operation = await scene.visit(bank, attempts=2)
        assert operation.status is OperationStatus.SUCCESS
        assert bank.submitted == []
        assert await scene.balance() == (4_000, 0)

    async def test_submit_again_under_the_same_reference_what_the_bank_never_got(self, scene: Scene) -> None:
        await scene.visit(ScriptedBank([BankOutcomeUnknown("timeout")]))
        bank = ScriptedBank([report_on(scene.operation, BankState.ACCEPTED)], [None])
        operation = await scene.visit(bank, attempts=2)
        assert [order.reference for order in bank.submitted] == [scene.operation.id]
        assert operation.attempts == 2

    @pytest.mark.parametrize("word", [BankOutcomeUnknown("503"), BankState.ACCEPTED])
    async def test_the_last_attempt_leaves_it_to_a_person_with_the_money_held(
        self, scene: Scene, databases: Databases, word: BankOutcomeUnknown | BankState
    ) -> None:
        scene.settings = scene.settings.model_copy(update={"bank_instant_s": 0.0})
        await scene.visit(ScriptedBank([BankOutcomeUnknown("timeout")]))
        answer = word if isinstance(word, Exception) else report_on(scene.operation, word)
        operation = await scene.visit(ScriptedBank(answers=[answer]), attempts=scene.settings.bank_attempt_limit)
        assert (operation.status, operation.failure_code) == (OperationStatus.REQUIRES_REVIEW, "bank_outcome_unknown")
        assert await scene.balance() == (4_000, 1_000)
        assert await databases.wallet["outbox"].find_one({"subject_id": operation.id}) is None

    async def test_do_nothing_to_an_operation_that_has_ended(self, scene: Scene, databases: Databases) -> None:
        await change(databases, settlement_of(scene.operation))
        bank = ScriptedBank()
        assert (await scene.visit(bank, attempts=2)).status is OperationStatus.SUCCESS
        assert (bank.submitted, bank.asked) == ([], [])

    async def test_a_callback_that_overtakes_the_visit_stands(self, scene: Scene, databases: Databases) -> None:
        """The bank's word arrives between our look at the operation and our note that we ask."""

        class OvertakenBank(ScriptedBank):
            async def find(self, reference: str) -> BankReport | None:
                await change(databases, failure_of(scene.operation))
                return await super().find(reference)

        await scene.visit(ScriptedBank([BankOutcomeUnknown("timeout")]))
        bank = OvertakenBank(answers=[None])
        assert (await scene.visit(bank, attempts=2)).status is OperationStatus.FAILED
        assert bank.submitted == []
        assert await scene.balance() == (5_000, 0)

    async def test_a_refusal_soon_after_an_unknown_outcome_gives_nothing_back(self, scene: Scene) -> None:
        """The first submission may still be on its way to the bank, which knows nothing of it yet."""
        await scene.visit(ScriptedBank([BankOutcomeUnknown("timeout")]))
        bank = ScriptedBank([BankRejected("account_blocked", "blocked")], [None, None])
        operation = await scene.visit(bank, attempts=2)
        assert (operation.status, operation.failure_code) == (OperationStatus.PROCESSING, None)
        assert await scene.balance() == (4_000, 1_000)

    async def test_a_refusal_when_nothing_can_be_on_its_way_any_more_gives_the_money_back(
        self, scene: Scene, databases: Databases
    ) -> None:
        await scene.visit(ScriptedBank([BankOutcomeUnknown("timeout")]))
        refusals: list[Word] = [BankRejected("account_blocked", "blocked") for _ in range(2)]
        await scene.visit(ScriptedBank(refusals[:1], [None, None]), attempts=2)
        # The unanswered one only: that the second try was refused a moment ago is no reason to wait.
        long_ago = utc_now() - timedelta(seconds=scene.settings.bank_in_flight_s)
        await databases.wallet["withdrawals"].update_one(
            {"_id": scene.operation.id}, {"$set": {"attempt_log.0.at": long_ago}}
        )
        operation = await scene.visit(ScriptedBank(refusals[1:], [None, None]), attempts=3)
        assert (operation.status, operation.failure_code) == (OperationStatus.FAILED, "account_blocked")
        assert await scene.balance() == (5_000, 0)

    async def test_a_defect_of_the_gateway_leaves_the_outcome_unknown_and_ends_with_a_person(
        self, scene: Scene
    ) -> None:
        operation = await scene.visit(ScriptedBank([RuntimeError("a defect")]))
        assert operation.status is OperationStatus.PROCESSING
        bank = ScriptedBank(answers=[RuntimeError("a defect")])
        operation = await scene.visit(bank, attempts=scene.settings.bank_attempt_limit)
        assert operation.status is OperationStatus.REQUIRES_REVIEW
        assert await scene.balance() == (4_000, 1_000)

    async def test_an_order_that_may_be_on_its_way_keeps_the_money_held_however_many_are_refused_after_it(
        self, scene: Scene
    ) -> None:
        await scene.visit(ScriptedBank([BankOutcomeUnknown("timeout")]))
        for number in range(ATTEMPTS_KEPT):
            bank = ScriptedBank([BankRejected("account_blocked", "not yet")], [None, None])
            operation = await scene.visit(bank, attempts=number + 2, visits=1)
            assert operation.status is OperationStatus.PROCESSING
        assert len(operation.attempt_log) == ATTEMPTS_KEPT
        assert await scene.balance() == (4_000, 1_000)

    async def test_an_order_that_another_worker_began_meanwhile_keeps_the_money_held(
        self, scene: Scene, databases: Databases
    ) -> None:
        class BusyBank(ScriptedBank):
            async def submit(self, order: BankOrder) -> BankReport:
                await asyncio.sleep(0.002)
                await change(databases, NoteAttempt(**about(scene.operation)))
                return await super().submit(order)

        operation = await scene.visit(BusyBank([BankRejected("account_blocked", "no")], [None]))
        assert operation.status is OperationStatus.PROCESSING
        assert [(attempt.call, attempt.outcome) for attempt in operation.attempt_log] == [
            (BankCall.SUBMIT, "rejected: account_blocked"),
            (BankCall.SUBMIT, "unknown"),
            (BankCall.FIND, None),
        ]
        assert await scene.balance() == (4_000, 1_000)

    async def test_a_refund_that_waits_in_the_ledger_gives_nothing_back_once_another_worker_has_begun_an_order(
        self, scene: Scene, databases: Databases
    ) -> None:
        """The ledger is slow, the claim is over, and the next worker has submitted it before the refund commits."""

        class SlowLedger(Ledger):
            async def execute(self, command: Command) -> Decided:
                if isinstance(command, Fail):
                    await change(databases, NoteAttempt(**about(scene.operation), last_outcome="not_found"))
                return await scene_ledger.execute(command)

        scene_ledger = scene.ledger
        scene.ledger = SlowLedger(
            databases.client,
            policy=Policy(),
            batch_limit=10,
            queue_limit=10,
            patience_s=5,
            on_committed=lambda _committed: None,
        )
        operation = await scene.visit(ScriptedBank([BankRejected("account_blocked", "no")], [None]))
        assert (operation.status, operation.failure_code, operation.attempts) == (OperationStatus.PROCESSING, None, 2)
        assert await scene.balance() == (4_000, 1_000)
        assert await databases.wallet["incidents"].count_documents({"operation_id": operation.id}) == 0
        row = await databases.wallet["outbox"].find_one({"subject_id": operation.id})
        assert row is not None

    async def test_a_visit_that_began_late_ends_with_its_claim_all_the_same(
        self, scene: Scene, databases: Databases
    ) -> None:
        scene.claimed_for_s = -1.0
        bank = ScriptedBank()
        await scene.visit(bank)
        assert bank.submitted == []
        row = await databases.wallet["outbox"].find_one({"subject_id": scene.operation.id})
        assert row is not None
        assert row["visits"] == 0

    async def test_claims_that_our_own_troubles_cut_short_use_up_no_patience_with_the_bank(self, scene: Scene) -> None:
        bank = ScriptedBank([report_on(scene.operation, BankState.ACCEPTED)])
        operation = await scene.visit(bank, attempts=5_000, visits=0)
        assert operation.status is OperationStatus.PROCESSING

    async def test_a_row_whose_operation_has_ended_goes(self, scene: Scene, databases: Databases) -> None:
        await databases.wallet["withdrawals"].update_one({"_id": scene.operation.id}, {"$set": {"status": "failed"}})
        await scene.visit(ScriptedBank(), attempts=2)
        assert await databases.wallet["outbox"].find_one({"subject_id": scene.operation.id}) is None

    async def test_a_bank_that_hangs_counts_as_a_visit_and_ends_with_a_person(
        self, scene: Scene, databases: Databases
    ) -> None:
        class HangingBank(ScriptedBank):
            async def submit(self, order: BankOrder) -> BankReport:
                await asyncio.sleep(60)
                raise AssertionError(f"{order.reference} waited for ever")

            async def find(self, reference: str) -> BankReport | None:
                await asyncio.sleep(60)
                raise AssertionError(f"{reference} waited for ever")

        scene.settings = scene.settings.model_copy(update={"bank_timeout_s": 0.1})
        assert (await scene.visit(HangingBank())).status is OperationStatus.PROCESSING
        row = await databases.wallet["outbox"].find_one({"subject_id": scene.operation.id})
        assert row is not None
        assert row["visits"] == 1
        operation = await scene.visit(HangingBank(), attempts=scene.settings.bank_attempt_limit)
        assert operation.status is OperationStatus.REQUIRES_REVIEW
        assert await scene.balance() == (4_000, 1_000)

    async def test_a_visit_ends_with_its_claim_and_counts(self, scene: Scene, databases: Databases) -> None:
        class SilentBank(ScriptedBank):
            async def submit(self, order: BankOrder) -> BankReport:
                await asyncio.sleep(60)
                raise AssertionError(f"{order.reference} waited for ever")

        scene.settings = scene.settings.model_copy(update={"bank_recheck_s": 0.2})
        await asyncio.wait_for(scene.visit(SilentBank()), 5)
        assert (await scene.now()).status is OperationStatus.PROCESSING
        row = await databases.wallet["outbox"].find_one({"subject_id": scene.operation.id})
        assert row is not None
        assert row["visits"] == 1

    async def test_a_visit_that_we_ourselves_are_too_slow_for_does_not_count(
        self, scene: Scene, databases: Databases
    ) -> None:
        scene.settings = scene.settings.model_copy(update={"bank_recheck_s": 1e-6})
        bank = ScriptedBank()
        await scene.visit(bank, attempts=scene.settings.bank_attempt_limit)
        assert bank.submitted == []
        row = await databases.wallet["outbox"].find_one({"subject_id": scene.operation.id})
        assert row is not None
        assert (row["visits"], row["last_outcome"]) == (0, "no time left for an answer")


class TestReports:
    async def test_a_late_word_still_ends_what_was_left_to_a_person(self, scene: Scene) -> None:
        limit = scene.settings.bank_attempt_limit
        await scene.visit(ScriptedBank([BankOutcomeUnknown("timeout")]), attempts=limit)
        reviewed = await scene.now()
        assert reviewed.status is OperationStatus.REQUIRES_REVIEW
        await apply_report(reviewed, report_on(reviewed, BankState.SUCCESS), scene.ledger)
        assert (await scene.now()).status is OperationStatus.SUCCESS
        assert await scene.balance() == (4_000, 0)

    async def test_a_contradiction_moves_no_money(self, scene: Scene) -> None:
        await scene.ask()
        await apply_report(scene.operation, report_on(scene.operation, BankState.SUCCESS), scene.ledger)
        result = await apply_report(scene.operation, report_on(scene.operation, BankState.FAILED), scene.ledger)
        assert result.result == "contradiction"
        assert (await scene.now()).status is OperationStatus.SUCCESS
        assert await scene.balance() == (4_000, 0)

    @pytest.mark.parametrize("state", [BankState.SUCCESS, BankState.FAILED])
    async def test_another_amount_moves_no_money(self, scene: Scene, state: BankState) -> None:
        await scene.ask()
        report = report_on(scene.operation, state, amount=999)
        assert (await apply_report(scene.operation, report, scene.ledger)).result == "requires_review"
        assert await scene.balance() == (4_000, 1_000)


class TestABankThatTakesDays:
    """`accepted` is an answer: who has said that it has the order is asked about it, and no person yet."""

    @pytest.fixture
    def slow(self, scene: Scene) -> Scene:
        update = {"bank_rails": {"INR:withdrawal": "three_banking_days"}, "bank_attempt_limit": 3}
        scene.settings = scene.settings.model_copy(update=update)
        return scene

    async def accepted(self, scene: Scene, attempts: int, visits: int = 0) -> Operation:
        bank = ScriptedBank(answers=[report_on(scene.operation, BankState.ACCEPTED)])
        return await scene.visit(bank, attempts=attempts, visits=visits)

    async def test_is_waited_for_without_counting_and_ever_more_rarely(self, slow: Scene, databases: Databases) -> None:
        operation = await slow.ask()
        assert operation.expected_by is not None
        assert utc_now() + timedelta(days=2) < operation.expected_by < utc_now() + timedelta(days=8)
        for attempts in range(2, 40):
            operation = await self.accepted(slow, attempts)
        assert operation.status is OperationStatus.PROCESSING
        row = await databases.wallet["outbox"].find_one({"subject_id": operation.id})
        assert row is not None
        assert (row["visits"], row["last_outcome"], row["expected_by"]) == (0, "accepted", operation.expected_by)
        long_ago = utc_now() - timedelta(days=1)
        await databases.wallet["withdrawals"].update_one({"_id": operation.id}, {"$set": {"created_at": long_ago}})
        await self.accepted(slow, 41)
        row = await databases.wallet["outbox"].find_one({"subject_id": operation.id})
        assert row is not None
        assert row["due_at"] > utc_now() + timedelta(minutes=50)

    async def test_is_no_persons_matter_while_it_is_silent_either(self, slow: Scene) -> None:
        await slow.ask()
        await self.accepted(slow, 2)
        for attempts in range(3, 9):
            said = "accepted" if attempts == 3 else "503"
            bank = ScriptedBank(answers=[BankOutcomeUnknown("503")])
            operation = await slow.visit(bank, attempts=attempts, visits=attempts, last_outcome=said)
            assert operation.status is OperationStatus.PROCESSING

    async def test_is_no_persons_matter_when_it_is_silent_after_its_first_word(
        self, slow: Scene, databases: Databases
    ) -> None:
        rows = databases.wallet["outbox"]
        before = await rows.find_one({"subject_id": slow.operation.id})
        await slow.ask()
        after = await rows.find_one({"subject_id": slow.operation.id})
        assert before is not None
        assert after == before | {"last_outcome": "accepted"}, "it is due when it was, and no visit counts"
        for attempts in range(2, 8):
            bank = ScriptedBank(answers=[BankOutcomeUnknown("503")])
            said = await slow.known_outcome()
            operation = await slow.visit(bank, attempts=attempts, last_outcome=said)
            assert operation.status is OperationStatus.PROCESSING
        assert operation.accepted_at is not None

    async def test_has_its_word_kept_by_a_visit_that_we_cut_short_before_the_bank(self, slow: Scene) -> None:
        await slow.ask()
        slow.claimed_for_s = -1.0
        await slow.visit(ScriptedBank(), attempts=2, last_outcome=await slow.known_outcome())
        assert await slow.known_outcome() == "accepted"

    async def test_that_has_never_said_so_is_left_to_a_person_as_before(self, slow: Scene) -> None:
        await slow.visit(ScriptedBank([BankOutcomeUnknown("timeout")]))
        operation = await slow.visit(ScriptedBank(answers=[BankOutcomeUnknown("503")]), attempts=3)
        assert operation.status is OperationStatus.REQUIRES_REVIEW

    async def test_is_looked_into_by_a_person_once_its_time_is_over(self, slow: Scene, databases: Databases) -> None:
        operation = await slow.ask()
        a_moment_ago = utc_now() - timedelta(seconds=1)
        await databases.wallet["withdrawals"].update_one({"_id": operation.id}, {"$set": {"expected_by": a_moment_ago}})
        assert (await self.accepted(slow, 2, visits=1)).status is OperationStatus.PROCESSING
        operation = await self.accepted(slow, 3, visits=2)
        assert (operation.status, operation.expected_by) == (
            OperationStatus.REQUIRES_REVIEW,
            a_moment_ago.replace(microsecond=a_moment_ago.microsecond // 1000 * 1000),
        )

    async def test_of_an_order_from_before_there_were_rails(self, slow: Scene, databases: Databases) -> None:
        operation = await slow.ask()
        await databases.wallet["withdrawals"].update_one(
            {"_id": operation.id}, {"$unset": {"expected_by": "", "accepted_at": ""}}
        )
        assert (await slow.now()).expected_by is None
        operation = await self.accepted(slow, 2, visits=2)
        assert operation.status is OperationStatus.PROCESSING
        assert operation.expected_by is not None

    async def test_shows_in_the_figures_once_it_is_late(self, slow: Scene) -> None:
        operation = await slow.ask()
        await self.accepted(slow, 2)
        assert operation.expected_by is not None
        before, after = operation.expected_by, operation.expected_by + timedelta(hours=1)
        overdue = await find_overdue_orders(after)
        assert overdue.number > (await find_overdue_orders(before)).number
        assert overdue.oldest is not None
        assert overdue.oldest <= operation.expected_by


class TestAnAnswerAboutAnotherOrder:
    """It settles nothing and fails nothing: the outcome is as unknown as before, and people are told."""

    @pytest.mark.parametrize(
        "said",
        [
            {"reference": "wdr_of-somebody-else"},
            {"amount": 999},
            {"currency": "USD"},
            {"kind": OrderKind.COLLECTION},
            {"account": "bank-account-0002"},
        ],
        ids=lambda said: next(iter(said)),
    )
    @pytest.mark.parametrize("state", BankState)
    async def test_to_a_question_moves_nothing(
        self, scene: Scene, databases: Databases, said: dict[str, Any], state: BankState
    ) -> None:
        await scene.visit(ScriptedBank([BankOutcomeUnknown("timeout")]))
        operation = await scene.visit(ScriptedBank(answers=[report_on(scene.operation, state, **said)]), attempts=2)
        await self._require_told(scene, operation, databases, next(iter(said)))

    @pytest.mark.parametrize("state", BankState)
    async def test_to_an_order_moves_nothing(self, scene: Scene, databases: Databases, state: BankState) -> None:
        """Here the whole account is known, not only how it ends."""
        report = report_on(scene.operation, state, account="other-account-0001")
        operation = await scene.visit(ScriptedBank([report]))
        await self._require_told(scene, operation, databases, "account")

    async def test_does_not_count_as_known_to_the_bank_when_it_refuses(
        self, scene: Scene, databases: Databases
    ) -> None:
        another = report_on(scene.operation, BankState.ACCEPTED, reference="wdr_of-somebody-else")
        operation = await scene.visit(ScriptedBank([BankRejected("invalid_account", "unknown")], [another]))
        await self._require_told(scene, operation, databases, "reference")

    async def test_again_and_again_is_one_incident_and_ends_with_a_person(
        self, scene: Scene, databases: Databases
    ) -> None:
        limit = scene.settings.bank_attempt_limit
        await scene.visit(ScriptedBank([BankOutcomeUnknown("timeout")]))
        for visit in range(2, limit + 1):
            bank = ScriptedBank(answers=[report_on(scene.operation, BankState.SUCCESS, amount=999)])
            operation = await scene.visit(bank, attempts=visit)
        assert operation.status is OperationStatus.REQUIRES_REVIEW
        assert await databases.wallet["incidents"].count_documents({"reference": operation.id}) == 1

    async def test_is_never_handed_to_the_ledger(self, scene: Scene) -> None:
        await scene.ask()
        report = report_on(scene.operation, BankState.SUCCESS, reference="wdr_of-somebody-else")
        with pytest.raises(AssertionError):
            await apply_report(scene.operation, report, scene.ledger)

    async def _require_told(self, scene: Scene, operation: Operation, databases: Databases, what: str) -> None:
        assert operation.status is OperationStatus.PROCESSING
        assert await scene.balance() == (4_000, 1_000)
        (incident,) = await databases.wallet["incidents"].find({"reference": operation.id}).to_list()
        assert (incident["kind"], incident["said"]["code"]) == ("answer_about_another_order", what)
        row = await databases.wallet["outbox"].find_one({"subject_id": operation.id})
        assert row is not None
        assert row["visits"] >= 1, "an unknown outcome, as any"


class TestTheOutbox:
    async def test_a_claimed_row_comes_back_when_its_lease_has_run_out(self, scene: Scene) -> None:
        now = utc_now() + timedelta(seconds=1)
        taken = await outbox_repository.claim(now=now, lease_s=10, limit=1_000_000, topics=BANK_TOPICS)
        assert scene.operation.id in [row.subject_id for row in taken]
        assert scene.operation.id not in [
            r.subject_id
            for r in await outbox_repository.claim(now=now, lease_s=10, limit=1_000_000, topics=BANK_TOPICS)
        ]
        later = now + timedelta(seconds=11)
        again = await outbox_repository.claim(now=later, lease_s=0, limit=1_000_000, topics=BANK_TOPICS)
        assert [row.attempts for row in again if row.subject_id == scene.operation.id] == [2]

    async def test_two_workers_never_get_the_same_row(self, scene: Scene, databases: Databases) -> None:
        for _ in range(20):
            await change(databases, withdrawal_of(scene.wallet, 1))
        now = utc_now() + timedelta(seconds=1)
        for _ in range(10):
            claims = (outbox_repository.claim(now=now, lease_s=0.5, limit=30, topics=BANK_TOPICS) for _ in range(4))
            taken = await asyncio.gather(*claims)
            ids = [row.id for rows in taken for row in rows]
            assert len(ids) == len(set(ids))
            now += timedelta(seconds=1)


@pytest.fixture
async def breaker(servers: Servers) -> AsyncIterator[BankBreaker]:
    """Around a bank that says what `bank_of` is told to; of a database of its own, so that nobody else hears of it."""
    settings = make_settings(servers, bank_breaker_failures=2, bank_breaker_open_s=60)
    redis = QuickRedis(settings)
    breaker = BankBreaker(ScriptedBank(), redis, settings)
    yield breaker
    await breaker.close()
    await redis.close()


@pytest.fixture
async def quick_breaker(servers: Servers) -> AsyncIterator[BankBreaker]:
    """One that soon has somebody find out whether the bank is back."""
    settings = make_settings(servers, bank_breaker_failures=2, bank_breaker_open_s=0.05)
    redis = QuickRedis(settings)
    breaker = BankBreaker(ScriptedBank(), redis, settings)
    yield breaker
    await breaker.close()
    await redis.close()


class TestABankThatIsDown:
    async def _visit(self, scene: Scene, breaker: BankBreaker, bank: ScriptedBank, visits: int = 0) -> Operation:
        breaker._bank = bank
        return await scene.visit(breaker, attempts=1, visits=visits)

    async def _take_down(self, breaker: BankBreaker) -> None:
        breaker._bank = ScriptedBank(answers=[BankOutcomeUnknown("503"), BankOutcomeUnknown("503")])
        for reference in ("wdr_1", "wdr_2"):
            with pytest.raises(BankOutcomeUnknown):
                await breaker.find(reference)
        assert breaker.state_now is BreakerState.OPEN

    async def _row(self, scene: Scene, databases: Databases) -> dict[str, Any]:
        row = await databases.wallet["outbox"].find_one({"subject_id": scene.operation.id})
        assert row is not None
        return row

    async def test_is_not_asked_and_the_operation_stays_pending(
        self, scene: Scene, breaker: BankBreaker, databases: Databases
    ) -> None:
        await self._take_down(breaker)
        bank = ScriptedBank()
        # The last visit that it has.
        operation = await self._visit(scene, breaker, bank, visits=scene.settings.bank_attempt_limit - 1)
        assert (operation.status, operation.attempts) == (OperationStatus.PENDING, 0)
        assert (bank.submitted, bank.asked) == ([], [])
        row = await self._row(scene, databases)
        assert row["visits"] == 0
        assert timedelta(seconds=50) < row["due_at"] - utc_now() < timedelta(seconds=70)

    async def test_a_visit_that_finds_it_down_does_not_count(
        self, scene: Scene, breaker: BankBreaker, databases: Databases
    ) -> None:
        breaker._bank = ScriptedBank(answers=[BankOutcomeUnknown("503")])
        with pytest.raises(BankOutcomeUnknown):
            await breaker.find("wdr_1")
        last = scene.settings.bank_attempt_limit - 1
        operation = await self._visit(
            scene, breaker, ScriptedBank(submissions=[BankOutcomeUnknown("503")]), visits=last
        )
        assert breaker.state_now is BreakerState.OPEN
        assert (operation.status, operation.attempts) == (OperationStatus.PROCESSING, 1)
        assert (await self._row(scene, databases))["visits"] == 0

    @pytest.mark.parametrize(
        ("waits_for", "status"),
        [(timedelta(hours=23), OperationStatus.PROCESSING), (timedelta(hours=25), OperationStatus.REQUIRES_REVIEW)],
    )
    async def test_an_order_that_keeps_it_down_for_a_day_by_itself_is_left_to_a_person(
        self, scene: Scene, quick_breaker: BankBreaker, waits_for: timedelta, status: OperationStatus
    ) -> None:
        await self._take_down(quick_breaker)
        await asyncio.sleep(quick_breaker.retry_after_s())
        scene.waits_since = utc_now() - waits_for
        last = scene.settings.bank_attempt_limit - 1
        operation = await self._visit(scene, quick_breaker, ScriptedBank([BankOutcomeUnknown("500")]), visits=last)
        assert operation.status is status
        assert await scene.balance() == (4_000, 1_000)

    async def test_one_account_whose_orders_the_bank_cannot_find_holds_up_itself_only(
        self, scene: Scene, breaker: BankBreaker, databases: Databases
    ) -> None:
        for _ in range(4):
            scene.operation = await change(databases, withdrawal_of(scene.wallet, 100))
            await scene.visit(ScriptedBank([BankOutcomeUnknown("timeout")]))
            await self._visit(scene, breaker, ScriptedBank(answers=[BankOutcomeUnknown("503")]), visits=1)
        assert breaker.state_now is BreakerState.CLOSED

    async def test_an_account_that_cannot_be_read_says_nothing_about_the_bank(
        self, scene: Scene, breaker: BankBreaker
    ) -> None:
        scene.settings = scene.settings.model_copy(update={"encryption_key": SecretStr(b64encode(b"k" * 32).decode())})
        for _ in range(4):
            await self._visit(scene, breaker, ScriptedBank())
        assert breaker.state_now is BreakerState.CLOSED
