"""check-ledger: a sound ledger passes, and each kind of damage is found and named.

The damage is done by the administrator past every validator: the service's own user could not do most of it.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from bson.decimal128 import Decimal128
from bson.int64 import Int64
from pymongo.asynchronous.collection import AsyncCollection

from scripts.answer_rules import COLLECTIONS, named_by, prefix_of
from scripts.check_ledger import Breach, check_ledger
from scripts.checkpoint_rules import check_tile
from scripts.ledger_inspection import inspect
from scripts.ledger_reader import Reader
from scripts.ledger_rules import Booked, recomputed_hash
from seed.deposits import StartingBalance, deposit_once
from service.database import Databases, bind_documents, connect, set_up
from service.documents import User
from service.domain.adjustments import AdjustmentType
from service.domain.clock import to_rfc3339, utc_now
from service.domain.idempotency import IdempotencyClaim
from service.domain.identifiers import Prefix, first_id_at, new_id
from service.domain.limits import Limits, Usage
from service.domain.operations import Operation, OperationStatus
from service.domain.outbox import OutboxTopic
from service.domain.policy import Policy
from service.domain.rewards import EarningEvent, EarningRule
from service.domain.transfers import Transfer
from service.domain.wallets import Wallet
from service.gateways.simulated_bank import report_of
from service.ledger.commands import Command
from service.ledger.committer import Ledger
from service.ledger.orders import FlagForReview
from service.repositories import bank_orders as journal
from service.repositories import records as record_repository
from service.services.account_sums import close_hours
from service.services.adjustments import AdjustmentOrder, request_adjustment
from service.services.approvals import cancel_payment
from service.services.bank_callbacks import (
    CallbackPayload,
    apply_callback,
    claim_callbacks,
    read_payload,
    receive_callback,
)
from service.services.callers import Caller
from service.services.checkpoints import signing_key, take_checkpoint
from service.services.conversions import ConversionOrder, convert
from service.services.deposits import request_deposit
from service.services.holds import CaptureOrder, HoldOrder, capture_hold, request_hold
from service.services.orders import Order, Requester
from service.services.outbox import BANK_TOPICS, claim_rows
from service.services.quotes import QuoteOrder, make_quote
from service.services.records import get_record
from service.services.reversals import reverse
from service.services.rewards import earn_points
from service.services.settlement import Desk, pursue_order
from service.services.transfers import TransferOrder, request_transfer
from service.services.user_limits import override_user_limits, set_time_zone
from service.services.wallets import get_balances
from service.services.withdrawals import request_withdrawal
from service.settings import Settings
from service.startup import Resources, open_resources
from tests.commands import run_module
from tests.factories import (
    asking_of,
    deposit_of,
    make_user,
    make_wallet,
    settlement_of,
    take_list_checkpoint,
    withdrawal_of,
)
from tests.servers import Servers, make_settings

Row = dict[str, Any]


class Books(NamedTuple):
    """A database with something of everything in it, as the service's user sees it and as the administrator does."""

    settings: Settings
    databases: Databases
    admin: Databases

    def named(self, name: str) -> AsyncCollection[Row]:
        return self.admin.bank["orders"] if name == "orders" else self.admin.wallet[name]

    async def one(self, name: str, **condition: Any) -> Row:
        found = await self.named(name).find_one(condition, sort=[("_id", 1)])
        assert found is not None, f"{name} has none with {condition}"
        return found

    async def put(self, name: str, row: Row) -> None:
        """Over what has its id, past the validator."""
        await self.named(name).replace_one({"_id": row["_id"]}, row, upsert=True, bypass_document_validation=True)

    async def remove(self, name: str, row: Row) -> None:
        await self.named(name).delete_one({"_id": row["_id"]})


_COLLECTIONS = (
    "wallets", "transaction_logs", "deposits", "withdrawals", "transfers", "outbox", "idempotency_keys",
    "holds", "adjustments", "reversals", "conversions", "returns", "incidents",
    "bank_callbacks", "orders", "account_sums", "checkpoints", "checkpoint_tiles", "dead_letters", "events",
    "account_corrections", "audit_events", "quotes", "user_limits", "house_positions",
    "day_sums",
)  # fmt: skip
# As at the command line.
_GRACE = timedelta(hours=1)


@pytest.fixture(scope="module")
async def sound(servers: Servers, resources: Resources) -> AsyncIterator[Books]:
    """A database of its own; Beanie, of which a process has one, goes back to the other tests' afterwards."""
    settings = make_settings(servers)
    assert settings.mongo_admin_url is not None
    await set_up(settings)
    try:
        async with open_resources(settings) as own:
            await _live(own)
    finally:
        await bind_documents(resources.databases)
    databases = connect(settings.mongo_url.get_secret_value(), settings)
    admin = connect(settings.mongo_admin_url.get_secret_value(), settings)
    yield Books(settings, databases, admin)
    await databases.client.close()
    await admin.client.close()


@pytest.fixture
async def books(sound: Books) -> AsyncIterator[Books]:
    """Whatever a test breaks is as it was afterwards."""
    kept = {name: await sound.named(name).find().to_list() for name in _COLLECTIONS}
    yield sound
    for name, rows in kept.items():
        if await sound.named(name).find().to_list() != rows:
            await sound.named(name).delete_many({})
            if rows:
                await sound.named(name).insert_many(rows)


async def _live(resources: Resources) -> None:
    """Two users, an operation in each state that there is, callbacks that were applied and one that still waits."""
    client = resources.databases.client
    desk = Desk(resources.ledger, resources.bank, resources.mailbox, resources.settings, client)
    first, second = [await make_user(resources.databases, email=f"{name}@example.com") for name in ("first", "second")]
    for user in (first, second):
        await make_wallet(resources.databases, user)
    await make_wallet(resources.databases, first, currency="USD")
    balances = [StartingBalance(user.id, 10_000, "INR") for user in (first, second)]
    await deposit_once(balances, resources.ledger, resources.settings)

    async def ask(operation: str, ending: str, amount: int) -> str:
        order = Order(amount, "INR", f"account-{ending}", None, None, {})
        claim = IdempotencyClaim(f"{first.id}:{operation}-{ending}-{amount}", "f" * 64, utc_now() + timedelta(days=1))
        asker = Requester(first.id, None)
        if operation == "deposit":
            answer = await request_deposit(resources.ledger, asker, order, claim, None, resources.settings)
        else:
            answer = await request_withdrawal(resources.ledger, asker, order, claim, None, resources.settings)
        assert answer.status_code == 202
        return str(json.loads(answer.body)["id"])

    await ask("withdrawal", "success", 1_000)
    await ask("withdrawal", "decline", 2_000)
    await ask("deposit", "decline", 500)
    unanswered = await ask("withdrawal", "unavailable", 300)
    await _pursue_due_orders(desk)
    await _let_the_bank_speak(resources)
    # The first one is of the first version, as before an upgrade.
    await take_list_checkpoint(resources.databases, resources.settings)
    await take_checkpoint(resources.databases.client, resources.settings)
    held = await record_repository.find(unanswered, Operation)
    assert held is not None
    await resources.ledger.change(
        FlagForReview(
            now=utc_now(),
            transaction_id="txn_review",
            operation_id=held.id,
            wallet_id=held.wallet_id,
            failure_code="bank_outcome_unknown",
            failure_message="The bank gave no outcome",
        ),
        Operation,
    )
    await ask("withdrawal", "success", 400)
    await ask("deposit", "success", 600)
    await _pursue_due_orders(desk)
    await ask("withdrawal", "success", 50)
    await ask("deposit", "success", 60)
    claim = IdempotencyClaim(f"{first.id}:cancel", "f" * 64, utc_now() + timedelta(days=1))
    canceled = await ask("withdrawal", "success", 70)
    assert (await cancel_payment(resources.ledger, Requester(first.id, None), canceled, claim, None)).status_code == 200
    third = await make_user(resources.databases, email="third@example.com")
    await make_wallet(resources.databases, third)
    await _transfer(resources, first, third, 150)
    with _everything_needs_approval(resources.ledger):
        await _transfer(resources, first, third, 250)
        await ask("withdrawal", "success", 30)
    await _deal(resources)
    await _send_back(resources)
    await _block(resources)
    # The bank says it once more, and nobody has listened yet.
    paid = await resources.databases.bank["orders"].find_one({"state": "success"}, sort=[("_id", 1)])
    assert paid is not None
    await _report(paid, "msg_again", resources)
    # The hours of it all are closed, and two more.
    for hours in (2, 3):
        assert await close_hours(resources.databases.client, utc_now() + timedelta(hours=hours))
    await take_checkpoint(resources.databases.client, resources.settings)


async def _deal(resources: Resources) -> None:
    """Two more people, and one record of each kind that the bank never hears of."""
    ledger, client = resources.ledger, resources.databases.client
    payer, payee = [await make_user(resources.databases, email=f"{name}@example.com") for name in ("payer", "payee")]
    wallet = await make_wallet(resources.databases, payer)
    await make_wallet(resources.databases, payer, currency="USD")
    to = await make_wallet(resources.databases, payee)
    asker, token = Requester(payer.id, None), Caller(payer.id, ("user",), 0)

    def claim(name: str, by: User = payer) -> IdempotencyClaim:
        return IdempotencyClaim(f"{by.id}:{name}", "f" * 64, utc_now() + timedelta(days=1))

    def credit(amount: int) -> AdjustmentOrder:
        return AdjustmentOrder(AdjustmentType.CREDIT, wallet.id, amount, "INR", "For the books", None, None, {})

    await set_time_zone(ledger, asker, "Asia/Tokyo", None)
    # By somebody else: what one credits oneself waits for an admin.
    giver = Requester(payee.id, None)
    await request_adjustment(ledger, giver, credit(1_000), claim("credit", payee), None, is_admin=False)
    usual, ledger.policy = ledger.policy, Policy(adjustment_approval_above={"INR": 0})
    await request_adjustment(ledger, asker, credit(5_000), claim("large credit"), None, is_admin=True)
    ledger.policy = usual
    for amount, to_wallet_id in ((100, None), (200, to.id)):
        order = HoldOrder(wallet.id, to_wallet_id, amount, "INR", 3 * 24 * 3600, None, None, {})
        held = await request_hold(ledger, asker, order, claim(f"hold-{amount}"), None, resources.settings)
    hold_id = str(json.loads(held.body)["id"])
    await capture_hold(ledger, token, hold_id, CaptureOrder(150, None), claim("capture"), None)
    sent = TransferOrder(wallet.id, to.id, None, 50, "INR", None, None, {})
    made = await request_transfer(
        ledger, asker, sent, claim("transfer"), None, resources.settings, resources.login_guard
    )
    transfer = await get_record(json.loads(made.body)["id"], Transfer)
    # By somebody else: nobody takes back what they had sent themselves.
    await reverse(ledger, giver, transfer, "By mistake", claim("reversal", payee), None, is_forced=False)
    wish = QuoteOrder("INR", "USD", 300)
    quote = await make_quote(
        client, resources.rates, resources.settings, ledger.policy, user_id=payer.id, order=wish, request_id=None
    )
    await _count_over_all_wallets(resources, asker, claim, wallet, to)
    converted = await convert(ledger, asker, ConversionOrder(quote.id, None, None, {}), claim("conversion"), None)
    assert converted.status_code == 201, converted.body


async def _count_over_all_wallets(
    resources: Resources, asker: Requester, claim: Callable[[str], IdempotencyClaim], wallet: Wallet, to: Wallet
) -> None:
    """A limit is set, and of what counts for it one payment stands, one is canceled and a hold is captured in part."""
    ledger, settings = resources.ledger, resources.settings
    boss = await make_user(resources.databases, email="boss@example.com", roles=["user", "admin"])
    await override_user_limits(
        ledger, Requester(boss.id, None), asker.user_id, Limits(per_day=1_000), "On request", None
    )
    order = Order(20, "INR", "account-success", None, None, {})
    asked = await request_withdrawal(ledger, asker, order, claim("counted"), None, settings)
    await cancel_payment(ledger, asker, str(json.loads(asked.body)["id"]), claim("calling off"), None)
    sent = TransferOrder(wallet.id, to.id, None, 10, "INR", None, None, {})
    assert (
        await request_transfer(ledger, asker, sent, claim("counted too"), None, settings, resources.login_guard)
    ).status_code == 201
    wish = HoldOrder(wallet.id, to.id, 90, "INR", 3 * 24 * 3600, None, None, {})
    held = await request_hold(ledger, asker, wish, claim("counted hold"), None, settings)
    hold_id = str(json.loads(held.body)["id"])
    token = Caller(asker.user_id, ("user",), 0)
    await capture_hold(ledger, token, hold_id, CaptureOrder(40, None), claim("counted capture"), None)


