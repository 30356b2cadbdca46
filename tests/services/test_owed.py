"""Deposits that were taken back: the wallet gives what it has, owes the rest, and lets nothing out before that is paid.

Each trial was first run against a ledger that looked at `available` only, and failed there.
"""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from service.database import Databases
from service.documents import User
from service.domain.adjustments import AdjustmentType
from service.domain.clock import utc_now
from service.domain.holds import Hold, HoldStatus
from service.domain.identifiers import Prefix, made_at, new_id
from service.domain.money import POINTS
from service.domain.operations import Operation, OperationStatus
from service.domain.outbox import OutboxTopic
from service.domain.policy import Policy
from service.domain.returns import Return, ReturnStatus, points_return_id_of, return_id_of
from service.domain.rewards import EarningEvent, EarningRule
from service.domain.wallets import Freeze, Wallet, WalletStatus
from service.errors import IllegalTransition, PayerCannotPay, WalletOwes, WalletServiceError
from service.gateways.mailbox import Mail
from service.ledger.adjustments import RequestAdjustment
from service.ledger.batch import Decided
from service.ledger.commands import Command
from service.ledger.committer import Ledger
from service.ledger.holds import CaptureHold, ReleaseHold, RequestHold
from service.ledger.returns import CollectReturn
from service.ledger.rewards import EarnPoints
from service.ledger.transfers import RequestTransfer
from service.ledger.wallet_life import CloseWallet, FreezeWallet
from service.repositories import records as record_repository
from service.repositories import users as user_repository
from service.services import wallet_life
from service.services.bank_callbacks import apply_callback
from service.services.orders import Requester
from service.services.outbox import claim_rows, pursue_row
from service.services.settlement import Desk
from service.startup import Resources
from tests.factories import (
    asking_of,
    blocked_cancellation_of,
    cancellation_of,
    change,
    current,
    deposit_of,
    freeze,
    fund_wallet,
    make_account,
    make_user,
    make_wallet,
    release_of,
    run,
    settlement_of,
    withdrawal_of,
)
from tests.servers import Admin


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


