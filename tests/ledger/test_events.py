"""Events as the ledger writes them: one for each change of a status, without gaps, told to whom it concerns."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from service.database import Databases
from service.domain.clock import utc_now
from service.domain.events import Event, event_view
from service.domain.identifiers import Prefix, new_id
from service.domain.operations import operation_view
from service.domain.transfers import Transfer
from service.domain.wallets import Freeze, Wallet
from service.ledger.batch import Decided
from service.ledger.orders import FlagForReview, NoteAttempt
from service.ledger.wallet_life import CloseWallet, FreezeWallet, ReopenWallet, UnfreezeWallet
from service.repositories import events as event_repository
from service.repositories import records as record_repository
from service.repositories.events import EventFilter
from tests.factories import (
    batch_of,
    challenge_until,
    change,
    change_of,
    confirmation_of,
    conversion_of,
    current,
    deposit_of,
    failure_of,
    make_account,
    make_funded_wallet,
    make_quote,
    make_saver,
    make_savers,
    make_user,
    make_voucher,
    make_wallet,
    redemption_of,
    run,
    settlement_of,
    transfer_of,
    withdrawal_of,
)
from tests.ledger.conftest import TwoLedgers

_EVENTS_OF_FUNDING = 3


async def told(wallet: Wallet, after_sequence: int = 0) -> list[Event]:
    return await event_repository.find_after(
        wallet.user_id, EventFilter(wallet.id), after_sequence=after_sequence, limit=1000
    )


def _words(events: Sequence[Event]) -> list[tuple[str, str | None]]:
    return [(event.type.value, event.previous_status) for event in events]


def _life(wallet: Wallet) -> dict[str, Any]:
    return {
        "now": utc_now(),
        "transaction_id": new_id(Prefix.TRANSACTION),
        "audit_event_id": new_id(Prefix.AUDIT_EVENT),
        "user_id": wallet.user_id,
        "token_version": None,
        "wallet_id": wallet.id,
        "reason": "Asked for",
    }


class TestOperations:
    async def test_each_status_of_a_deposit_is_one_with_the_one_before(self, databases: Databases) -> None:
        wallet = (await make_account(databases)).wallet
        deposit = await change(databases, deposit_of(wallet, 700))
        await change(databases, change_of(NoteAttempt, deposit))
        settled = await change(databases, settlement_of(deposit))
        events = await told(wallet)
        assert _words(events) == [
            ("deposit.pending", None),
            ("deposit.processing", "pending"),
            ("deposit.succeeded", "processing"),
        ]
        assert [event.sequence for event in events] == [1, 2, 3]
        assert events[-1].data == operation_view(settled)
        assert {(event.user_id, event.subject_id) for event in events} == {(wallet.user_id, deposit.id)}

    async def test_a_second_attempt_is_none_and_writes_no_wallet(self, databases: Databases) -> None:
        wallet = (await make_account(databases)).wallet
        deposit = await change(databases, deposit_of(wallet, 700))
        await change(databases, change_of(NoteAttempt, deposit))
        before = await current(wallet)
        await change(databases, change_of(NoteAttempt, deposit))
        assert (await current(wallet)).event_sequence == before.event_sequence == 2
        assert len(await told(wallet)) == 2

    async def test_a_withdrawal_that_comes_to_nothing_and_one_for_a_person(self, databases: Databases) -> None:
        wallet = await make_funded_wallet(databases, 1_000)
        failed = await change(databases, withdrawal_of(wallet, 100))
        await change(databases, failure_of(failed))
        reviewed = await change(databases, withdrawal_of(wallet, 100))
        said = {"failure_code": "bank_outcome_unknown", "failure_message": "Silent"}
        await change(databases, change_of(FlagForReview, reviewed, **said))
        assert _words(await told(wallet, _EVENTS_OF_FUNDING)) == [
            ("withdrawal.pending", None),
            ("withdrawal.processing", "pending"),
            ("withdrawal.failed", "processing"),
            ("withdrawal.pending", None),
            ("withdrawal.processing", "pending"),
            ("withdrawal.requires_review", "processing"),
        ]

    async def test_what_is_refused_is_none(self, databases: Databases) -> None:
        wallet = (await make_account(databases)).wallet
        await run(databases, withdrawal_of(wallet, 100))
        assert (await told(wallet), (await current(wallet)).event_sequence) == ([], 0)

    async def test_several_changes_in_one_transaction_are_several(self, databases: Databases) -> None:
        wallet = await make_funded_wallet(databases, 1_000)
        request = withdrawal_of(wallet, 100)
        begin = NoteAttempt(
            now=utc_now(),
            transaction_id=new_id(Prefix.TRANSACTION),
            operation_id=request.operation_id,
            wallet_id=wallet.id,
        )
        await run(databases, request, begin)
        assert _words(await told(wallet, _EVENTS_OF_FUNDING)) == [
            ("withdrawal.pending", None),
            ("withdrawal.processing", "pending"),
        ]


class TestTwoSides:
    async def test_a_transfer_is_told_to_both_each_in_their_own_wallet(self, databases: Databases) -> None:
        sender, recipient = await make_funded_wallet(databases, 500), (await make_account(databases)).wallet
        await run(databases, transfer_of(sender, recipient, 200))
        (sent,), (received,) = await told(sender, _EVENTS_OF_FUNDING), await told(recipient)
        assert (sent.type, received.type) == ("transfer.succeeded", "transfer.received")
        assert (received.user_id, received.sequence, received.previous_status) == (recipient.user_id, 1, None)
        assert sent.data == received.data
        # What the other one has left is nobody's business.
        assert not {"from_wallet", "to_wallet", "available", "balance"} & set(received.data)

    async def test_the_recipient_hears_of_a_transfer_once_it_is_paid(self, databases: Databases) -> None:
        sender, recipient = await make_funded_wallet(databases, 500), (await make_account(databases)).wallet
        challenge = challenge_until(utc_now() + timedelta(minutes=5))
        (decided,) = await run(databases, transfer_of(sender, recipient, 200, challenge=challenge))
        waiting = await _transfer_of(databases, sender)
        assert decided.answer is not None
        assert await told(recipient) == []
        await run(databases, confirmation_of(waiting))
        assert _words(await told(sender, _EVENTS_OF_FUNDING)) == [
            ("transfer.requires_approval", None),
            ("transfer.succeeded", "requires_approval"),
        ]
        assert _words(await told(recipient)) == [("transfer.received", "requires_approval")]

    async def test_of_a_batch_that_is_refused_whole_nobody_hears(self, databases: Databases) -> None:
        sender, recipient = await make_funded_wallet(databases, 500), (await make_account(databases)).wallet
        parts = [transfer_of(sender, recipient, amount) for amount in (100, 900)]
        await run(databases, batch_of(parts, is_all_or_nothing=True))
        assert (len(await told(sender)), await told(recipient)) == (_EVENTS_OF_FUNDING, [])
        again = [transfer_of(sender, recipient, amount) for amount in (100, 900)]
        await run(databases, batch_of(again, is_all_or_nothing=False))
        assert _words(await told(recipient)) == [("transfer.received", None)]

    async def test_a_conversion_is_told_in_both_wallets(self, databases: Databases) -> None:
        account = await make_account(databases, balance=10_000)
        dollars = await make_wallet(databases, account.user, currency="USD")
        await run(databases, conversion_of(await make_quote(databases, account.user)))
        assert _words(await told(account.wallet, _EVENTS_OF_FUNDING)) == [("conversion.succeeded", None)]
        assert _words(await told(dollars)) == [("conversion.received", None)]

    async def test_a_redemption_is_told_without_its_code(self, databases: Databases) -> None:
        saver = await make_saver(databases, 1_000)
        before = (await current(saver.wallet)).event_sequence
        await run(databases, redemption_of(saver, await make_voucher(databases, cost=100)))
        (event,) = await told(saver.wallet, before)
        assert (event.type, event.data["code"]) == ("redemption.succeeded", None)

    async def test_of_an_adjustment_its_owner_sees_what_the_log_shows(self, databases: Databases) -> None:
        (saver,) = await make_savers(databases, 1, 1_000, are_gifts=True)
        (gift,) = [event for event in await told(saver.wallet) if event.type == "adjustment.succeeded"]
        assert not {"reason", "requested_by", "decided_by", "metadata", "description"} & set(gift.data)


class TestWalletLife:
    async def test_frozen_frozen_otherwise_unfrozen_closed_and_reopened(self, databases: Databases) -> None:
        wallet = (await make_account(databases)).wallet
        await run(databases, FreezeWallet(**_life(wallet), freeze=Freeze.OUT))
        await run(databases, FreezeWallet(**_life(wallet), freeze=Freeze.BOTH))
        admin = await make_user(databases, roles=["admin"])
        await run(databases, UnfreezeWallet(**_life(wallet) | {"user_id": admin.id}))
        await run(databases, CloseWallet(**_life(wallet), is_admin=False))
        await run(databases, ReopenWallet(**_life(wallet) | {"user_id": admin.id}))
        events = await told(wallet)
        assert _words(events) == [
            ("wallet.frozen", "active"),
            ("wallet.frozen", "frozen"),
            ("wallet.unfrozen", "frozen"),
            ("wallet.closed", "active"),
            ("wallet.reopened", "closed"),
        ]
        assert [event.data["frozen"] for event in events] == ["out", "both", None, None, None]


class TestTheNumbers:
    async def test_two_processes_on_one_wallet_leave_no_gap_and_no_number_twice(
        self, ledgers: TwoLedgers, databases: Databases
    ) -> None:
        wallet = await make_funded_wallet(databases, 1_000)
        asked = [withdrawal_of(wallet, 1) for _ in range(40)]
        outcomes = await asyncio.gather(
            *(ledger.execute(command) for ledger, command in zip(tuple(ledgers) * 20, asked, strict=True))
        )
        assert all(isinstance(one, Decided) for one in outcomes)
        events = await told(wallet)
        assert [event.sequence for event in events] == list(range(1, _EVENTS_OF_FUNDING + 41))
        assert (await current(wallet)).event_sequence == len(events)
        assert {event.subject_id for event in events[_EVENTS_OF_FUNDING:]} == {one.operation_id for one in asked}

    async def test_a_wallet_of_before_begins_with_one(self, databases: Databases) -> None:
        wallet = (await make_account(databases)).wallet
        await databases.wallet["wallets"].update_one({"_id": wallet.id}, {"$unset": {"event_sequence": ""}})
        await change(databases, deposit_of(wallet, 5))
        assert [event.sequence for event in await told(wallet)] == [1]
        assert (await current(wallet)).event_sequence == 1

    async def test_they_are_due_until_they_are_dispatched_and_then_have_an_end(self, databases: Databases) -> None:
        wallet = (await make_account(databases)).wallet
        await change(databases, deposit_of(wallet, 5))
        collection = databases.wallet["events"]
        row = await collection.find_one({"wallet_id": wallet.id})
        assert row is not None
        assert row["due_at"] == row["created_at"]
        assert "expires_at" not in row
        await event_repository.mark_dispatched([row["_id"]], timedelta(days=30))
        after = await collection.find_one({"_id": row["_id"]})
        assert after is not None
        assert after["expires_at"] == row["created_at"] + timedelta(days=30)
        assert "due_at" not in after
        assert event_view((await told(wallet))[0])["id"] == row["_id"]


async def _transfer_of(databases: Databases, sender: Wallet) -> Transfer:
    row = await databases.wallet["transfers"].find_one({"wallet_id": sender.id})
    assert row is not None
    found = await record_repository.find(row["_id"], Transfer)
    assert found is not None
    return found