async def _send_back(resources: Resources) -> None:
    """One more person: a withdrawal that came back, a deposit of 1000 that was taken back, of which 200 are
    owed, and a contradiction. The bank's journal has the two returns.
    """
    ledger, databases = resources.ledger, resources.databases
    person = await make_user(databases, email="sent-back@example.com")
    wallet = await make_wallet(databases, person)

    async def settle(asking: Command) -> Operation:
        decided = await ledger.execute(asking)
        assert decided.record is not None
        operation = await record_repository.find(decided.record.id, Operation)
        assert operation is not None
        await ledger.change(asking_of(operation), Operation)
        await ledger.change(settlement_of(operation), Operation)
        paid = {"at": utc_now(), "amount": Int64(operation.amount), "bank_reference": "bnk_test"}
        order = await databases.bank["orders"].find_one({"state": "success"})
        assert order is not None
        kind = "payout" if operation.id.startswith("wdr_") else "collection"
        changed = {"_id": operation.id, "kind": kind, "amount": Int64(operation.amount), "payments": [paid]}
        changed |= {"account": "bank-account-0001", "submissions": 1, "said": []}
        await databases.bank["orders"].insert_one({**order, **changed, "bank_reference": "bnk_test", "returns": []})
        return operation

    async def say(operation: Operation, **said: Any) -> None:
        payload = {"reference": operation.id, "amount": operation.amount, "currency": "INR"} | said
        await receive_callback(f"msg_{said['type']}_{operation.id}", read_payload(payload), None, resources.jobs)
        if said["type"] == "payment.returned":
            back = {"at": utc_now(), "amount": Int64(operation.amount), "bank_reference": "ret_test"}
            await databases.bank["orders"].update_one({"_id": operation.id}, {"$set": {"returns": [back]}})

    await _take_from_a_hold(resources, settle, say)
    deposit = await settle(deposit_of(wallet, 1_000))
    withdrawn = await settle(withdrawal_of(wallet, 300))
    kept = await settle(withdrawal_of(wallet, 200))
    for operation in (withdrawn, deposit):
        await say(operation, type="payment.returned", return_code="account_closed", bank_reference="ret_test")
    await say(kept, type="payment.settled", status="failed", bank_reference="bnk_test")
    for row in await claim_callbacks(1000):
        await apply_callback(row, ledger)


async def _take_from_a_hold(
    resources: Resources,
    settle: Callable[[Command], Awaitable[Operation]],
    say: Callable[..., Awaitable[None]],
) -> None:
    """One more person: of a hold of 1010, a return takes 10. The four points of its deposit go as well."""
    person = await make_user(resources.databases, email="held@example.com")
    wallet = await make_wallet(resources.databases, person)
    await settle(deposit_of(wallet, 1_000))
    ledger, settings = resources.ledger, resources.settings
    earning = EarningRule("paying in", EarningEvent.DEPOSIT, "INR", 10, 1, 100)
    usual, ledger.policy = ledger.policy, Policy(earning_rules=(earning,))
    taken_back = await settle(deposit_of(wallet, 40))
    for row in await claim_rows(1000, settings, (OutboxTopic.REWARD,)):
        if row.subject_id == taken_back.id:
            await earn_points(row, ledger, resources.databases.client)
    ledger.policy = usual
    order = HoldOrder(wallet.id, None, 1_010, "INR", None, None, None, {})
    claim = IdempotencyClaim(f"{person.id}:hold", "f" * 64, utc_now() + timedelta(days=1))
    asker = Requester(person.id, None)
    held = await request_hold(ledger, asker, order, claim, None, settings)
    assert held.status_code == 201, held.body
    await say(taken_back, type="payment.returned", return_code="chargeback", bank_reference="ret_test")


async def _block(resources: Resources) -> None:
    """A withdrawal of somebody who is deactivated before the bank gets it."""
    user = await make_user(resources.databases, email="deactivated@example.com")
    wallet = await make_wallet(resources.databases, user)
    await deposit_once([StartingBalance(user.id, 5_000, "INR")], resources.ledger, resources.settings)
    asked = await resources.ledger.change(withdrawal_of(wallet, 900, claim=None), Operation)
    await resources.databases.wallet["users"].update_one({"_id": user.id}, {"$set": {"is_active": False}})
    blocked = await resources.ledger.change(asking_of(asked), Operation)
    assert blocked.status is OperationStatus.BLOCKED


async def _transfer(resources: Resources, sender: User, to: User, amount: int) -> None:
    (wallet,) = [wallet for wallet in await get_balances(sender.id) if wallet.currency == "INR"]
    order = TransferOrder(wallet.id, None, to.email, amount, "INR", "rent", None, {})
    claim = IdempotencyClaim(f"{sender.id}:transfer-{amount}", "f" * 64, utc_now() + timedelta(days=1))
    asker = Requester(sender.id, None)
    answer = await request_transfer(
        resources.ledger, asker, order, claim, None, resources.settings, resources.login_guard
    )
    assert answer.status_code in (201, 202), answer.body


@contextmanager
def _everything_needs_approval(ledger: Ledger) -> Iterator[None]:
    usual, ledger.policy = ledger.policy, Policy(step_up_above={"INR": 0})
    yield
    ledger.policy = usual


async def _pursue_due_orders(desk: Desk) -> None:
    for row in await claim_rows(1000, desk.settings, BANK_TOPICS):
        await pursue_order(row, desk)


async def _let_the_bank_speak(resources: Resources) -> None:
    async for order in resources.databases.bank["orders"].find({"state": "accepted"}):
        await journal.execute_many([order["_id"]], utc_now())
        await _report(await journal.get(order["_id"]), f"msg_{order['_id']}", resources)
    for row in await claim_callbacks(1000):
        await apply_callback(row, resources.ledger)


async def _report(order: Row, callback_id: str, resources: Resources) -> None:
    payload = {"type": "payment.settled", "status": order["state"], **report_of(order)._asdict()}
    await receive_callback(callback_id, CallbackPayload.model_validate(payload), None, resources.jobs)
    # As the bank notes it once it was taken.
    said = {"$push": {"said": callback_id}}
    await resources.databases.bank["orders"].update_one({"_id": order["_id"]}, said)


def rules_of(breaches: Sequence[Breach]) -> set[str]:
    return {breach.rule for breach in breaches}


class TestASoundLedger:
    async def test_has_no_breach_with_an_operation_in_each_state(self, books: Books) -> None:
        states = await books.admin.wallet["withdrawals"].distinct("status")
        assert set(states) == set(OperationStatus)
        inspection = await inspect(books.databases)
        assert inspection.breaches == []
        assert dict(inspection.counts) == {
            "wallets": 11,
            "entries": 51,
            "deposits": 9,
            "withdrawals": 11,
            "transfers": 4,
            "holds": 4,
            "adjustments": 2,
            "reversals": 1,
            "conversions": 1,
            "returns": 4,
            "rewards": 1,
            "redemptions": 0,
            "orders at the bank": 13,
            "callbacks of the bank": 8,
            "idempotency records": 35,
            "closed hours": await books.named("account_sums").count_documents({}),
            "checkpoints": 3,
            "events": await books.named("events").count_documents({}),
            "incidents": 2,
            "incidents unresolved": 2,
            "user limits": 2,
            "day sums": 1,
            "portions of the house": await books.named("house_positions").count_documents({}),
        }
        total = inspection.total("INR")
        assert (total.available, total.held, total.deposited, total.withdrawn) == (22_670, 3_030, 26_200, 1_200)
        assert total.accounts == {"bank": (27_340, 2_340), "house:adjustments": (1_000, 0), "house:fx": (0, 300)}

    async def test_is_told_by_the_exit_status_with_a_table(self, books: Books, tmp_path: Path) -> None:
        ended = await run_module(books.settings, tmp_path, "scripts.check_ledger")
        assert ended.status == 0, ended.out + ended.err
        assert "every rule holds" in ended.out
        assert "226.70 INR" in ended.out
        (bank,) = [line.split() for line in ended.out.splitlines() if line.split()[:1] == ["bank"]]
        assert bank == ["bank", "273.40", "INR", "23.40", "INR", "-250.00", "INR"]

    async def test_may_have_what_the_bank_has_paid_and_we_have_not_heard_of_yet(self, books: Books) -> None:
        operation_id = await pay_what_is_open(books, timedelta(seconds=60))
        inspection = await inspect(books.databases, grace=timedelta(seconds=90))
        assert inspection.breaches == []
        assert [(waiting.operation_id, waiting.status) for waiting in inspection.waiting] == [
            (operation_id, "processing")
        ]
        assert await check_ledger(books.databases) == []
        late = await inspect(books.databases, grace=timedelta(seconds=30))
        assert [(breach.rule, breach.subject) for breach in late.breaches] == [("settlement_overdue", operation_id)]

    async def test_may_have_what_the_bank_has_sent_back_and_we_have_not_heard_of_yet(self, books: Books) -> None:
        back = {"at": utc_now() - timedelta(seconds=60), "bank_reference": "ret_new"}
        operation_id = (await books.one("deposits", status="success", return_id=None))["_id"]
        order = await books.one("orders", _id=operation_id)
        await books.put("orders", {**order, "returns": [{**back, "amount": order["amount"]}]})
        inspection = await inspect(books.databases, grace=timedelta(seconds=90))
        assert inspection.breaches == []
        assert [(one.operation_id, one.status) for one in inspection.waiting] == [(operation_id, "success")]
        late = await inspect(books.databases, grace=timedelta(seconds=30))
        assert [(breach.rule, breach.subject) for breach in late.breaches] == [("settlement_overdue", operation_id)]

    async def test_may_have_a_callback_that_was_received_and_not_applied_yet(self, books: Books) -> None:
        callback = await books.one("bank_callbacks", applied_at=None)
        await books.put("bank_callbacks", {**callback, "received_at": utc_now() - timedelta(seconds=60)})
        assert await check_ledger(books.databases, grace=timedelta(seconds=90)) == []
        assert await check_ledger(books.databases) == []
        late = await check_ledger(books.databases, grace=timedelta(seconds=30))
        assert [(breach.rule, breach.subject) for breach in late] == [("callback_overdue", callback["_id"])]

    async def test_may_have_a_return_that_waits_for_as_long_as_it_takes_while_an_incident_tells_of_it(
        self, books: Books
    ) -> None:
        callback = await books.one("bank_callbacks", applied_at=None)
        told = {"incident_id": (await books.one("incidents"))["_id"]}
        later, long_ago = utc_now() + timedelta(minutes=30), utc_now() - 2 * _GRACE
        for fields, rules in (
            (told | {"due_at": later}, set()),
            (told | {"due_at": long_ago}, {"callback_overdue"}),
            ({"due_at": later}, {"callback_overdue"}),
        ):
            await books.put("bank_callbacks", {**callback, "received_at": long_ago, **fields})
            assert rules_of(await check_ledger(books.databases, grace=_GRACE)) == rules

    async def test_may_have_a_dead_letter_in_place_of_an_outbox_row(self, books: Books) -> None:
        operation_id = await pay_what_is_open(books, timedelta(seconds=60))
        row = await books.one("outbox", subject_id=operation_id)
        await books.remove("outbox", row)
        letter = await put_aside(books, "outbox", row["_id"], operation_id, topic=row["topic"])
        inspection = await inspect(books.databases, grace=timedelta(seconds=30))
        assert inspection.breaches == []
        assert inspection.counts["dead letters"] == 1
        assert [waiting.operation_id for waiting in inspection.waiting] == [operation_id]
        for state in ("replayed", "discarded"):
            await books.put("dead_letters", {**letter, "state": state})
            found = await check_ledger(books.databases)
            assert [(breach.rule, breach.subject) for breach in found] == [("outbox_missing", operation_id)]

    async def test_may_have_a_row_that_came_back_after_its_operation_had_ended(self, books: Books) -> None:
        operation_id = await keep_in_the_outbox(books)
        assert rules_of(await check_ledger(books.databases)) == {"outbox_surplus"}
        row = await books.one("outbox", subject_id=operation_id)
        letter = await put_aside(books, "outbox", row["_id"], operation_id, topic=row["topic"])
        await books.put("dead_letters", {**letter, "state": "replayed"})
        assert await check_ledger(books.databases) == []

    async def test_may_have_a_callback_that_was_put_aside(self, books: Books) -> None:
        callback_id = await lose_a_callback(books)
        assert rules_of(await check_ledger(books.databases, grace=_GRACE)) == {"callback_overdue"}
        letter = await put_aside(books, "callbacks", callback_id, "wdr_any")
        callback = await books.one("bank_callbacks", _id=callback_id)
        await books.put("bank_callbacks", {**callback, "dead_letter_id": letter["_id"]})
        for state, rules in (("dead", set()), ("discarded", set()), ("replayed", {"callback_overdue"})):
            await books.put("dead_letters", {**letter, "state": state})
            assert rules_of(await check_ledger(books.databases, grace=_GRACE)) == rules

    async def test_may_have_an_order_that_backs_off(self, books: Books) -> None:
        row = await books.one("outbox")
        await books.put("outbox", {**row, "due_at": utc_now() + timedelta(minutes=10)})
        assert await check_ledger(books.databases, grace=_GRACE) == []

    @pytest.mark.parametrize(
        ("topic", "subject_id"),
        [
            (OutboxTopic.PASSWORD_RESET, "somebody@example.com"),
            (OutboxTopic.PASSWORD_NOTICE, f"usr_{'0' * 32}"),
            (OutboxTopic.WEBHOOK_NOTICE, f"aud_{'0' * 32}"),
        ],
    )
    async def test_may_have_mails_on_their_way_to_people(
        self, books: Books, topic: OutboxTopic, subject_id: str
    ) -> None:
        waiting = await books.one("outbox")
        await books.put("outbox", waiting | {"_id": f"{topic}:{subject_id}", "topic": topic, "subject_id": subject_id})
        assert await check_ledger(books.databases, grace=_GRACE) == []

    async def test_may_have_a_transfer_whose_two_sides_are_equal(self, books: Books) -> None:
        await transfer(books)
        assert rules_of(await check_ledger(books.databases)) == {"operation_unknown"}  # nothing else

    @pytest.mark.parametrize(
        ("kind", "change", "counterparty"),
        [
            ("CREDIT", 5, "house:adjustments"),
            ("DEBIT", -5, "house:adjustments"),
            ("REVERSAL_OUT", -5, "house:adjustments"),
            ("CONVERSION_IN", 5, "house:fx"),
            ("POINTS_EARNED", 5, "house:rewards"),
            ("VOUCHER", -5, "house:rewards"),
        ],
    )
    async def test_may_have_movements_with_the_accounts_of_the_house(
        self, books: Books, kind: str, change: int, counterparty: str
    ) -> None:
        before = (await inspect(books.databases)).total("INR").accounts.get(counterparty, Booked())
        await with_counterparty(kind, change, counterparty)(books)
        inspection = await inspect(books.databases)
        # Booked past the ledger, of which no portion knows.
        assert rules_of(inspection.breaches) == {"operation_unknown", "house_position"}
        assert inspection.total("INR").accounts[counterparty].balance - before.balance == -change

    async def test_has_an_answer_for_whatever_a_key_has_made_as_long_as_answers_are_kept(self, books: Books) -> None:
        assert await check_ledger(books.databases) == []
        await leave_tombstones(books)
        assert await check_ledger(books.databases) == []
        await books.named("idempotency_keys").delete_many({})
        assert rules_of(await check_ledger(books.databases)) == {"idempotency_missing"}
        assert (await inspect(books.databases, answers_kept=timedelta(0))).breaches == []

    async def test_may_have_no_closed_hours_yet(self, books: Books) -> None:
        await books.named("account_sums").delete_many({})
        assert await check_ledger(books.databases) == []