class Case:
    """A person, a friend of theirs, and a bank that takes a deposit back."""

    def __init__(self, databases: Databases, ledger: Ledger, wallet: Wallet, friend: Wallet, admin_id: str) -> None:
        self.databases, self.ledger = databases, ledger
        self.wallet, self.friend, self.admin_id = wallet, friend, admin_id

    async def spend(self, amount: int) -> None:
        await change(self.databases, settlement_of(await change(self.databases, withdrawal_of(self.wallet, amount))))

    async def take_back(self, deposit: Operation) -> Return:
        payload = {"type": "payment.returned", "reference": deposit.id, "amount": deposit.amount, "currency": "INR"}
        payload |= {"bank_reference": "ret_1", "return_code": "chargeback", "return_message": None}
        row: dict[str, Any] = {"_id": f"msg_{uuid4().hex}", "payload": payload, "request_id": None, "attempts": 1}
        await apply_callback(row, self.ledger)
        return await self.returned(deposit)

    async def returned(self, deposit: Operation) -> Return:
        found = await record_repository.find(return_id_of(deposit.id), Return)
        assert found is not None
        return found

    async def owing(self) -> Operation:
        """A deposit of 10,000 of which 6,000 were there still: 4,000 are owed."""
        deposit = await fund_wallet(self.databases, self.wallet, 10_000)
        await self.spend(4_000)
        await self.take_back(deposit)
        return deposit

    async def amounts(self) -> tuple[int, int, int]:
        wallet = await current(self.wallet)
        return wallet.available, wallet.held, wallet.owed

    async def entries(self) -> list[tuple[str, int]]:
        rows = self.databases.wallet["transaction_logs"].find({"wallet_id": self.wallet.id}, sort=[("seq", 1)])
        return [(row["type"], row["amount"]) for row in await rows.to_list()]

    async def events(self) -> list[dict[str, Any]]:
        return await self.databases.wallet["events"].find({"wallet_id": self.wallet.id}).sort("sequence").to_list()

    async def hold(self, amount: int, to: Wallet | None) -> RequestHold:
        command = RequestHold(
            hold_id=new_id(Prefix.HOLD),
            wallet_id=self.wallet.id,
            to_wallet_id=None if to is None else to.id,
            amount=amount,
            currency="INR",
            lifetime=timedelta(days=1),
            entry_id=new_id(Prefix.ENTRY),
            **_DETAILS,
            **_by(self.wallet.user_id),
        )
        (decided,) = await run(self.databases, command)
        assert decided.record is not None, decided
        return command

    def about(self, hold: RequestHold) -> dict[str, Any]:
        ids = {"hold_id": hold.hold_id, "wallet_id": hold.wallet_id, "release_entry_id": new_id(Prefix.ENTRY)}
        recorded = {"audit_event_id": new_id(Prefix.AUDIT_EVENT), "reason": None}
        return ids | recorded | {"acts_for_house": False} | _by(self.friend.user_id)

    def capture(self, hold: RequestHold) -> CaptureHold:
        return CaptureHold(
            named_wallet_id=hold.to_wallet_id,
            to_wallet_id=None,
            amount=None,
            out_entry_id=new_id(Prefix.ENTRY),
            in_entry_id=new_id(Prefix.ENTRY),
            **self.about(hold),
        )

    def transfer(self, sender: Wallet, to: Wallet, amount: int) -> RequestTransfer:
        return RequestTransfer(
            transfer_id=new_id(Prefix.TRANSFER),
            wallet_id=sender.id,
            to_wallet_id=to.id,
            to_user_id=None,
            amount=amount,
            currency="INR",
            out_entry_id=new_id(Prefix.ENTRY),
            in_entry_id=new_id(Prefix.ENTRY),
            **_DETAILS,
            **_by(sender.user_id),
        )

    def credit(self, amount: int, **overrides: Any) -> RequestAdjustment:
        usual: dict[str, Any] = {
            "adjustment_id": new_id(Prefix.ADJUSTMENT),
            "entry_id": new_id(Prefix.ENTRY),
            "type": AdjustmentType.CREDIT,
            "wallet_id": self.wallet.id,
            "amount": amount,
            "currency": "INR",
            "is_admin": True,
            "audit_event_id": new_id(Prefix.AUDIT_EVENT),
            "reason": "A test",
        }
        return RequestAdjustment(**(usual | _DETAILS | _by(self.admin_id) | overrides))

    async def close(self) -> None:
        house = _by(self.admin_id) | {"audit_event_id": new_id(Prefix.AUDIT_EVENT), "reason": "A test"}
        with_it = CloseWallet(wallet_id=self.wallet.id, is_admin=True, **house)
        (decided,) = await run(self.databases, with_it)
        assert decided.error is None, decided

    async def collect(self, operation: Operation) -> None:
        returned = await self.returned(operation)
        command = CollectReturn(
            return_id=returned.id,
            wallet_id=returned.wallet_id,
            entry_id=new_id(Prefix.ENTRY),
            audit_event_id=new_id(Prefix.AUDIT_EVENT),
            reason="The wallet is open again",
            **_by(self.admin_id),
        )
        (decided,) = await run(self.databases, command)
        assert decided.error is None, decided

    async def refused(self, command: Command) -> WalletServiceError | None:
        (decided,) = await run(self.databases, command)
        if decided.answer is not None and decided.answer.status_code == WalletOwes.http_status:
            return WalletOwes() if b'"wallet_owes"' in decided.answer.body else None
        return decided.error

    async def admin(self) -> User:
        found = await user_repository.find(self.admin_id)
        assert found is not None
        return found

    async def reopen(self) -> Wallet:
        return await wallet_life.reopen_wallet(
            self.ledger, Requester(self.admin_id, None), self.wallet.id, "The bank sent back", None
        )

    async def unfreeze(self) -> Wallet:
        return await wallet_life.unfreeze_wallet(
            self.ledger, Requester(self.admin_id, None), self.wallet.id, "It looks fine", None
        )


_EARNING = Policy(earning_rules=(EarningRule("paying in", EarningEvent.DEPOSIT, "INR", 100, 1, 1_000),))
_DETAILS: dict[str, Any] = {"category": None, "description": None, "metadata": {}}


