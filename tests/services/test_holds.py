"""The end of holds by the worker, and what happens when several want to end one at once."""

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from service.database import Databases
from service.domain.clock import utc_now
from service.domain.holds import Hold, HoldStatus
from service.domain.identifiers import Prefix, new_id
from service.domain.outbox import OutboxRow, OutboxTopic, outbox_row
from service.domain.policy import Policy
from service.domain.transfers import Transfer
from service.domain.wallets import Wallet
from service.errors import HoldExpired, IllegalTransition
from service.ledger.commands import Command
from service.ledger.committer import Ledger
from service.ledger.holds import CaptureHold, ExpireHold, ReleaseHold, RequestHold
from service.repositories import records as record_repository
from service.services.outbox import pursue_row
from service.services.settlement import Desk
from service.startup import Resources
from tests.factories import challenge_until, current, make_account, make_funded_wallet, run, transfer_of


@pytest.fixture
async def ledgers(databases: Databases) -> AsyncIterator[list[Ledger]]:
    """Two, as two processes have them."""
    ledgers = [
        Ledger(
            databases.client,
            policy=Policy(),
            batch_limit=10,
            queue_limit=100,
            patience_s=10,
            on_committed=lambda _committed: None,
        )
        for _ in range(2)
    ]
    for ledger in ledgers:
        ledger.start()
    yield ledgers
    for ledger in ledgers:
        await ledger.close()


def desk_of(resources: Resources) -> Desk:
    client = resources.databases.client
    return Desk(resources.ledger, resources.bank, resources.mailbox, resources.settings, client)


class Scene:
    """A hold of 100 from a wallet with 1,000, with some time left."""

    def __init__(self, databases: Databases, wallet: Wallet, recipient: Wallet, hold: Hold) -> None:
        self.databases, self.wallet, self.recipient, self.hold = databases, wallet, recipient, hold

    @classmethod
    async def set(cls, databases: Databases, left: timedelta = timedelta(minutes=1)) -> "Scene":
        wallet = await make_funded_wallet(databases, 1_000)
        recipient = (await make_account(databases)).wallet
        command = RequestHold(
            now=utc_now(),
            transaction_id=new_id(Prefix.TRANSACTION),
            user_id=wallet.user_id,
            token_version=None,
            hold_id=new_id(Prefix.HOLD),
            wallet_id=wallet.id,
            to_wallet_id=recipient.id,
            amount=100,
            currency="INR",
            lifetime=left,
            category=None,
            description=None,
            metadata={},
            entry_id=new_id(Prefix.ENTRY),
        )
        (decided,) = await run(databases, command)
        assert isinstance(decided.record, Hold)
        return cls(databases, wallet, recipient, decided.record)

    def _about(self, now: datetime) -> dict[str, Any]:
        return {
            "now": now,
            "transaction_id": new_id(Prefix.TRANSACTION),
            "hold_id": self.hold.id,
            "wallet_id": self.wallet.id,
            "release_entry_id": new_id(Prefix.ENTRY),
        }

    def capture(self, now: datetime, amount: int | None = None) -> CaptureHold:
        return CaptureHold(
            **self._about(now),
            **self._by_recipient(),
            named_wallet_id=self.recipient.id,
            to_wallet_id=None,
            amount=amount,
            out_entry_id=new_id(Prefix.ENTRY),
            in_entry_id=new_id(Prefix.ENTRY),
        )

    def release(self, now: datetime) -> ReleaseHold:
        return ReleaseHold(**self._about(now), **self._by_recipient())

    def _by_recipient(self) -> dict[str, Any]:
        return {
            "user_id": self.recipient.user_id,
            "token_version": None,
            "acts_for_house": False,
            "audit_event_id": new_id(Prefix.AUDIT_EVENT),
            "reason": None,
        }

    def expire(self, now: datetime) -> ExpireHold:
        return ExpireHold(**self._about(now))

    def row(self) -> OutboxRow:
        return outbox_row(OutboxTopic.EXPIRY, self.hold.id, "req", self.hold.created_at, self.hold.expires_at)

    async def now(self) -> Hold:
        found = await record_repository.find(self.hold.id, Hold)
        assert found is not None
        return found

    async def entries(self) -> list[str]:
        found = await self.databases.wallet["transaction_logs"].find({"reference": self.hold.id}).to_list()
        return sorted(entry["type"] for entry in found)

    async def reminders(self) -> int:
        return await self.databases.wallet["outbox"].count_documents({"subject_id": self.hold.id})

    async def balances(self) -> tuple[int, int, int]:
        payer, recipient = await current(self.wallet), await current(self.recipient)
        return payer.available, payer.held, recipient.available