class TestWhatIsRead:
    # Few rows at any time, and sorted in memory: what waits, and what was put aside.
    _FEW = ("outbox", "dead_letters")

    async def test_comes_in_order_from_an_index(self, books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[tuple[AsyncCollection[Row], list[tuple[str, int]], Row]] = []
        find = Reader.find

        def note(
            reader: Reader, collection: AsyncCollection[Row], sort: Sequence[tuple[str, int]], *rest: Any
        ) -> AsyncIterator[Row]:
            asked.append((collection, list(sort), rest[1] if len(rest) > 1 else {}))
            return find(reader, collection, sort, *rest)

        monkeypatch.setattr(Reader, "find", note)
        assert await check_books(books) == []
        assert len(asked) > 20
        sorted_in_memory = set()
        for collection, sort, condition in asked:
            plan = await collection.find(condition, sort=sort, allow_disk_use=True).explain()
            if '"stage": "SORT"' in json.dumps(plan["queryPlanner"]["winningPlan"], default=str):
                sorted_in_memory.add(f"{collection.name} by {sort[0][0]}")
        assert {name for name in sorted_in_memory if not name.startswith(self._FEW)} == set()


class TestABrokenLedger:
    async def test_is_told_by_the_exit_status_with_each_breach_by_name(self, books: Books, tmp_path: Path) -> None:
        entry = await books.one("transaction_logs", type="WITHDRAWAL")
        await books.put("transaction_logs", {**entry, "transaction_id": "txn_other"})
        ended = await run_module(books.settings, tmp_path, "scripts.check_ledger")
        assert ended.status == 1, ended.out + ended.err
        assert f"BREACH entry_hash: {entry['wallet_id']}#{entry['seq']}" in ended.out

    async def test_is_told_of_what_the_bank_paid_more_than_an_hour_ago_unless_more_grace_is_given(
        self, books: Books, tmp_path: Path
    ) -> None:
        operation_id = await pay_what_is_open(books, timedelta(hours=2))
        ended = await run_module(books.settings, tmp_path, "scripts.check_ledger")
        assert ended.status == 1, ended.out + ended.err
        assert f"BREACH settlement_overdue: {operation_id}" in ended.out
        ended = await run_module(books.settings, tmp_path, "scripts.check_ledger", "--grace", "10800")
        assert ended.status == 0, ended.out + ended.err
        assert f"waiting: {operation_id}" in ended.out

    async def test_is_not_said_where_nobody_could_look(self, books: Books, tmp_path: Path) -> None:
        nobody = {"WALLET_MONGO_URL": "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=200&replicaSet=rs0"}
        ended = await run_module(books.settings, tmp_path, "scripts.check_ledger", **nobody)
        assert ended.status == 2
        assert "could not look" in ended.err

    async def test_two_entries_with_one_number_are_found(self, books: Books) -> None:
        entry = await books.one("transaction_logs", type="WITHDRAWAL_REFUND")
        logs = books.admin.wallet["transaction_logs"]
        await logs.drop_index("wallet_seq")
        try:
            await books.put("transaction_logs", {**entry, "_id": "ent_second"})
            found = await check_ledger(books.databases)
        finally:
            await logs.delete_one({"_id": "ent_second"})
            await logs.create_index([("wallet_id", 1), ("seq", -1)], name="wallet_seq", unique=True)
        assert Breach("seq_duplicate", f"{entry['wallet_id']}#{entry['seq']}", "two entries have this number") in found
        assert "entry_surplus" in rules_of(found)

    async def test_an_entry_that_was_changed_and_sealed_again_breaks_the_chain_behind_it(self, books: Books) -> None:
        entry = await books.one("transaction_logs", type="WITHDRAWAL")
        forged = {**entry, "transaction_id": "txn_other"}
        await books.put("transaction_logs", {**forged, "hash": recomputed_hash(forged)})
        found = await check_ledger(books.databases)
        assert [(breach.rule, breach.subject) for breach in found] == [
            ("hash_chain", f"{entry['wallet_id']}#{entry['seq'] + 1}")
        ]

    async def test_the_last_entry_sealed_again_is_not_the_wallets_head(self, books: Books) -> None:
        wallet = await books.one("wallets", seq=1)
        entry = await books.one("transaction_logs", wallet_id=wallet["_id"])
        forged = {**entry, "transaction_id": "txn_other"}
        await books.put("transaction_logs", {**forged, "hash": recomputed_hash(forged)})
        found = await check_ledger(books.databases)
        assert [(breach.rule, breach.subject) for breach in found] == [
            ("wallet_head", wallet["_id"]),
            # The wallet could be made to fit; the checkpoint cannot.
            ("checkpoint_leaf", f"{wallet['_id']}#1"),
        ]


Damage = Callable[[Books], Awaitable[str]]
"""Breaks something and returns the subject under which it has to be found."""


def change(name: str, wanted: Row, **fields: Any) -> Damage:
    async def damage(books: Books) -> str:
        row = await books.one(name, **wanted)
        await books.put(name, {**row, **fields})
        return _subject(name, row)

    return damage


def remove(name: str, **wanted: Any) -> Damage:
    async def damage(books: Books) -> str:
        row = await books.one(name, **wanted)
        await books.remove(name, row)
        return _subject(name, row)

    return damage


def _subject(name: str, row: Row) -> str:
    if name == "transaction_logs":
        return f"{row['wallet_id']}#{row['seq']}"
    if name == "events":
        return f"{row['wallet_id']}#{row['sequence']}"
    if name == "user_limits":
        return str(row["user_id"])
    return str(row["subject_id"] if name in ("outbox", "audit_events") else row["_id"])


async def forget_whom_a_credit_counts_for(books: Books) -> str:
    credit = await books.one("adjustments", counted_day={"$ne": None})
    await books.put("adjustments", {**credit, "counted_day": None, "counted_for": []})
    return f"dsm_{credit['requested_by']}_{credit['currency']}"


async def forge_a_time_zone(books: Books) -> str:
    limits = await books.one("user_limits", time_zone={"$ne": None})
    await books.put("user_limits", {**limits, "time_zone": "Pacific/Apia"})
    return str(limits["user_id"])


async def forge_the_copy_of_a_time_zone(books: Books) -> str:
    wallet = await books.one("wallets", owner_time_zone={"$ne": None})
    await books.put("wallets", {**wallet, "owner_time_zone": None})
    return str(wallet["user_id"])


async def forget_a_users_limits(books: Books) -> str:
    limits = await books.one("user_limits", time_zone={"$ne": None})
    await books.remove("user_limits", limits)
    return str(limits["user_id"])


async def forge_a_users_limits(books: Books) -> str:
    limits = await books.one("user_limits", limits={"$ne": None})
    await books.put("user_limits", {**limits, "limits": {**limits["limits"], "per_day": Int64(10**9)}})
    return str(limits["user_id"])


async def set_a_users_usage_back(books: Books) -> str:
    limits = await books.one("user_limits", usage_currency={"$ne": None})
    await books.put("user_limits", {**limits, "usage": {**limits["usage"], "day_amount": Int64(0)}})
    return str(limits["user_id"])


async def count_a_transfer_for_less(books: Books) -> str:
    transfer = await books.one("transfers", counted={"$ne": None})
    await books.put("transfers", {**transfer, "counted": {**transfer["counted"], "amount": Int64(0)}})
    return str(transfer["user_id"])


async def forget_what_a_transfer_counted_for(books: Books) -> str:
    transfer = await books.one("transfers", counted={"$ne": None})
    await books.put("transfers", {**transfer, "counted": None})
    return str(transfer["user_id"])


async def forget_the_mark_of_a_wallet(books: Books) -> str:
    wallet = await books.one("wallets", counts_for_owner=True)
    await books.put("wallets", {**wallet, "counts_for_owner": False})
    return str(wallet["user_id"])


async def forget_an_arrival(books: Books) -> str:
    entry = await books.one("transaction_logs", type="TRANSFER_IN")
    await books.remove("transaction_logs", entry)
    return str(entry["reference"])


async def remove_the_reminder_of_a_hold(books: Books) -> str:
    hold = await books.one("holds", status="held")
    await books.remove("outbox", await books.one("outbox", subject_id=hold["_id"]))
    return str(hold["_id"])


async def set_usage_back(books: Books) -> str:
    wallet = await books.one("wallets", **{"usage.day_amount": {"$gt": 0}})
    await books.put("wallets", {**wallet, "usage": {**wallet["usage"], "day_amount": Int64(0)}})
    return str(wallet["_id"])


async def set_the_carry_of_usage(books: Books) -> str:
    wallet = await books.one("wallets", **{"usage.day_amount": {"$gt": 0}})
    await books.put("wallets", {**wallet, "usage": {**wallet["usage"], "month_carry": Int64(1)}})
    return str(wallet["_id"])


async def move_the_beginning_of_usage(books: Books) -> str:
    wallet = await books.one("wallets", **{"usage.day_amount": {"$gt": 0}})
    usage = wallet["usage"]
    await books.put("wallets", {**wallet, "usage": {**usage, "day_since": usage["day_since"] + timedelta(days=2)}})
    return str(wallet["_id"])


async def let_a_conversion_count_for_nothing(books: Books) -> str:
    conversion = await books.one("conversions")
    await books.put("conversions", {**conversion, "is_counted": False})
    return str(conversion["wallet_id"])


async def raise_balance(books: Books) -> str:
    wallet = await books.one("wallets", seq=1)
    await books.put("wallets", {**wallet, "available": Int64(wallet["available"] + 1)})
    return str(wallet["_id"])


async def move_into_held(books: Books) -> str:
    wallet = await books.one("wallets", seq=1)
    await books.put("wallets", {**wallet, "available": Int64(wallet["available"] - 5), "held": Int64(5)})
    return str(wallet["_id"])


async def remove_an_entry_in_the_middle(books: Books) -> str:
    entry = await books.one("transaction_logs", type="WITHDRAWAL")
    await books.remove("transaction_logs", entry)
    return f"{entry['wallet_id']}#{entry['seq'] + 1}"


async def remove_settlement_entry(books: Books) -> str:
    entry = await books.one("transaction_logs", type="WITHDRAWAL_SETTLEMENT")
    await books.remove("transaction_logs", entry)
    return str(entry["reference"])


async def forget_the_incident_of_a_callback(books: Books) -> str:
    callback = await books.one("bank_callbacks", result="contradiction")
    await books.named("incidents").delete_one({"_id": callback["incident_id"]})
    return str(callback["_id"])


async def fail_at_the_bank_what_is_resolved(books: Books) -> str:
    """The bank was right, the books were wrong, and nobody has put them right."""
    incident = await books.one("incidents", kind="failure_after_success")
    order = await books.one("orders", _id=incident["operation_id"])
    await books.put("orders", {**order, "state": "failed", "payments": []})
    assert await check_ledger(books.databases) == [], "what is in dispute is known"
    await books.put("incidents", {**incident, "status": "resolved"})
    return str(order["_id"])


async def forget_a_return_here(books: Books) -> str:
    operation = await books.one("withdrawals", return_id={"$ne": None})
    await books.put("withdrawals", {**operation, "return_id": None})
    return str(operation["wallet_id"])


async def rewrite_what_is_owed(books: Books) -> str:
    """So that wallet and return agree: what the entries say is left."""
    returned = await books.one("returns", status="owed")
    wallet = await books.one("wallets", _id=returned["wallet_id"])
    await books.put("returns", {**returned, "owed": Int64(1)})
    await books.put("wallets", {**wallet, "owed": Int64(1)})
    return str(returned["_id"])


async def pay_out_what_is_owed(books: Books) -> str:
    wallet = await books.one("wallets", owed={"$gt": 0})
    await books.put("wallets", {**wallet, "available": Int64(wallet["owed"])})
    return str(wallet["_id"])


async def forget_a_return_at_the_bank(books: Books) -> str:
    operation = await books.one("withdrawals", return_id={"$ne": None})
    order = await books.one("orders", _id=operation["_id"])
    await books.put("orders", {**order, "returns": []})
    return str(order["_id"])


async def return_another_amount(books: Books) -> str:
    operation = await books.one("withdrawals", return_id={"$ne": None})
    order = await books.one("orders", _id=operation["_id"])
    await books.put("orders", {**order, "returns": [{**order["returns"][0], "amount": Int64(1)}]})
    return str(order["_id"])


async def append_entry(books: Books, wallet_id: str, kind: str, change: int, **fields: Any) -> Row:
    """A whole one, with its place in the chain, as a defect of the ledger would write it: `change` of the balance."""
    wallet = await books.one("wallets", _id=wallet_id)
    after = fields.pop("available_after", Int64(wallet["available"] + change))
    unsealed = {
        # Behind the hours that are closed.
        "_id": first_id_at(Prefix.ENTRY, utc_now() + timedelta(hours=5)) + new_id(Prefix.ENTRY)[-20:],
        "wallet_id": wallet_id,
        "user_id": wallet["user_id"],
        "seq": Int64(wallet["seq"] + 1),
        "type": kind,
        "direction": "credit" if change > 0 else "debit",
        "amount": Int64(abs(change)),
        "currency": wallet["currency"],
        "available_before": wallet["available"],
        "available_after": after,
        "held_before": wallet["held"],
        "held_after": wallet["held"],
        "status": "success",
        "reference": "trf_planted",
        "transaction_id": "txn_planted",
        "created_at": utc_now(),
        "prev_hash": wallet["head_hash"],
        **fields,
    }
    entry = {**unsealed, "hash": recomputed_hash(unsealed)}
    await books.put("transaction_logs", entry)
    balance = {"available": entry["available_after"], "held": entry["held_after"]}
    await books.put("wallets", {**wallet, **balance, "seq": entry["seq"], "head_hash": entry["hash"]})
    return entry


async def refund_twice(books: Books) -> str:
    refund = await books.one("transaction_logs", type="WITHDRAWAL_REFUND")
    wallet = await books.one("wallets", _id=refund["wallet_id"])
    kept = {name: refund[name] for name in ("reference", "transaction_id", "counterparty", "status")}
    held_after = Int64(wallet["held"] - refund["amount"])
    await append_entry(books, wallet["_id"], "WITHDRAWAL_REFUND", int(refund["amount"]), held_after=held_after, **kept)
    return str(refund["reference"])


async def transfer(books: Books, *, sent: int = 100, received: int = 100) -> str:
    """From the user with the long history to the one with one entry. The operation behind it is what is missing."""
    giver, taker = await _giver(books), await books.one("wallets", seq=1)
    await append_entry(books, giver["_id"], "TRANSFER_OUT", -sent, counterparty=taker["_id"])
    if received:
        await append_entry(books, taker["_id"], "TRANSFER_IN", received, counterparty=giver["_id"])
    return "txn_planted"


async def _giver(books: Books) -> Row:
    refund = await books.one("transaction_logs", type="WITHDRAWAL_REFUND")
    return await books.one("wallets", _id=refund["wallet_id"])


async def send_to_nobody(books: Books) -> str:
    return await transfer(books, received=0)


async def send_less_than_arrives(books: Books) -> str:
    return await transfer(books, received=101)


def with_counterparty(kind: str, change: int, counterparty: str) -> Damage:
    async def damage(books: Books) -> str:
        wallet = await _giver(books)
        entry = await append_entry(books, wallet["_id"], kind, change, counterparty=counterparty)
        return _subject("transaction_logs", entry)

    return damage


async def send_to_oneself(books: Books) -> str:
    wallet = await _giver(books)
    entry = await append_entry(books, wallet["_id"], "TRANSFER_OUT", -5, counterparty=wallet["_id"])
    return _subject("transaction_logs", entry)


async def _last_hours(books: Books) -> tuple[Row, Row]:
    """Both have all entries in their sums."""
    last, one_before = await books.named("account_sums").find(sort=[("_id", -1)], limit=2).to_list()
    return one_before, last


def with_sums(sums: list[Row]) -> Damage:
    async def damage(books: Books) -> str:
        """The last hour is built on the one before, and is not to blame."""
        for row in await _last_hours(books):
            await books.put("account_sums", {**row, "sums": sums})
        return to_rfc3339((await _last_hours(books))[0]["_id"])

    return damage


async def break_stored_sums(books: Books) -> str:
    _, row = await _last_hours(books)
    await books.put("account_sums", {**row, "sums": "none"})
    return to_rfc3339(row["_id"])


async def sums_of_no_hour(books: Books) -> str:
    _, row = await _last_hours(books)
    await books.put("account_sums", {**row, "_id": "noon"})
    return "noon"


async def commit_in_a_closed_hour(books: Books) -> str:
    """What would be missing from the sums for good: an entry whose id was made before the hour was closed."""
    row, _ = await _last_hours(books)
    wallet = await _giver(books)
    late = first_id_at(Prefix.ENTRY, row["_id"] - timedelta(seconds=1)) + "7" * 20
    await append_entry(books, wallet["_id"], "CREDIT", 9, counterparty="house:adjustments", _id=late)
    return to_rfc3339(row["_id"])


async def forge_a_correction(books: Books) -> str:
    """As if the last hour's sums were too low."""
    _, row = await _last_hours(books)
    await books.put("account_corrections", _correction(row["_id"]))
    return to_rfc3339(row["_id"])


async def break_a_correction(books: Books) -> str:
    await books.put("account_corrections", {**_correction(utc_now()), "sums": "none"})
    return "1"


def _correction(through: datetime) -> Row:
    sums = [{"account": "bank", "currency": "INR", "debit": Decimal128("9"), "credit": Decimal128("0")}]
    return {"_id": 1, "through": through, "sums": sums, "reason": "?", "corrected_by": "?", "created_at": utc_now()}


async def pay_twice(books: Books) -> str:
    order = await books.one("orders", state="success", kind="payout")
    await books.put("orders", {**order, "payments": order["payments"] * 2})
    return str(order["_id"])


async def pay_what_failed(books: Books) -> str:
    order = await books.one("orders", state="failed", kind="payout")
    payment = {"at": utc_now(), "amount": order["amount"], "bank_reference": order["bank_reference"]}
    await books.put("orders", {**order, "state": "success", "payments": [payment]})
    return str(order["_id"])


async def pay_what_is_open(books: Books, age: timedelta) -> str:
    order = await books.one("orders", state="accepted")
    paid_at = utc_now() - age
    payment = {"at": paid_at, "amount": order["amount"], "bank_reference": order["bank_reference"]}
    await books.put("orders", {**order, "state": "success", "executed_at": paid_at, "payments": [payment]})
    return str(order["_id"])


async def pay_another_amount(books: Books) -> str:
    order = await books.one("orders", state="success", kind="payout")
    await books.put("orders", {**order, "payments": [{**order["payments"][0], "amount": Int64(1)}]})
    return str(order["_id"])


async def pay_for_nobody(books: Books) -> str:
    order = await books.one("orders", state="success", kind="payout")
    await books.put("orders", {**order, "_id": "wdr_unknown"})
    return "wdr_unknown"


async def keep_in_the_outbox(books: Books) -> str:
    row = await books.one("outbox")
    ended = await books.one("withdrawals", status="success")
    await books.put("outbox", {**row, "_id": f"bank_order:{ended['_id']}", "subject_id": ended["_id"]})
    return str(ended["_id"])


async def give_an_entry_to_another_user(books: Books) -> str:
    entry = await books.one("transaction_logs", type="WITHDRAWAL")
    await books.put("transaction_logs", {**entry, "user_id": "usr_other"})
    return str(entry["wallet_id"])


async def answer_with_anothers_operation(books: Books) -> str:
    record = await books.one("idempotency_keys", status_code=202)
    await books.remove("idempotency_keys", record)
    await books.put("idempotency_keys", {**record, "_id": "usr_other:key"})
    return "usr_other:key"


async def put_aside(books: Books, queue: str, row_id: str, subject_id: str, **fields: Any) -> Row:
    letter = {
        "_id": new_id(Prefix.DEAD_LETTER), "queue": queue, "row_id": row_id, "subject_id": subject_id, "state": "dead",
        **fields,
    }  # fmt: skip
    await books.put("dead_letters", letter)
    return letter


async def lose_a_callback(books: Books) -> str:
    """No worker would ever find it: it has neither been applied nor is it due."""
    callback = await books.one("bank_callbacks", applied_at=None)
    del callback["due_at"]
    await books.put("bank_callbacks", {**callback, "received_at": utc_now() - 2 * _GRACE})
    return str(callback["_id"])


async def forget_an_event(books: Books) -> str:
    """The one behind it does not follow any more."""
    event = await books.one("events", type="withdrawal.pending")
    await books.remove("events", event)
    return f"{event['wallet_id']}#{event['sequence'] + 1}"


async def forget_the_last_event(books: Books) -> str:
    wallet = await books.one("wallets", event_sequence={"$gt": 3})
    await books.remove("events", await books.one("events", wallet_id=wallet["_id"], sequence=wallet["event_sequence"]))
    return str(wallet["_id"])


async def tell_another_end(books: Books) -> str:
    event = await books.one("events", type="withdrawal.failed")
    await books.put("events", {**event, "status": "success"})
    return str(event["subject_id"])


async def tell_somebody_else(books: Books) -> str:
    event = await books.one("events", type="withdrawal.pending")
    await books.put("events", {**event, "user_id": "usr_other"})
    return str(event["wallet_id"])


async def remove_a_wallet(books: Books) -> str:
    wallet = await books.one("wallets", seq=1)
    await books.remove("wallets", wallet)
    return str(wallet["_id"])


def change_latest_tile(**columns: Callable[[Any], Any]) -> Damage:
    """As somebody would who also makes the tree fit: under the id of its content, named by the checkpoint."""

    async def damage(books: Books) -> str:
        checkpoint = await books.one("checkpoints", _id=3)
        tile = await books.one("checkpoint_tiles", _id=checkpoint["tiles"][0]["id"])
        changed = {**tile, **{name: change(tile[name]) for name, change in columns.items()}}
        (breach,) = check_tile(tile["_id"], [3], [changed])
        new_id = breach.detail.rsplit(" ", 1)[1]
        await books.put("checkpoint_tiles", {**changed, "_id": new_id})
        named = [{"id": new_id, "first_wallet_id": changed["wallet_ids"][0]}]
        await books.put("checkpoints", {**checkpoint, "tiles": named, "root": new_id})
        return "3"

    return damage


async def remove_a_checkpoint(books: Books) -> str:
    await books.remove("checkpoints", {"_id": 2})
    return "3"


async def remove_the_first_checkpoint(books: Books) -> str:
    await books.remove("checkpoints", {"_id": 1})
    return "2"


async def remove_the_latest_checkpoint(books: Books) -> str:
    await books.remove("checkpoints", {"_id": 3})
    return "3"


async def remove_all_checkpoints(books: Books) -> str:
    await books.named("checkpoints").delete_many({})
    return "3"


async def return_to_the_first_version(books: Books) -> str:
    checkpoint = await books.one("checkpoints", _id=3)
    del checkpoint["version"]
    await books.put("checkpoints", checkpoint)
    return "3"


async def shrink_a_wallet_in_the_latest_tile(books: Books) -> str:
    """To where it stood at its second entry: both are true heads of it, and only the order is impossible."""
    tile = await _latest_tile(books)
    at = next(at for at, seq in enumerate(tile["seqs"]) if seq > 10)
    wallet_id = tile["wallet_ids"][at]
    entry = await books.one("transaction_logs", wallet_id=wallet_id, seq=2)
    await change_latest_tile(
        seqs=lambda seqs: [*seqs[:at], Int64(2), *seqs[at + 1 :]],
        head_hashes=lambda heads: heads[: 32 * at] + bytes.fromhex(entry["hash"]) + heads[32 * (at + 1) :],
    )(books)
    return str(wallet_id)


async def start_a_tile_elsewhere(books: Books) -> str:
    checkpoint = await books.one("checkpoints", _id=3)
    (name,) = checkpoint["tiles"]
    await books.put("checkpoints", {**checkpoint, "tiles": [{**name, "first_wallet_id": "wal_0"}]})
    return "3"


async def move_a_tiles_wallet_on(books: Books) -> str:
    tile = await _latest_tile(books)
    await books.put("checkpoint_tiles", {**tile, "seqs": [Int64(tile["seqs"][0] + 1), *tile["seqs"][1:]]})
    return str(tile["_id"])


async def shorten_a_tile(books: Books) -> str:
    tile = await _latest_tile(books)
    await books.put("checkpoint_tiles", {**tile, "seqs": tile["seqs"][1:]})
    return str(tile["_id"])


async def _latest_tile(books: Books) -> Row:
    checkpoint = await books.one("checkpoints", _id=3)
    return await books.one("checkpoint_tiles", _id=checkpoint["tiles"][0]["id"])


async def remove_a_tile(books: Books) -> str:
    checkpoint = await books.one("checkpoints", _id=3)
    tile_id = checkpoint["tiles"][0]["id"]
    await books.remove("checkpoint_tiles", {"_id": tile_id})
    return str(tile_id)


async def rewrite_a_sealed_history(books: Books) -> str:
    """Down to the wallet's head, every hash anew: within the ledger itself nothing is wrong."""
    entries = await books.admin.wallet["transaction_logs"].find(sort=[("wallet_id", 1), ("seq", 1)]).to_list()
    wallet_id = entries[0]["wallet_id"]
    before = "0" * 64
    for entry in entries:
        if entry["wallet_id"] == wallet_id:
            forged = {**entry, "category": "a gift", "prev_hash": before}
            before = recomputed_hash(forged)
            await books.put("transaction_logs", {**forged, "hash": before})
    wallet = await books.one("wallets", _id=wallet_id)
    await books.put("wallets", {**wallet, "head_hash": before})
    return f"{wallet_id}#{wallet['seq']}"


def rewrite(wanted: Row, **fields: Any) -> Damage:
    """As somebody would who also makes the chain fit, from that entry to the wallet's head."""

    async def damage(books: Books) -> str:
        first = await books.one("transaction_logs", **wanted)
        behind = {"wallet_id": first["wallet_id"], "seq": {"$gte": first["seq"]}}
        before = first["prev_hash"]
        for entry in await books.named("transaction_logs").find(behind, sort=[("seq", 1)]).to_list():
            unsealed = {**entry, **(fields if entry["_id"] == first["_id"] else {}), "prev_hash": before}
            before = recomputed_hash(unsealed)
            await books.put("transaction_logs", {**unsealed, "hash": before})
        wallet = await books.one("wallets", _id=first["wallet_id"])
        await books.put("wallets", {**wallet, "head_hash": before})
        return str(first["reference"])

    return damage


async def move_an_arrival_to_a_third_wallet(books: Books) -> str:
    entry = await books.one("transaction_logs", type="TRANSFER_IN")
    third = await books.one("wallets", seq=1, _id={"$nin": [entry["wallet_id"], entry["counterparty"]]})
    return await rewrite({"_id": entry["_id"]}, counterparty=third["_id"])(books)


async def forget_all_audit_events(books: Books) -> str:
    await books.named("audit_events").delete_many({})
    return str((await books.one("adjustments"))["_id"])


async def note_a_deed_that_nobody_did(books: Books) -> str:
    event = await books.one("audit_events", action="adjustment.requested")
    await books.put("audit_events", {**event, "_id": f"aud_{'0' * 32}", "subject_id": "adj_unknown"})
    return "adj_unknown"


async def forget_a_reversals_original(books: Books) -> str:
    reversal = await books.one("reversals")
    await books.put("reversals", {**reversal, "original_id": "trf_unknown"})
    return "trf_unknown"


async def forge_a_reversals_reason(books: Books) -> str:
    reversal = await books.one("reversals")
    await books.put("reversals", {**reversal, "reason": "Because"})
    return str(reversal["original_id"])


async def convert_by_another_rate(books: Books) -> str:
    """Of the same value, so that only the quote can tell."""
    conversion = await books.one("conversions")
    rate = conversion["rate"]
    other = {**rate, "numerator": Int64(rate["numerator"] * 2), "denominator": Int64(rate["denominator"] * 2)}
    await books.put("conversions", {**conversion, "rate": other})
    return str(conversion["quote_id"])


async def raise_what_a_conversion_and_its_quote_brought(books: Books) -> str:
    conversion = await books.one("conversions")
    quote = await books.one("quotes", _id=conversion["quote_id"])
    for name, row in (("conversions", conversion), ("quotes", quote)):
        await books.put(name, {**row, "to_amount": Int64(row["to_amount"] + 1)})
    return str(quote["_id"])


async def forget_the_events_of_a_wallet(books: Books) -> str:
    """Of one that nothing has moved for longer than any event is sure to be kept."""
    wallet = await books.one("wallets", seq=1)
    await books.put("wallets", {**wallet, "updated_at": utc_now() - timedelta(hours=2)})
    told = await books.named("events").find({"wallet_id": wallet["_id"]}).to_list()
    await books.named("events").delete_many({"wallet_id": wallet["_id"]})
    return str(told[0]["subject_id"])


async def forget_an_applied_callback(books: Books) -> str:
    callback = await books.one("bank_callbacks", result="success")
    await books.remove("bank_callbacks", callback)
    return str(callback["payload"]["reference"])


async def leave_tombstones(books: Books) -> list[str]:
    """On everything that an answer says was made, as the ledger leaves them. The ids of it."""
    made = []
    answers = await books.named("idempotency_keys").find({"status_code": {"$in": [201, 202]}}).to_list()
    for answer in answers:
        for record_id in named_by(answer):
            made.append(record_id)
            tombstone = {"key_hashes": [record_id], "fingerprint": answer["fingerprint"]}
            name = COLLECTIONS[prefix_of(record_id)]
            await books.put(name, {**await books.one(name, _id=record_id), "tombstone": tombstone})
    assert made
    return made


async def forget_all_answers(books: Books) -> str:
    made = await leave_tombstones(books)
    await books.named("idempotency_keys").delete_many({})
    return made[0]


async def forget_an_answer(books: Books) -> str:
    made = await leave_tombstones(books)
    answer = next(one for one in await books.named("idempotency_keys").find().to_list() if named_by(one) == [made[0]])
    await books.remove("idempotency_keys", answer)
    return made[0]


def name_nothing(status_code: int, record_id: str) -> Damage:
    async def damage(books: Books) -> str:
        """Whatever it named was taken away whole, from both wallets, their events and their counters."""
        answer = await books.one("idempotency_keys", status_code=status_code)
        body = json.dumps({"id": record_id}).encode()
        await books.put("idempotency_keys", {**answer, "body": body})
        return str(answer["_id"])

    return damage


async def name_a_batch_with_a_part_that_is_gone(books: Books) -> str:
    answer = await books.one("idempotency_keys", status_code=201)
    results = [{"status": "success", "transfer": {"id": "trf_gone"}}, {"status": "refused", "error": {}}]
    body = json.dumps({"id": "tbt_any", "results": results}).encode()
    await books.put("idempotency_keys", {**answer, "body": body})
    return str(answer["_id"])


async def remove_a_transfer_whole(books: Books) -> str:
    """From both wallets down to their heads, with its record, its events and its share of the limits: as if it had
    never been. That it was answered is what is left within the ledger.
    """
    transfer = await books.one("transfers", status="success", amount=150)
    await books.remove("transfers", transfer)
    for name, sign in (("wallet_id", 1), ("to_wallet_id", -1)):
        await _without(books, transfer, transfer[name], sign * int(transfer["amount"]))
    sender = await books.one("wallets", _id=transfer["wallet_id"])
    usage = sender["usage"]
    less = {"hour_count": 1} | dict.fromkeys(("day_amount", "month_amount"), int(transfer["amount"]))
    usage = {**usage, **{name: Int64(usage[name] - share) for name, share in less.items()}}
    await books.put("wallets", {**sender, "usage": usage})
    return f"{transfer['user_id']}:transfer-150"


async def _without(books: Books, transfer: Row, wallet_id: str, change: int) -> None:
    """One wallet's chain and events with a gap closed; what was behind it has `change` more."""
    before, seq, is_behind = "0" * 64, 0, False
    for entry in await books.named("transaction_logs").find({"wallet_id": wallet_id}, sort=[("seq", 1)]).to_list():
        if entry["reference"] == transfer["_id"]:
            await books.remove("transaction_logs", entry)
            is_behind = True
            continue
        seq += 1
        more = change if is_behind else 0
        sums = {name: Int64(entry[name] + more) for name in ("available_before", "available_after")}
        unsealed = {**entry, **sums, "seq": Int64(seq), "prev_hash": before}
        before = recomputed_hash(unsealed)
        await books.put("transaction_logs", {**unsealed, "hash": before})
    told = 0
    for event in await books.named("events").find({"wallet_id": wallet_id}, sort=[("sequence", 1)]).to_list():
        if event["subject_id"] == transfer["_id"]:
            await books.remove("events", event)
            continue
        told += 1
        await books.put("events", {**event, "sequence": Int64(told)})
    wallet = await books.one("wallets", _id=wallet_id)
    head = {"seq": Int64(seq), "head_hash": before, "event_sequence": Int64(told)}
    await books.put("wallets", {**wallet, **head, "available": Int64(wallet["available"] + change)})


CHAIN = {"entry_hash"}
# Of an entry whose effect on the balance is another, all that is summed up from entries tells.
BOOKED = {"currency_total", "bank_total", "account_sums"}


def change_position(account: str, **changes: Any) -> Callable[[Books], Awaitable[str]]:
    """Of the account's pool in rupees: added to headroom, put in place of the rest."""

    async def damage(books: Books) -> str:
        row = await books.one("house_positions", account=account, currency="INR", owner="pool")
        added = {"headroom": Int64(row["headroom"] + changes.get("headroom", 0))}
        await books.put("house_positions", {**row, **changes, **added})
        return f"{account} INR"

    return damage


async def lose_position(books: Books) -> str:
    row = await books.one("house_positions", account="bank", currency="INR", owner={"$ne": "pool"})
    await books.remove("house_positions", row)
    return "bank INR"


async def raise_floor(books: Books) -> str:
    """To a floor that the books are below of, and not by returns alone; the portions go along."""
    return await put_floor(books, 100_000)


async def put_floor(books: Books, floor: int) -> str:
    row = await books.one("house_positions", account="bank", currency="INR", owner="pool")
    headroom = row["headroom"] + row["floor"] - floor
    await books.put("house_positions", {**row, "floor": Int64(floor), "headroom": Int64(headroom)})
    return "bank INR"


async def put_floor_above(books: Books, by: int) -> None:
    """Above what the bank's account has."""
    rows = await books.named("house_positions").find({"account": "bank", "currency": "INR"}).to_list()
    (floor,) = [row["floor"] for row in rows if row["owner"] == "pool"]
    await put_floor(books, sum(row["headroom"] for row in rows) + floor + by)


DAMAGES: dict[str, tuple[Damage, str, set[str]]] = {
    "an entry's amount": (
        change("transaction_logs", {"type": "WITHDRAWAL_SETTLEMENT"}, amount=Int64(999)),
        "entry_arithmetic",
        {"entry_mismatch", *CHAIN},
    ),
    "an entry's amount of nothing": (
        change("transaction_logs", {"type": "WITHDRAWAL_SETTLEMENT"}, amount=Int64(0)),
        "entry_amount",
        {"entry_arithmetic", "entry_mismatch", *CHAIN},
    ),
    "an entry's before": (
        change("transaction_logs", {"type": "WITHDRAWAL_SETTLEMENT"}, held_before=Int64(1)),
        "entry_continuity",
        {"entry_arithmetic", *CHAIN, *BOOKED},
    ),
    "an entry's after below zero": (
        change("transaction_logs", {"type": "WITHDRAWAL_SETTLEMENT"}, held_after=Int64(-1)),
        "balance_negative",
        {"entry_arithmetic", "entry_continuity", *CHAIN, *BOOKED},
    ),
    "an entry's direction": (
        change("transaction_logs", {"type": "WITHDRAWAL"}, direction="credit"),
        "entry_type",
        CHAIN,
    ),
    "an entry's type": (
        change("transaction_logs", {"type": "WITHDRAWAL"}, type="GIFT"),
        "entry_type",
        {"entry_missing", "entry_surplus", *CHAIN},
    ),
    "an entry's time": (
        change("transaction_logs", {"type": "WITHDRAWAL"}, created_at=utc_now()),
        "entry_hash",
        set(),
    ),
    "an entry's hash": (
        change("transaction_logs", {"type": "WITHDRAWAL"}, hash="a" * 64),
        "entry_hash",
        {"hash_chain"},
    ),
    "an entry's user": (give_an_entry_to_another_user, "entry_owner", {"entry_mismatch", *CHAIN}),
    "an amount as text": (
        change("transaction_logs", {"type": "WITHDRAWAL"}, amount="1000"),
        "malformed_document",
        {"seq_gap", "entry_continuity", "hash_chain", "entry_mismatch", "house_position"},
    ),
    "an entry gone": (
        remove_an_entry_in_the_middle,
        "seq_gap",
        {"entry_continuity", "hash_chain", "entry_missing", "house_position"},
    ),
    "a settlement's entry gone": (
        remove_settlement_entry,
        "entry_missing",
        {"seq_gap", "entry_continuity", "hash_chain", *BOOKED},
    ),
    "a second refund": (refund_twice, "entry_surplus", {"balance_negative", "wallet_held", "house_position"}),
    "a balance raised": (raise_balance, "wallet_balance", {"currency_total"}),
    "a balance below zero": (
        change("wallets", {"seq": 0}, available=Int64(-1)),
        "balance_negative",
        {"wallet_balance", "currency_total"},
    ),
    "money moved into held": (move_into_held, "wallet_held", {"wallet_balance"}),
    "a wallet's head": (change("wallets", {"seq": 1}, head_hash="b" * 64), "wallet_head", set()),
    "a wallet's seq": (change("wallets", {"seq": 1}, seq=Int64(2)), "wallet_head", set()),
    "a wallet gone": (remove_a_wallet, "wallet_unknown", {"currency_total", "event_sequence"}),
    "a settled withdrawal called failed": (
        change("withdrawals", {"status": "success"}, status="failed"),
        "payment_surplus",
        {"entry_status", "entry_missing", "entry_surplus", "order_state", "bank_total", "wallet_usage", "event_state"},
    ),
    "a failed withdrawal called settled": (
        change("withdrawals", {"status": "failed"}, status="success"),
        "payment_missing",
        {"entry_status", "entry_missing", "entry_surplus", "order_state", "bank_total", "wallet_usage", "event_state"},
    ),
    "a failed deposit called settled": (
        change("deposits", {"status": "failed"}, status="success"),
        "payment_missing",
        {"entry_missing", "order_state", "bank_total", "event_state"},
    ),
    "a settled deposit called pending": (
        change("deposits", {"status": "success"}, status="pending"),
        "entry_surplus",
        {"entry_status", "outbox_missing", "bank_total", "wallet_open_operations", "event_state"},
    ),
    "an unheard-of state": (
        change("withdrawals", {"status": "success"}, status="lost"),
        "operation_state",
        {"entry_status", "entry_surplus", "wallet_held", "bank_total", "wallet_open_operations", "event_state"},
    ),
    "an open withdrawal's amount": (
        change("withdrawals", {"status": "pending"}, amount=Int64(51)),
        "entry_mismatch",
        {"wallet_held", "wallet_usage"},
    ),
    "an operation gone": (
        remove("withdrawals", status="pending"),
        "operation_unknown",
        {"wallet_held", "wallet_open_operations", "wallet_usage", "idempotency_answer", "event_state"},
    ),
    "an open operation that no wallet counts": (
        change("wallets", {"open_operations": {"$gt": 0}}, open_operations=Int64(0)),
        "wallet_open_operations",
        set(),
    ),
    "a limit's counter set back": (set_usage_back, "wallet_usage", set()),
    "a limit's counter that began later": (move_the_beginning_of_usage, "wallet_usage", set()),
    "a conversion that counts for no limit": (let_a_conversion_count_for_nothing, "wallet_usage", set()),
    "a limit's counter with another carry": (set_the_carry_of_usage, "wallet_usage", set()),
    "a transfer that never arrived": (
        forget_an_arrival,
        "entry_missing",
        {"double_entry", "wallet_balance", "wallet_head", "account_sums", "checkpoint_leaf"},
    ),
    "a transfer's amount": (
        change("transfers", {"status": "success"}, amount=Int64(151)),
        "entry_mismatch",
        {"wallet_usage"},
    ),
    "a hold's amount": (
        change("holds", {"status": "held"}, amount=Int64(101)),
        "entry_mismatch",
        {"wallet_held", "wallet_usage"},
    ),
    "a capture of more than was taken": (
        change("holds", {"status": "captured"}, captured_amount=Int64(160)),
        "entry_mismatch",
        {"wallet_usage"},
    ),
    "a capture that somebody else is said to have made": (
        change("holds", {"status": "captured"}, ended_by="usr_nobody"),
        "audit_missing",
        set(),
    ),
    "a hold that nothing ends": (remove_the_reminder_of_a_hold, "outbox_missing", set()),
    "an adjustment that was never made": (
        change("adjustments", {"status": "requires_approval"}, status="success"),
        "entry_missing",
        {"event_missing", "audit_missing", "wallet_open_operations"},
    ),
    "a reversal's shortfall": (
        change("reversals", {}, shortfall=Int64(10)),
        "entry_missing",
        {"entry_mismatch", "audit_mismatch"},
    ),
    "a conversion at a better rate": (
        change("conversions", {}, to_amount=Int64(4_000)),
        "entry_mismatch",
        {"quote_mismatch", "conversion_rate"},
    ),
    "a transfer that waits for nobody": (
        remove("outbox", topic="expiry"),
        "outbox_missing",
        set(),
    ),
    "an open operation forgotten": (remove("outbox", topic="bank_order"), "outbox_missing", set()),
    "an open operation put to sleep": (
        change("outbox", {}, due_at=utc_now() + timedelta(days=2)),
        "outbox_asleep",
        set(),
    ),
    "an open operation due at no time": (change("outbox", {}, due_at="soon"), "malformed_document", set()),
    "an ended operation in the outbox": (keep_in_the_outbox, "outbox_surplus", set()),
    "an answer that names nothing": (
        change("idempotency_keys", {"status_code": 202}, body=b"[]"),
        "idempotency_answer",
        set(),
    ),
    "all answers gone": (forget_all_answers, "idempotency_missing", set()),
    "an answer gone": (forget_an_answer, "idempotency_missing", set()),
    "an answer that names a transfer that is gone": (
        name_nothing(201, f"trf_{'0' * 32}"),
        "idempotency_answer",
        set(),
    ),
    "an answer that names a hold that is gone": (name_nothing(200, f"hld_{'0' * 32}"), "idempotency_answer", set()),
    "an answer that names a redemption that is gone": (
        name_nothing(201, f"rdm_{'0' * 32}"),
        "idempotency_answer",
        set(),
    ),
    "a batch of which a part is gone": (name_a_batch_with_a_part_that_is_gone, "idempotency_answer", set()),
    "a transfer removed whole": (
        remove_a_transfer_whole,
        "idempotency_answer",
        {"account_sums", "checkpoint_leaf"},
    ),
    "an answer of another user": (answer_with_anothers_operation, "idempotency_answer", set()),
    "a double payment": (pay_twice, "payment_double", set()),
    "a payment of what failed": (pay_what_failed, "payment_surplus", {"order_state"}),
    "a payment of another amount": (pay_another_amount, "order_mismatch", set()),
    "a payment for nobody": (pay_for_nobody, "operation_unknown", set()),
    "an order gone": (remove("orders", state="success"), "payment_missing", set()),
    "an order in another currency": (change("orders", {"state": "success"}, currency="USD"), "order_mismatch", set()),
    "a callback that nobody applies": (
        change("bank_callbacks", {"applied_at": None}, received_at=utc_now() - timedelta(days=2)),
        "callback_overdue",
        set(),
    ),
    "a callback that nobody can find": (lose_a_callback, "callback_overdue", set()),
    "a callback received at no time": (
        change("bank_callbacks", {"applied_at": None}, received_at="lately"),
        "malformed_document",
        set(),
    ),
    "a callback that contradicts": (
        change("bank_callbacks", {"result": "success"}, result="contradiction"),
        "callback_contradiction",
        set(),
    ),
    "a callback about nothing": (
        change("bank_callbacks", {"result": "success"}, result="unknown_reference"),
        "callback_unknown_reference",
        set(),
    ),
    "a callback whose incident is gone": (forget_the_incident_of_a_callback, "incident_missing", set()),
    "a contradiction that is called resolved and is not": (
        fail_at_the_bank_what_is_resolved,
        "payment_missing",
        {"order_state"},
    ),
    "a blocked withdrawal without its reason": (
        change("withdrawals", {"status": "blocked"}, failure_code="bank_outcome_unknown"),
        "operation_state",
        set(),
    ),
    "a release that nobody has asked for": (
        change(
            "withdrawals",
            {"status": "blocked"},
            release={
                "by": "usr_nobody",
                "reason": "Looked into",
                "at": utc_now(),
                "despite_freeze": True,
                "despite_deactivation": False,
            },
        ),
        "audit_missing",
        set(),
    ),
    "a blocked withdrawal that is still to be submitted": (
        change("withdrawals", {"status": "pending"}, status="blocked", failure_code="wallet_frozen"),
        "outbox_surplus",
        {"event_state"},
    ),
    "a return that nobody booked": (
        change("returns", {"type": "withdrawal"}, status="requires_review"),
        "entry_surplus",
        {"entry_status", "wallet_open_operations", "bank_total", "event_state"},
    ),
    "a return booked without an entry": (
        change("returns", {"status": "owed"}, status="success"),
        "entry_mismatch",
        {"wallet_open_operations", "wallet_owed", "bank_total", "event_state", "entry_status"},
    ),
    "points that were taken back and were not": (
        change("returns", {"type": "points"}, status="requires_review"),
        "entry_surplus",
        {"entry_status", "wallet_open_operations", "event_state"},
    ),
    "what is owed, erased": (
        change("wallets", {"owed": {"$gt": 0}}, owed=Int64(0), debts=[]),
        "wallet_owed",
        {"house_position"},
    ),
    "what is owed, forged": (change("wallets", {"owed": 0}, owed=Int64(7)), "wallet_owed", {"house_position"}),
    "a debt that names another return": (
        change("wallets", {"owed": {"$gt": 0}}, debts=["rtn_other"]),
        "wallet_owed",
        set(),
    ),
    "what was collected of a return, rewritten": (
        change("returns", {"status": "owed"}, owed=Int64(100)),
        "entry_mismatch",
        {"wallet_owed", "bank_total"},
    ),
    "what is owed, rewritten on both sides": (rewrite_what_is_owed, "entry_mismatch", {"bank_total", "house_position"}),
    "what a return took of a hold, forgotten": (
        change("holds", {"takings.0": {"$exists": True}}, takings=[]),
        "entry_surplus",
        {"wallet_held", "wallet_usage"},
    ),
    "what was taken back, given back": (pay_out_what_is_owed, "wallet_owed", {"currency_total", "wallet_balance"}),
    "a return that the bank knows nothing of": (forget_a_return_at_the_bank, "return_surplus", set()),
    "a return of another amount at the bank": (return_another_amount, "order_mismatch", set()),
    "a return that belongs to another operation": (
        change("withdrawals", {"return_id": {"$ne": None}}, return_id="rtn_other"),
        "return_link",
        set(),
    ),
    "a return that its operation does not know": (
        forget_a_return_here,
        "wallet_usage",
        set(),
    ),
    "a callback given up": (
        change("bank_callbacks", {"result": "success"}, result="given_up"),
        "callback_given_up",
        set(),
    ),
    "a history rewritten to its end": (rewrite_a_sealed_history, "checkpoint_leaf", {"entry_category"}),
    "a checkpoint gone": (remove_a_checkpoint, "checkpoint_gap", {"checkpoint_gone", "checkpoint_link"}),
    "the first checkpoint gone": (remove_the_first_checkpoint, "checkpoint_gap", {"checkpoint_link"}),
    "a checkpoint's link": (
        change("checkpoints", {"_id": 3}, prev_hash="c" * 64),
        "checkpoint_link",
        {"checkpoint_gone", "checkpoint_signature"},
    ),
    "a checkpoint's time": (
        change("checkpoints", {"_id": 3}, created_at=utc_now() - timedelta(days=1)),
        "checkpoint_time",
        {"checkpoint_gone", "checkpoint_signature"},
    ),
    "a checkpoint's signature": (
        change("checkpoints", {"_id": 3}, signature="AAAA"),
        "checkpoint_signature",
        {"checkpoint_gone"},
    ),
    "a checkpoint's key": (
        change("checkpoints", {"_id": 3}, key_id="d" * 32),
        "checkpoint_signature",
        {"checkpoint_gone"},
    ),
    "a checkpoint's root": (
        change("checkpoints", {"_id": 3}, root="e" * 64),
        "checkpoint_root",
        {"checkpoint_gone", "checkpoint_signature"},
    ),
    "a checkpoint's seal of audit events": (
        change("checkpoints", {"_id": 3}, audit_root="e" * 64),
        "audit_seal",
        {"checkpoint_gone", "checkpoint_signature"},
    ),
    "audit events that a checkpoint no longer names": (
        change("checkpoints", {"_id": 3}, audit_ids=[]),
        "audit_seal",
        set(),
    ),
    "a checkpoint's size": (
        change("checkpoints", {"_id": 3}, wallets=Int64(9)),
        "checkpoint_tree",
        {"checkpoint_gone", "checkpoint_signature"},
    ),
    "a checkpoint's tiles": (
        change("checkpoints", {"_id": 3}, tiles=[]),
        "checkpoint_root",
        {"checkpoint_tree", "checkpoint_shrunk"},
    ),
    "a checkpoint's tile that starts elsewhere": (start_a_tile_elsewhere, "checkpoint_tree", set()),
    "a checkpoint without a root": (
        change("checkpoints", {"_id": 3}, root=None),
        "malformed_document",
        {"checkpoint_gone"},
    ),
    "a checkpoint with a tile of no name": (
        change("checkpoints", {"_id": 3}, tiles=[{"id": "x", "first_wallet_id": "y"}]),
        "malformed_document",
        {"checkpoint_gone", "tile_missing"},
    ),
    "the latest checkpoint gone": (remove_the_latest_checkpoint, "checkpoint_gone", set()),
    "all checkpoints gone": (remove_all_checkpoints, "checkpoint_gone", set()),
    "a wallet that shrank between checkpoints": (
        shrink_a_wallet_in_the_latest_tile,
        "checkpoint_shrunk",
        {"checkpoint_signature", "checkpoint_gone"},
    ),
    "a checkpoint of the first version after one of the second": (
        return_to_the_first_version,
        "checkpoint_version",
        {"checkpoint_signature", "checkpoint_gone"},
    ),
    "a tile gone": (remove_a_tile, "tile_missing", set()),
    "a tile's content": (move_a_tiles_wallet_on, "tile_content", {"checkpoint_leaf"}),
    "a tile's columns": (shorten_a_tile, "malformed_document", set()),
    "a tree with a wallet left out": (
        change_latest_tile(
            wallet_ids=lambda ids: ids[1:], seqs=lambda seqs: seqs[1:], head_hashes=lambda heads: heads[32:]
        ),
        "checkpoint_tree",
        {"checkpoint_gone", "checkpoint_shrunk", "checkpoint_signature"},
    ),
    "a tree in another order": (
        change_latest_tile(
            wallet_ids=lambda ids: ids[::-1],
            seqs=lambda seqs: seqs[::-1],
            head_hashes=lambda heads: b"".join(heads[at : at + 32] for at in reversed(range(0, len(heads), 32))),
        ),
        "checkpoint_tree",
        {"checkpoint_gone", "checkpoint_shrunk", "checkpoint_signature"},
    ),
    "an event gone": (forget_an_event, "event_sequence", set()),
    "the last event gone": (forget_the_last_event, "event_sequence", {"event_missing"}),
    "an event of another end": (tell_another_end, "event_state", set()),
    "an event told to another": (tell_somebody_else, "event_state", set()),
    "limit counters erased": (
        change("wallets", {"usage.hour_count": {"$gt": 0}}, usage={**Usage()._asdict()}),
        "wallet_usage",
        set(),
    ),
    "an entry's counterparty, sealed again": (
        move_an_arrival_to_a_third_wallet,
        "entry_counterparty",
        {"checkpoint_leaf"},
    ),
    "an entry's transaction, sealed again": (
        rewrite({"type": "CREDIT"}, transaction_id="txn_other"),
        "entry_transaction",
        {"checkpoint_leaf"},
    ),
    "an entry's status, sealed again": (
        rewrite({"type": "WITHDRAWAL_REFUND"}, status="success"),
        "entry_status",
        {"checkpoint_leaf"},
    ),
    "a beginning that says how it ended": (
        rewrite({"type": "WITHDRAWAL"}, status="success"),
        "entry_status",
        {"checkpoint_leaf"},
    ),
    "an entry's category, sealed again": (
        rewrite({"type": "TRANSFER_OUT"}, category="a gift"),
        "entry_category",
        {"checkpoint_leaf"},
    ),
    "all audit events gone": (forget_all_audit_events, "audit_missing", set()),
    "an audit event of nothing": (note_a_deed_that_nobody_did, "audit_surplus", set()),
    "an audit event's actor": (
        change("audit_events", {"action": "adjustment.requested"}, actor_id="usr_other"),
        "audit_mismatch",
        set(),
    ),
    "an adjustment's requester": (
        change("adjustments", {"status": "requires_approval"}, requested_by="usr_other"),
        "audit_mismatch",
        {"idempotency_answer"},
    ),
    "an adjustment's decider": (
        change("adjustments", {"status": "success"}, decided_by="usr_other"),
        "audit_mismatch",
        {"day_sum_counted"},
    ),
    "an adjustment's reason": (
        change("adjustments", {"status": "success"}, reason="Because"),
        "audit_mismatch",
        set(),
    ),
    "a reversal's reason": (forge_a_reversals_reason, "audit_mismatch", set()),
    "a wallet's own limits": (
        change("wallets", {"seq": 1}, limits={"per_day": Int64(0)}),
        "audit_missing",
        set(),
    ),
    "a wallet's own time zone": (
        change("wallets", {"seq": 1}, time_zone="Pacific/Apia"),
        "audit_missing",
        set(),
    ),
    "a user's time zone": (forge_a_time_zone, "audit_missing", {"user_time_zone"}),
    "the copy of a user's time zone": (forge_the_copy_of_a_time_zone, "user_time_zone", set()),
    "a user's limits gone": (forget_a_users_limits, "audit_missing", {"user_time_zone", "user_usage"}),
    "a user's limits under another id": (
        change("user_limits", {"time_zone": {"$ne": None}}, user_id="usr_other"),
        "user_limits_unknown",
        set(),
    ),
    "a user's own limits": (forge_a_users_limits, "audit_missing", set()),
    "a user's counters set back": (set_a_users_usage_back, "user_usage", set()),
    "a user's counters in the currency before": (
        change(
            "user_limits",
            {"usage_currency": {"$ne": None}},
            other_usage={
                "currency": "EUR",
                "usage": {"hour": "2026-01-01T00", "hour_count": Int64(1)},
                "since": datetime(2026, 1, 1, tzinfo=UTC),
            },
        ),
        "user_usage",
        set(),
    ),
    "a sum of what somebody moved alone set back": (change("day_sums", {}, amount=Int64(1)), "day_sum", set()),
    "a sum of what somebody moved alone on another day": (
        change("day_sums", {}, day="2026-01-01"),
        "day_sum",
        set(),
    ),
    "a sum of what somebody moved alone gone": (remove("day_sums"), "day_sum", set()),
    "a credit that counts for nobody": (forget_whom_a_credit_counts_for, "day_sum", set()),
    "what a payment counted for": (count_a_transfer_for_less, "user_counted", {"user_usage"}),
    "a payment that counts for no user": (
        forget_what_a_transfer_counted_for,
        "user_usage",
        set(),
    ),
    "a wallet that passes by its owner's limits": (
        forget_the_mark_of_a_wallet,
        "user_limits_mark",
        set(),
    ),
    "a wallet thawed by nobody": (
        change("wallets", {"status": "frozen"}, status="active", freeze=None),
        "audit_missing",
        {"event_state"},
    ),
    "a wallet whose freeze is another": (
        change("wallets", {"freeze_event_id": {"$ne": None}}, freeze_event_id="aud_other"),
        "audit_missing",
        set(),
    ),
    "a wallet frozen by nobody": (
        change("wallets", {"seq": 1}, status="frozen", freeze="both"),
        "audit_missing",
        set(),
    ),
    "a reversal of nothing": (forget_a_reversals_original, "reversal_link", set()),
    "a transfer that forgot its reversal": (
        change("transfers", {"reversal_id": {"$ne": None}}, reversal_id=None),
        "reversal_link",
        {"audit_surplus", "wallet_usage"},
    ),
    "a used quote opened again": (
        change("quotes", {"status": "used"}, status="open", conversion_id=None),
        "quote_link",
        set(),
    ),
    "a used quote gone": (remove("quotes", status="used"), "quote_link", set()),
    "a conversion by another rate": (convert_by_another_rate, "quote_mismatch", set()),
    "a conversion of more than its rate": (
        raise_what_a_conversion_and_its_quote_brought,
        "conversion_rate",
        {"entry_mismatch"},
    ),
    "all events of a wallet gone": (forget_the_events_of_a_wallet, "event_missing", set()),
    "an applied callback gone": (forget_an_applied_callback, "callback_missing", set()),
    "a settled withdrawal's account": (
        change("withdrawals", {"status": "success"}, account_masked="•••• 9999"),
        "order_account",
        set(),
    ),
    "a settled withdrawal's reference": (
        change("withdrawals", {"status": "success"}, bank_reference="bnk_other"),
        "order_reference",
        set(),
    ),
    "a settled withdrawal's tries made more": (
        change("withdrawals", {"status": "success"}, attempts=Int64(7)),
        "order_attempts",
        set(),
    ),
    "a settled withdrawal's tries made none": (
        change("withdrawals", {"status": "success"}, attempts=Int64(0), attempt_log=[]),
        "order_attempts",
        set(),
    ),
    "an order paid without a payment": (
        change("orders", {"state": "accepted"}, state="success"),
        "order_state",
        set(),
    ),
    # There are no operations behind planted entries.
    "a transfer that went out and did not come in": (
        send_to_nobody,
        "double_entry",
        {"currency_total", "operation_unknown"},
    ),
    "a transfer that grew on its way": (
        send_less_than_arrives,
        "double_entry",
        {"currency_total", "operation_unknown"},
    ),
    "a transfer to oneself": (
        send_to_oneself,
        "counterparty",
        {"double_entry", "currency_total", "operation_unknown"},
    ),
    "a transfer to a wallet that does not exist": (
        with_counterparty("TRANSFER_OUT", -5, "wal_nobody"),
        "counterparty",
        {"double_entry", "currency_total", "operation_unknown"},
    ),
    "a deposit from the house": (
        with_counterparty("DEPOSIT", 5, "house:adjustments"),
        "counterparty",
        {"operation_unknown", "house_position"},
    ),
    "a credit from the bank": (
        with_counterparty("CREDIT", 5, "bank"),
        "counterparty",
        {"bank_total", "operation_unknown", "house_position"},
    ),
    "a transfer to the house": (
        with_counterparty("TRANSFER_OUT", -5, "house:revenue"),
        "counterparty",
        {"operation_unknown", "house_position"},
    ),
    "a voucher of nobody": (
        with_counterparty("VOUCHER", -5, "a friend"),
        "counterparty",
        {"operation_unknown", "house_position"},
    ),
    "what the bank can give, raised": (
        change_position("bank", headroom=Int64(1)),
        "house_position",
        set(),
    ),
    "a portion of the bank's, gone": (lose_position, "house_position", set()),
    "a portion as text": (
        change("house_positions", {"owner": "pool", "account": "bank", "currency": "INR"}, headroom="1"),
        "malformed_document",
        {"house_position"},
    ),
    "a floor forged": (change_position("house:fx", floor=Int64(-5)), "house_position", set()),
    "more paid out than the bank's floor lets": (raise_floor, "house_below_floor", set()),
    "an hour's sums": (
        with_sums([{"account": "bank", "currency": "INR", "debit": Decimal128("20001"), "credit": Decimal128("1000")}]),
        "account_sums",
        set(),
    ),
    "an hour's sums without an account": (with_sums([]), "account_sums", set()),
    "an hour's sums that are none": (break_stored_sums, "malformed_document", set()),
    "sums of no hour": (sums_of_no_hour, "malformed_document", set()),
    "a correction of sums that were right": (forge_a_correction, "account_sums", set()),
    "a correction that is none": (break_a_correction, "malformed_document", set()),
    "an entry that came too late for its hour": (
        commit_in_a_closed_hour,
        "account_sums",
        {"operation_unknown", "house_position"},
    ),
}


class TestCheckpoints:
    async def test_are_signed_by_the_key_of_the_settings(self, books: Books, tmp_path: Path) -> None:
        other = {"WALLET_CHECKPOINT_SIGNING_KEY": "A" * 43 + "="}
        ended = await run_module(books.settings, tmp_path, "scripts.check_ledger", **other)
        assert ended.status == 1, ended.out + ended.err
        assert ended.out.count("BREACH checkpoint_signature") == 3

    async def test_may_leave_tiles_that_none_of_them_names(self, books: Books) -> None:
        """Of one who came second: what it wrote stays."""
        last = await books.one("checkpoints", _id=3)
        await books.remove("checkpoints", last)
        await books.remove("audit_events", await books.one("audit_events", subject_id="checkpoint_3"))
        assert await check_books(books) == []

    async def test_are_missed_where_entries_have_waited_for_longer_than_two_of_them(
        self, books: Books, tmp_path: Path
    ) -> None:
        """All of them are gone, and whatever said that there were any."""
        await books.named("checkpoints").delete_many({})
        await books.named("audit_events").delete_many({"action": "checkpoint.taken"})
        assert await check_books(books) == []
        entry_id = await make_an_entry_older(books, timedelta(hours=2, minutes=11))
        (breach,) = await check_books(books)
        assert (breach.rule, breach.subject) == ("checkpoint_overdue", "checkpoints")
        assert entry_id in breach.detail
        ended = await run_module(books.settings, tmp_path, "scripts.check_ledger")
        assert ended.status == 1, ended.out + ended.err
        assert "There is no checkpoint yet" in ended.out

    async def test_of_some_age_are_told_with_it(self, books: Books, tmp_path: Path) -> None:
        last = await books.one("checkpoints", _id=3)
        ended = await run_module(books.settings, tmp_path, "scripts.check_ledger")
        assert f"The last checkpoint is of {to_rfc3339(last['created_at'])}" in ended.out

    async def test_are_taken_at_the_command_line(self, books: Books, tmp_path: Path) -> None:
        ended = await run_module(books.settings, tmp_path, "scripts.checkpoint", "--begin-evidence")
        assert ended.status == 0, ended.out + ended.err
        assert ended.out.splitlines()[-1].startswith("Checkpoint 4: 11 wallets under ")
        assert await check_books(books) == []

    async def test_are_not_taken_of_nothing(self, servers: Servers, tmp_path: Path) -> None:
        settings = make_settings(servers)
        await set_up(settings)
        ended = await run_module(settings, tmp_path, "scripts.checkpoint")
        assert (ended.status, ended.out) == (1, "")
        assert "no wallets yet" in ended.err


class TestCorrectingSums:
    async def test_is_named_by_check_ledger_and_mends_what_it_found(self, books: Books, tmp_path: Path) -> None:
        await commit_in_a_closed_hour(books)
        ended = await run_module(books.settings, tmp_path, "scripts.check_ledger")
        assert ended.status == 1, ended.out + ended.err
        assert "BREACH account_sums" in ended.out
        assert "scripts.correct_sums" in ended.out
        told = ("--reason", "an entry of the old clock", "--by", "asha")
        ended = await run_module(books.settings, tmp_path, "scripts.correct_sums", *told)
        assert ended.status == 0, ended.out + ended.err
        assert "house:adjustments in INR: debit +9, credit +0" in ended.out
        assert rules_of(await check_books(books)) == {"operation_unknown", "house_position"}
        row = await books.one("account_corrections")
        assert (row["_id"], row["reason"], row["corrected_by"]) == (1, "an entry of the old clock", "asha")
        ended = await run_module(books.settings, tmp_path, "scripts.correct_sums", *told)
        assert (ended.status, ended.out.startswith("Nothing to correct")) == (0, True), ended.out + ended.err


async def sealed_events(books: Books) -> dict[str, Row | None]:
    """Each audit event that a checkpoint names; None where it is gone."""
    checkpoints = await books.named("checkpoints").find().to_list()
    events = {row["_id"]: row for row in await books.named("audit_events").find().to_list()}
    return {event_id: events.get(event_id) for row in checkpoints for event_id in row.get("audit_ids", [])}


async def check_books(books: Books) -> list[Breach]:
    key = signing_key(books.settings).public_key()
    return (
        await inspect(books.databases, grace=_GRACE, checkpoint_key=key, checkpoint_interval=timedelta(hours=1))
    ).breaches


async def make_an_entry_older(books: Books, age: timedelta) -> str:
    """The only one of its wallet, sealed again."""
    wallet = await books.one("wallets", seq=1)
    entry = await books.one("transaction_logs", wallet_id=wallet["_id"])
    older = {**entry, "_id": first_id_at(Prefix.ENTRY, utc_now() - age) + "7" * 20}
    older["hash"] = recomputed_hash(older)
    await books.remove("transaction_logs", entry)
    await books.put("transaction_logs", older)
    await books.put("wallets", {**wallet, "head_hash": older["hash"]})
    return str(older["_id"])


class TestFloors:
    async def test_are_those_that_the_settings_state(self, books: Books, tmp_path: Path) -> None:
        other = {"WALLET_HOUSE_FLOORS": json.dumps({**books.settings.house_floors, "bank": {"INR": -5}})}
        ended = await run_module(books.settings, tmp_path, "scripts.check_ledger", **other)
        assert ended.status == 1, ended.out + ended.err
        assert "BREACH house_floor: bank INR: its floor is -2305843009213693952, the settings state -5" in ended.out

    async def test_that_books_are_below_of_are_explained_only_by_returns_since_they_were_last_above(
        self, books: Books
    ) -> None:
        await put_floor_above(books, 1)
        assert await check_books(books) == [], "the bank has just taken 1000 back"
        hour_ago = utc_now() - timedelta(hours=1)
        await books.named("returns").update_many({"type": "deposit"}, {"$set": {"created_at": hour_ago}})
        found = [breach for breach in await check_books(books) if breach.rule == "house_below_floor"]
        assert [(one.subject, one.detail[:7]) for one in found] == [("bank INR", "1 below")]

    async def test_that_books_are_below_of_are_explained_by_returns_after_the_server_s_clock_was_set_back(
        self, books: Books
    ) -> None:
        """Entries carry the time that it had leapt to, and returns the right one."""
        await put_floor_above(books, 1)
        hour_ago = utc_now() - timedelta(hours=1)
        await books.named("returns").update_many({"type": "deposit"}, {"$set": {"created_at": hour_ago}})
        assert rules_of(await check_books(books)) == {"house_below_floor"}
        leap = {"noticed_at": hour_ago - timedelta(seconds=2), "highest_at": utc_now()}
        row = {"_id": "server", "seen_at": utc_now(), "highest_at": utc_now(), "leaps": [leap]}
        await books.named("server_clock").replace_one({"_id": "server"}, row, upsert=True)
        assert await check_books(books) == []

    async def test_are_known_to_every_process_soon_after_a_change(self, books: Books) -> None:
        await change_position("bank", floor_version=Int64(1))(books)
        (breach,) = await check_books(books)
        assert (breach.rule, breach.subject.startswith("bank/INR/")) == ("house_portion_outdated", True)
        event = {**await books.one("audit_events"), "_id": new_id(Prefix.AUDIT_EVENT)}
        changed = {**event, "subject_id": "bank/INR", "action": "house_floor.changed"}
        await books.put("audit_events", {**changed, "at": utc_now()})
        assert await check_books(books) == [], "a worker will look"
        await books.put("audit_events", {**changed, "at": utc_now() - timedelta(minutes=11)})
        assert rules_of(await check_books(books)) == {"house_portion_outdated"}

    async def test_and_portions_are_put_right_by_a_command_that_check_ledger_names(
        self, books: Books, tmp_path: Path
    ) -> None:
        await lose_position(books)
        ended = await run_module(books.settings, tmp_path, "scripts.check_ledger")
        assert (ended.status, "scripts.correct_positions" in ended.out) == (1, True), ended.out + ended.err
        ended = await run_module(
            books.settings, tmp_path, "scripts.correct_positions", "--reason", "A test", "--by", "tests"
        )
        assert (ended.status, "bank in INR: the portions had " in ended.out) == (0, True), ended.out + ended.err
        assert await check_books(books) == []
        ended = await run_module(
            books.settings, tmp_path, "scripts.correct_positions", "--reason", "A test", "--by", "tests"
        )
        assert (ended.status, ended.out.startswith("Nothing to correct")) == (0, True), ended.out + ended.err


class TestEachDamage:
    @pytest.mark.parametrize("name", DAMAGES)
    async def test_is_found_under_its_name_and_nothing_sound_is_blamed(self, books: Books, name: str) -> None:
        damage, rule, further = DAMAGES[name]
        sealed = await sealed_events(books)
        subject = await damage(books)
        found = await check_books(books)
        assert (rule, subject) in {(breach.rule, breach.subject) for breach in found}, found
        # Whatever is done to an event that a checkpoint has sealed breaks the seal as well.
        is_broken = any(row != sealed[event_id] for event_id, row in (await sealed_events(books)).items())
        seal = {"audit_seal"} if is_broken else set()
        assert rules_of(found) == {rule, *further, *seal}, found
        assert all(breach.detail for breach in found)
        # An hour is blamed once for each account in each currency.
        of_hours = [breach.detail for breach in found if breach.rule == "account_sums"]
        assert len(of_hours) == len(set(of_hours)) <= 6, found