def _by(user_id: str) -> dict[str, Any]:
    return {"now": utc_now(), "transaction_id": new_id(Prefix.TRANSACTION), "user_id": user_id, "token_version": None}


@pytest.fixture
async def case(databases: Databases, ledger: Ledger) -> Case:
    wallet, friend = [(await make_account(databases)).wallet for _ in range(2)]
    return Case(databases, ledger, wallet, friend, (await make_user(databases, roles=["admin"])).id)


class TestTrials:
    """As found on a running system."""

    async def test_a_return_takes_what_is_there_although_one_unit_is_missing(self, case: Case) -> None:
        deposit = await fund_wallet(case.databases, case.wallet, 10_000)
        await case.spend(1)
        returned = await case.take_back(deposit)
        assert await case.amounts() == (0, 0, 1)
        assert (returned.status, returned.collected, returned.owed) == ("owed", 9_999, 1)
        assert (await case.entries())[-1] == ("DEPOSIT_RETURN", 9_999)

    async def test_a_friend_captures_nothing_of_a_hold_while_its_payer_owes(self, case: Case) -> None:
        deposit = await fund_wallet(case.databases, case.wallet, 10_000)
        hold = await case.hold(10_000, case.friend)
        await case.take_back(deposit)
        (decided,) = await run(case.databases, case.capture(hold))
        assert decided.error is not None
        assert (await current(case.friend)).available == 0

    async def test_what_comes_in_after_a_return_does_not_leave_past_it(self, case: Case) -> None:
        """12,000 came in and went out, and the 10,000 of the return were never collected."""
        deposit = await fund_wallet(case.databases, case.wallet, 10_000)
        await case.spend(10_000)
        await case.take_back(deposit)
        with pytest.raises(WalletOwes) as refusal:
            await case.unfreeze()
        assert refusal.value.facts["owed"] == 10_000
        await fund_wallet(case.databases, case.wallet, 12_000)
        assert await case.amounts() == (2_000, 0, 0)
        assert (await case.unfreeze()).status is WalletStatus.ACTIVE
        assert isinstance(await case.refused(withdrawal_of(case.wallet, 12_000)), WalletServiceError | None)
        assert (await current(case.wallet)).held == 0