class TestTheWorker:
    async def test_gives_back_what_was_not_captured_in_time_and_once_only(
        self, databases: Databases, resources: Resources
    ) -> None:
        scene = await Scene.set(databases, left=timedelta(seconds=-1))
        desk = desk_of(resources)
        assert await scene.reminders() == 1
        # Two workers at once, and a third one whose row was not deleted when it died.
        await asyncio.gather(pursue_row(scene.row(), desk), pursue_row(scene.row(), desk))
        await pursue_row(scene.row(), desk)
        assert (await scene.now()).status is HoldStatus.EXPIRED
        assert await scene.entries() == ["HOLD", "HOLD_RELEASE"]
        assert (await scene.balances(), await scene.reminders()) == ((1_000, 0, 0), 0)

    async def test_puts_a_row_off_whose_time_has_not_come_and_counts_no_failure(
        self, databases: Databases, resources: Resources
    ) -> None:
        """Its time was brought forward, or was told by a clock that has been set back since."""
        scene = await Scene.set(databases)
        rows = databases.wallet["outbox"]
        await rows.update_one({"subject_id": scene.hold.id}, {"$set": {"due_at": utc_now()}})
        await pursue_row(scene.row(), desk_of(resources))
        assert ((await scene.now()).status, await scene.reminders()) == (HoldStatus.HELD, 1)
        row = await rows.find_one({"subject_id": scene.hold.id})
        assert row is not None
        assert (row["due_at"], row["visits"]) == (scene.hold.expires_at, 0)

    async def test_puts_a_payment_off_that_can_still_be_answered(
        self, databases: Databases, resources: Resources
    ) -> None:
        wallet, other = await make_funded_wallet(databases, 1_000), (await make_account(databases)).wallet
        challenge = challenge_until(utc_now() + timedelta(minutes=1))
        (asked,) = await run(databases, transfer_of(wallet, other, 100, challenge=challenge))
        assert isinstance(asked.record, Transfer)
        rows, expiry = databases.wallet["outbox"], {"subject_id": asked.record.id, "topic": OutboxTopic.EXPIRY}
        await rows.update_one(expiry, {"$set": {"due_at": utc_now()}})
        await pursue_row(outbox_row(OutboxTopic.EXPIRY, asked.record.id, None, utc_now()), desk_of(resources))
        row = await rows.find_one(expiry)
        assert row is not None
        assert (row["due_at"], row["visits"]) == (challenge.expires_at, 0)
        assert (await current(wallet)).held == 100

    async def test_does_not_stumble_over_a_row_without_a_hold(self, resources: Resources) -> None:
        row = outbox_row(OutboxTopic.EXPIRY, "hld_none", None, utc_now())
        await pursue_row(row, desk_of(resources))


class TestRaces:
    @pytest.mark.parametrize("attempt", range(20))
    async def test_capture_release_and_expiry_at_once_have_one_winner(
        self, databases: Databases, ledgers: list[Ledger], attempt: int
    ) -> None:
        scene = await Scene.set(databases)
        # Two processes' clocks: for those who ask there is a moment left, for the worker there is none.
        before, after = scene.hold.expires_at - timedelta(seconds=1), scene.hold.expires_at
        commands: list[Command] = [
            scene.capture(before),
            scene.capture(before, 30),
            scene.release(before),
            scene.release(before),
            scene.expire(after),
            scene.expire(after),
        ]
        random.Random(attempt).shuffle(commands)  # noqa: S311 no secret
        outcomes = await asyncio.gather(
            *(ledgers[number % 2].execute(command) for number, command in enumerate(commands)), return_exceptions=True
        )
        won = [
            command
            for command, outcome in zip(commands, outcomes, strict=True)
            if not isinstance(outcome, BaseException) and not isinstance(command, ExpireHold)
        ]
        for outcome in outcomes:
            assert not isinstance(outcome, BaseException) or isinstance(outcome, (IllegalTransition, HoldExpired))
        hold, entries = await scene.now(), await scene.entries()
        match won:
            case []:
                assert (hold.status, entries) == (HoldStatus.EXPIRED, ["HOLD", "HOLD_RELEASE"])
            case [ReleaseHold()]:
                assert (hold.status, entries) == (HoldStatus.RELEASED, ["HOLD", "HOLD_RELEASE"])
            case [CaptureHold(amount=None)]:
                assert (hold.status, entries) == (HoldStatus.CAPTURED, ["HOLD", "HOLD_CAPTURE", "TRANSFER_IN"])
            case [CaptureHold()]:
                assert hold.status is HoldStatus.CAPTURED
                assert entries == ["HOLD", "HOLD_CAPTURE", "HOLD_RELEASE", "TRANSFER_IN"]
            case _:
                pytest.fail(f"several winners: {won}")
        taken = hold.captured_amount
        assert await scene.balances() == (1_000 - taken, 0, taken)
        wallet = await current(scene.wallet)
        assert (wallet.open_operations, wallet.usage.day_amount, await scene.reminders()) == (0, taken, 0)