class TestWhatIsOwed:
    async def test_is_paid_by_each_credit_first_in_its_own_transaction(self, case: Case) -> None:
        deposit = await case.owing()
        assert await case.amounts() == (0, 0, 4_000)
        await fund_wallet(case.databases, case.friend, 1_000)
        for credit, left in ((case.credit(500), 3_500), (case.transfer(case.friend, case.wallet, 1_000), 2_500)):
            await run(case.databases, credit)
            assert await case.amounts() == (0, 0, left)
            returned = await case.returned(deposit)
            assert (returned.status, returned.owed, returned.transaction_id) == ("owed", left, credit.transaction_id)
        await fund_wallet(case.databases, case.wallet, 3_000)
        assert await case.amounts() == (500, 0, 0)
        returned = await case.returned(deposit)
        assert (returned.status, returned.collected, returned.owed, returned.trouble) == ("success", 10_000, 0, None)
        paid = [amount for kind, amount in await case.entries() if kind == "DEPOSIT_RETURN"]
        assert paid == [6_000, 500, 1_000, 2_500]
        wallet = await current(case.wallet)
        assert (wallet.debts, wallet.open_operations, wallet.freeze) == ((), 0, Freeze.OUT)

    async def test_is_paid_by_what_a_canceled_withdrawal_gives_back(self, case: Case) -> None:
        deposit = await fund_wallet(case.databases, case.wallet, 10_000)
        withdrawal = await change(case.databases, withdrawal_of(case.wallet, 10_000))
        await case.take_back(deposit)
        assert await case.amounts() == (0, 10_000, 10_000)
        await run(case.databases, cancellation_of(withdrawal))
        assert await case.amounts() == (0, 0, 0)
        assert (await case.returned(deposit)).status is ReturnStatus.SUCCESS

    async def test_of_several_returns_is_paid_the_oldest_first(self, case: Case) -> None:
        first, second = [await fund_wallet(case.databases, case.wallet, 1_000) for _ in range(2)]
        await case.spend(2_000)
        for deposit in (second, first):
            await case.take_back(deposit)
        assert await case.amounts() == (0, 0, 2_000)
        await fund_wallet(case.databases, case.wallet, 1_300)
        assert ((await case.returned(second)).owed, (await case.returned(first)).owed) == (0, 700)
        await fund_wallet(case.databases, case.wallet, 1_000)
        assert await case.amounts() == (300, 0, 0)

    async def test_is_paid_once_by_two_credits_at_once(self, case: Case) -> None:
        await case.owing()
        await asyncio.gather(*(run(case.databases, case.credit(3_000)) for _ in range(2)))
        assert await case.amounts() == (2_000, 0, 0)

    async def test_lets_nothing_out(self, case: Case) -> None:
        await case.owing()
        owed = (await current(case.wallet)).owed
        house = _by(case.admin_id) | {"audit_event_id": new_id(Prefix.AUDIT_EVENT), "reason": "A test"}
        house |= {"wallet_id": case.wallet.id}
        for command in (
            withdrawal_of(case.wallet, 1, claim=None),
            case.transfer(case.wallet, case.friend, 1),
            FreezeWallet(freeze=Freeze.IN, **house),
            CloseWallet(is_admin=True, **house),
        ):
            refusal = await case.refused(command)
            assert isinstance(refusal, WalletOwes), command
            assert (refusal.facts["owed"], refusal.facts["currency"]) == (owed, "INR")
        assert (await current(case.wallet)).owed == owed

    async def test_is_told_to_its_owner(self, case: Case) -> None:
        deposit = await case.owing()
        await fund_wallet(case.databases, case.wallet, 5_000)
        told = [event for event in await case.events() if event["subject_id"] == return_id_of(deposit.id)]
        assert [(event["type"], event["data"]["owed"], event["data"]["collected"]) for event in told] == [
            ("return.owed", 4_000, 6_000),
            ("return.succeeded", 0, 10_000),
        ]
        (frozen,) = [event for event in await case.events() if event["type"] == "wallet.frozen"]
        assert frozen["data"]["owed"] == 4_000

    async def test_is_told_by_mail_once(self, case: Case, resources: Resources) -> None:
        deposit = await case.owing()
        sent: list[Mail] = []

        class Listening:
            async def send(self, mail: Mail) -> None:
                sent.append(mail)

        desk = Desk(case.ledger, resources.bank, Listening(), resources.settings, resources.databases.client)
        for _ in range(2):
            for row in await claim_rows(1_000, resources.settings, (OutboxTopic.OWED_NOTICE,)):
                await pursue_row(row, desk)
        (mail,) = [mail for mail in sent if deposit.id in mail.text]
        assert mail.id == f"owed_notice:{return_id_of(deposit.id)}"
        assert "100.00 INR" in mail.text
        assert "40.00 INR is still owed" in mail.text

    async def test_is_paid_under_ids_of_the_moment_of_the_credit(self, case: Case) -> None:
        """Sums over the hours go by ids: one from another time would be missing from them."""
        await case.owing()
        credit = case.credit(500)
        await run(case.databases, credit)
        rows = case.databases.wallet["transaction_logs"].find({"transaction_id": credit.transaction_id})
        ids = {row["type"]: row["_id"] for row in await rows.to_list()}
        assert made_at(ids["DEPOSIT_RETURN"]) == made_at(credit.transaction_id)

    async def test_a_wallet_that_owes_for_too_many_returns_leaves_further_ones_to_a_person(
        self, case: Case, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("service.ledger.debts.MAX_DEBTS", 1)
        deposits = [await fund_wallet(case.databases, case.wallet, 1_000) for _ in range(2)]
        await case.spend(2_000)
        first, second = [await case.take_back(deposit) for deposit in deposits]
        assert (first.status, second.status, second.trouble) == ("owed", "requires_review", "wallet_owes")
        await fund_wallet(case.databases, case.wallet, 1_500)
        # Nothing is owed any more, and yet one return is open.
        assert await case.amounts() == (500, 0, 0)
        with pytest.raises(WalletOwes):
            await case.unfreeze()


class TestHolds:
    async def record(self, hold: RequestHold) -> Hold:
        found = await record_repository.find(hold.hold_id, Hold)
        assert found is not None
        return found

    async def test_for_a_friend_are_taken_before_anything_is_owed_newest_first(self, case: Case) -> None:
        """Money put into a hold for a friend was captured by the friend while the return waited."""
        deposit = await fund_wallet(case.databases, case.wallet, 10_000)
        older, newer = [await case.hold(amount, to) for amount, to in ((4_000, None), (5_000, case.friend))]
        returned = await case.take_back(deposit)
        assert await case.amounts() == (0, 0, 0)
        assert (returned.status, returned.collected) == ("success", 10_000)
        wallet = await current(case.wallet)
        assert (wallet.status, wallet.open_operations, wallet.usage.day_amount) == ("active", 0, 0)
        assert (await case.entries())[3:] == [
            ("HOLD_RELEASE", 5_000), ("HOLD_RELEASE", 4_000), ("DEPOSIT_RETURN", 10_000),
        ]  # fmt: skip
        for hold in (older, newer):
            assert (await self.record(hold)).status is HoldStatus.TAKEN
            assert not await case.databases.wallet["outbox"].find_one({"_id": f"expiry:{hold.hold_id}"})
        (decided,) = await run(case.databases, case.capture(newer))
        assert (type(decided.error), (await current(case.friend)).available) == (IllegalTransition, 0)

    async def test_give_no_more_than_is_missing_and_stay_good_for_the_rest(self, case: Case) -> None:
        await fund_wallet(case.databases, case.wallet, 2_000)
        deposit = await fund_wallet(case.databases, case.wallet, 1_000)
        hold = await case.hold(2_800, case.friend)
        await case.take_back(deposit)
        assert await case.amounts() == (0, 2_000, 0)
        taken = await self.record(hold)
        assert (taken.status, taken.left, taken.taken_amount) == ("held", 2_000, 800)
        assert taken.takings == ((return_id_of(deposit.id), 800),)
        wallet = await current(case.wallet)
        assert (wallet.status, wallet.open_operations) == ("active", 1)
        assert (wallet.usage.day_amount, wallet.usage.hour_count) == (2_000, 1)
        told = [event["type"] for event in await case.events() if event["subject_id"] == hold.hold_id]
        assert told == ["hold.placed", "hold.reduced"]
        (decided,) = await run(case.databases, case.capture(hold))
        assert decided.error is None
        assert (await current(case.friend)).available == 2_000
        assert await case.amounts() == (0, 0, 0)

    async def test_that_give_something_tell_their_recipients_by_event_and_mail(
        self, case: Case, resources: Resources
    ) -> None:
        """A friend was told of nothing: they learned that the money was gone when their capture was refused."""
        deposits = [await fund_wallet(case.databases, case.wallet, amount) for amount in (1_000, 2_000)]
        hold, of_house = await case.hold(2_500, case.friend), await case.hold(500, None)
        for deposit in deposits:
            await case.take_back(deposit)
        events = case.databases.wallet["events"].find({"wallet_id": case.friend.id}, sort=[("sequence", 1)])
        told = await events.to_list()
        assert [(one["type"], one["subject_id"], one["status"], one["data"]["taken_amount"]) for one in told] == [
            ("hold.reduced", hold.hold_id, "held", 500), ("hold.taken", hold.hold_id, "taken", 2_500),
        ]  # fmt: skip
        assert [one["sequence"] for one in told] == [1, 2]
        assert (await current(case.friend)).event_sequence == 2
        assert await case.databases.wallet["outbox"].count_documents({"subject_id": of_house.hold_id}) == 0
        mails = [mail for mail in await self.mails(case, resources) if hold.hold_id in mail.text]
        assert [mail.id for mail in mails] == [
            f"hold_notice:{hold.hold_id}:{return_id_of(deposit.id)}" for deposit in deposits
        ]
        friend = await user_repository.find(case.friend.user_id)
        assert friend is not None
        assert {mail.to for mail in mails} == {friend.email}
        assert "of 25.00 INR that was made for you, 5.00 INR is no longer held" in mails[0].text
        assert "20.00 INR is no longer held" in mails[1].text
        assert "The hold is taken." in mails[1].text

    @staticmethod
    async def mails(case: Case, resources: Resources) -> list[Mail]:
        sent: list[Mail] = []

        class Listening:
            async def send(self, mail: Mail) -> None:
                sent.append(mail)

        desk = Desk(case.ledger, resources.bank, Listening(), resources.settings, resources.databases.client)
        for _ in range(2):
            for row in await claim_rows(1_000, resources.settings, (OutboxTopic.HOLD_NOTICE,)):
                await pursue_row(row, desk)
        return sorted(sent, key=lambda mail: mail.id)

    async def test_that_are_made_while_the_bank_speaks_are_captured_by_nobody(self, case: Case) -> None:
        """Not named by the return, since they were not there when it was looked up."""
        deposit = await fund_wallet(case.databases, case.wallet, 10_000)
        find = record_repository.find_open_holds

        async def too_soon(*asked: Any, **limits: Any) -> list[tuple[str, str | None]]:
            found = await find(*asked, **limits)
            self.hold = await case.hold(10_000, case.friend)
            return found

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(record_repository, "find_open_holds", too_soon)
            await case.take_back(deposit)
        assert await case.amounts() == (0, 10_000, 10_000)
        (decided,) = await run(case.databases, case.capture(self.hold))
        # The recipient does not learn of the payer's debt.
        assert isinstance(decided.error, PayerCannotPay)
        assert not decided.error.facts
        await run(case.databases, ReleaseHold(**case.about(self.hold)))
        assert await case.amounts() == (0, 0, 0)

    async def test_that_end_while_the_bank_speaks_are_passed_over(self, case: Case) -> None:
        deposit = await fund_wallet(case.databases, case.wallet, 10_000)
        hold = await case.hold(6_000, case.friend)
        find = record_repository.find_open_holds

        async def too_late(*asked: Any, **limits: Any) -> list[tuple[str, str | None]]:
            found = await find(*asked, **limits)
            await run(case.databases, case.capture(hold))
            return found

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(record_repository, "find_open_holds", too_late)
            await case.take_back(deposit)
        assert await case.amounts() == (0, 0, 6_000)
        assert (await self.record(hold)).status is HoldStatus.CAPTURED

    async def test_and_their_capture_at_once_have_one_winner(self, case: Case) -> None:
        for _ in range(3):
            deposit = await fund_wallet(case.databases, case.wallet, 1_000)
            hold = await case.hold(1_000, case.friend)
            before = (await current(case.friend)).available
            capture = run(case.databases, case.capture(hold))
            await asyncio.gather(case.take_back(deposit), capture)
            received = (await current(case.friend)).available - before
            _, held, owed = await case.amounts()
            assert (held, owed) == (0, received)
            # Whoever lost: what is owed is paid before the next round.
            if owed:
                await run(case.databases, case.credit(owed))
                await case.unfreeze()

    async def test_of_earlier_releases_can_be_taken_from(self, case: Case) -> None:
        deposit = await fund_wallet(case.databases, case.wallet, 1_000)
        hold = await case.hold(1_000, None)
        await case.databases.wallet["holds"].update_one({"_id": hold.hold_id}, {"$unset": {"takings": ""}})
        await case.take_back(deposit)
        assert await case.amounts() == (0, 0, 0)


class TestWithdrawals:
    """Of 10,000 that came in, 6,000 are on their way out when the bank takes all of it back."""

    @staticmethod
    async def _blocked(case: Case) -> tuple[Operation, Operation]:
        deposit = await fund_wallet(case.databases, case.wallet, 10_000)
        asked = await change(case.databases, withdrawal_of(case.wallet, 6_000))
        await freeze(case.databases, case.wallet, await case.admin())
        return deposit, await change(case.databases, asking_of(asked))

    async def test_that_are_blocked_are_not_even_released_by_force(self, case: Case) -> None:
        deposit, blocked = await self._blocked(case)
        await case.take_back(deposit)
        release = release_of(blocked, await case.admin(), is_forced=True)
        (refused,) = await run(case.databases, release)
        assert isinstance(refused.error, WalletOwes)
        assert await case.amounts() == (0, 6_000, 6_000)

    async def test_that_were_released_by_force_before_are_blocked_again(self, case: Case) -> None:
        deposit, blocked = await self._blocked(case)
        released = await change(case.databases, release_of(blocked, await case.admin(), is_forced=True))
        await case.take_back(deposit)
        again = await change(case.databases, asking_of(released))
        # The release was despite the freeze before, not despite the return's.
        assert (again.status, again.failure_code) == (OperationStatus.BLOCKED, "wallet_frozen")
        await run(case.databases, blocked_cancellation_of(again, await case.admin()))
        assert await case.amounts() == (0, 0, 0)

    async def test_of_a_wallet_that_owes_without_being_frozen_do_not_go_out(self, case: Case) -> None:
        """As one does whose return an earlier release left to a person, and which was thawed meanwhile."""
        deposit = await fund_wallet(case.databases, case.wallet, 10_000)
        asked = await change(case.databases, withdrawal_of(case.wallet, 6_000))
        await case.take_back(deposit)
        thawed = {"$set": {"status": "active", "freeze": None}}
        await case.databases.wallet["wallets"].update_one({"_id": case.wallet.id}, thawed)
        operation = await change(case.databases, asking_of(asked))
        assert (operation.status, operation.failure_code) == (OperationStatus.BLOCKED, "wallet_owes")


class TestAClosedWallet:
    async def test_is_reopened_shut_to_take_what_comes_back_to_it(self, case: Case) -> None:
        deposit = await fund_wallet(case.databases, case.wallet, 1_000)
        payout = await change(case.databases, settlement_of(await change(case.databases, withdrawal_of(case.wallet))))
        await case.close()
        for returned in (payout, deposit):
            assert (await case.take_back(returned)).trouble == "wallet_closed"
        wallet = await case.reopen()
        assert (wallet.status, wallet.freeze) == (WalletStatus.FROZEN, Freeze.OUT)
        with pytest.raises(WalletOwes):
            await case.unfreeze()
        for returned in (payout, deposit):
            await case.collect(returned)
            assert (await case.returned(returned)).status is ReturnStatus.SUCCESS
        assert await case.amounts() == (0, 0, 0)
        thawed = await case.unfreeze()
        assert (thawed.status, thawed.open_operations) == (WalletStatus.ACTIVE, 0)

    async def test_stays_shut_for_a_return_that_comes_while_an_admin_unfreezes_it(self, case: Case) -> None:
        deposit = await fund_wallet(case.databases, case.wallet, 1_000)
        await case.spend(1_000)
        await case.close()
        execute = Ledger.execute

        async def too_late(ledger: Ledger, command: Command) -> Decided:
            patch.undo()
            await case.take_back(deposit)
            await case.reopen()
            return await execute(ledger, command)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Ledger, "execute", too_late)
            with pytest.raises(WalletOwes) as refusal:
                await case.unfreeze()
        assert refusal.value.facts["owed"] == 1_000
        assert (await current(case.wallet)).freeze is Freeze.OUT

    async def test_stays_shut_for_a_return_however_many_older_ones_wait_to_come_in(
        self, case: Case, admin: Admin
    ) -> None:
        payout = await self._paid_out(case)
        deposit = await fund_wallet(case.databases, case.wallet, 1_000)
        await case.spend(1_000)
        await case.close()
        waiting = await case.take_back(payout)
        copies = [waiting._replace(id=f"rtn_{number:032}", operation_id=f"wdr_{number:032}") for number in range(100)]
        async with case.databases.client.start_session() as session:
            await record_repository.insert_many(copies, session=session)
        await case.take_back(deposit)
        await case.reopen()
        with pytest.raises(WalletOwes):
            await case.unfreeze()
        admin[case.databases.wallet.name]["returns"].delete_many({"_id": {"$in": [copy.id for copy in copies]}})
        await case.collect(deposit)
        await fund_wallet(case.databases, case.wallet, 1_000)
        assert (await case.unfreeze()).status is WalletStatus.ACTIVE

    @staticmethod
    async def _paid_out(case: Case) -> Operation:
        await fund_wallet(case.databases, case.wallet, 1_000)
        return await change(case.databases, settlement_of(await change(case.databases, withdrawal_of(case.wallet))))


class TestPoints:
    """A deposit of 10,000 earns 100 of them."""

    async def purse(self, case: Case) -> Wallet:
        user = await User.get(case.wallet.user_id)
        assert user is not None
        return await make_wallet(case.databases, user, currency=POINTS)

    async def earn(self, case: Case, deposit: Operation) -> None:
        command = EarnPoints(
            now=utc_now(),
            transaction_id=new_id(Prefix.TRANSACTION),
            operation_id=deposit.id,
            user_id=deposit.user_id,
            entry_id=new_id(Prefix.ENTRY),
        )
        await run(case.databases, command, policy=_EARNING)

    async def deposit(self, case: Case) -> Operation:
        """With its word in the outbox that it may earn points."""
        asked = await change(case.databases, deposit_of(case.wallet, 10_000))
        (decided,) = await run(case.databases, settlement_of(asked), policy=_EARNING)
        assert isinstance(decided.record, Operation)
        return decided.record

    async def test_go_with_the_deposit_that_earned_them(self, case: Case) -> None:
        purse, deposit = await self.purse(case), await self.deposit(case)
        await self.earn(case, deposit)
        assert (await current(purse)).available == 100
        await case.take_back(deposit)
        after = await current(purse)
        assert (after.available, after.owed, after.open_operations, after.status) == (0, 0, 0, "active")
        returned = await record_repository.find(points_return_id_of(deposit.id), Return)
        assert returned is not None
        assert (returned.type, returned.status, returned.amount) == ("points", "success", 100)

    async def test_that_were_spent_are_owed_and_paid_by_the_next_ones(self, case: Case) -> None:
        purse, deposit = await self.purse(case), await self.deposit(case)
        await self.earn(case, deposit)
        spent = case.credit(70, wallet_id=purse.id, currency=POINTS, type=AdjustmentType.DEBIT)
        await run(case.databases, spent)
        await case.take_back(deposit)
        after = await current(purse)
        assert (after.available, after.owed, after.open_operations) == (0, 70, 1)
        await self.earn(case, await self.deposit(case))
        after = await current(purse)
        assert (after.available, after.owed, after.open_operations) == (30, 0, 0)

    async def test_that_are_not_credited_yet_never_are(self, case: Case) -> None:
        purse, deposit = await self.purse(case), await self.deposit(case)
        outbox = case.databases.wallet["outbox"]
        assert await outbox.count_documents({"subject_id": deposit.id}) == 1
        await case.take_back(deposit)
        assert await outbox.count_documents({"subject_id": deposit.id}) == 0
        await self.earn(case, deposit)
        assert (await current(purse)).available == 0

    async def test_that_are_credited_while_the_bank_speaks_are_taken_as_well(self, case: Case) -> None:
        purse = await self.purse(case)
        for _ in range(3):
            deposit = await self.deposit(case)
            await asyncio.gather(self.earn(case, deposit), case.take_back(deposit))
            after = await current(purse)
            assert (after.available, after.owed) == (0, 0)


class TestAWalletOfAnEarlierRelease:
    async def test_has_no_such_fields_and_can_owe(self, case: Case) -> None:
        deposit = await fund_wallet(case.databases, case.wallet, 1_000)
        await case.spend(400)
        await case.databases.wallet["wallets"].update_one(
            {"_id": case.wallet.id}, {"$unset": {"owed": "", "debts": ""}}
        )
        await case.take_back(deposit)
        assert await case.amounts() == (0, 0, 400)


async def test_a_deposit_that_was_asked_for_before_pays_when_it_settles(case: Case) -> None:
    deposit = await fund_wallet(case.databases, case.wallet, 1_000)
    await case.spend(1_000)
    coming = await change(case.databases, deposit_of(case.wallet, 600))
    await case.take_back(deposit)
    await change(case.databases, settlement_of(coming))
    assert await case.amounts() == (0, 0, 400)
