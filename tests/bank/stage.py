"""Plays scenarios with the real ledger, the real visits, the real inbox and the simulated bank's real journal.

Those of one conduct go side by side, moment by moment, so that they share transactions; nothing else joins them.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Sequence
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import orjson

from service.domain.clock import utc_now
from service.domain.identifiers import Prefix, new_id
from service.domain.operations import FINAL_STATUSES, Operation, OperationStatus, OperationType
from service.domain.outbox import OutboxTopic
from service.domain.wallets import Wallet
from service.gateways.bank import BankOrder, BankReport, OrderKind
from service.gateways.bank_behaviours import paid_row
from service.gateways.callback_lines import Post, Trouble
from service.gateways.simulated_bank import SimulatedBank
from service.ledger.orders import RequestDeposit, RequestWithdrawal
from service.repositories import bank_conditions
from service.repositories import bank_orders as journal
from service.repositories import records as record_repository
from service.services.bank_callbacks import (
    CallbackPayload,
    apply_callback,
    claim_callbacks,
    read_payload,
    receive_callback,
    verify_signature,
)
from service.services.orders import Order
from service.services.outbox import claim_rows, pursue_row
from service.services.settlement import Desk
from service.startup import Resources
from tests.bank.paper import MANNERS, Ending, Truth, ending_of
from tests.bank.scenarios import Block, Callback, Conduct, Moment, Outage, Purse, Scenario
from tests.factories import (
    blocked_cancellation_of,
    current,
    freeze,
    fund_wallet,
    make_account,
    make_user,
    release_of,
    transfer_of,
)
from workers.bank_simulation import BankWork

AMOUNT = 100
# What is left of a deposit that is partly spent.
_LEFT = 40
_FUNDS = 10_000_000
_KINDS = {
    OperationType.WITHDRAWAL: (Prefix.WITHDRAWAL, RequestWithdrawal),
    OperationType.DEPOSIT: (Prefix.DEPOSIT, RequestDeposit),
}
# Of a bank that hangs: nobody waits longer in these plays.
_SHORT_S = 0.02
_LATE = timedelta(minutes=1)
_DAYS = timedelta(days=4)
# The claim that follows makes it the one at which people are told of a return that waits.
_LAST_BUT_ONE = 19
_LOOKED_AT = 2
_ALL = 100_000
_REFUSED = 400


_Result = TypeVar("_Result")


async def _together(*plays: Awaitable[_Result]) -> list[_Result]:
    """All of them to their ends, also where one fails: nothing goes on behind the back of who comes next."""
    results = await asyncio.gather(*plays, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]


class Played(NamedTuple):
    scenario: Scenario
    reference: str
    ending: Ending

    @property
    def trouble(self) -> str | None:
        """In words, where it did not end as it should."""
        expected = ending_of(self.scenario)
        if self.ending == expected:
            return None
        return f"{self.reference}: {self.scenario}:\n  found    {self.ending}\n  expected {expected}"


class StagedBank(SimulatedBank):
    """The simulated one; what is said while it has an order in hand is heard before its answer."""

    async def meanwhile(self, reference: str) -> None:
        raise NotImplementedError

    async def submit(self, order: BankOrder) -> BankReport:
        try:
            return await super().submit(order)
        finally:
            await self.meanwhile(order.reference)


class Stage:
    """`play` one conduct after another; what came of all of them is in the database."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._settings = resources.settings
        self._bank = StagedBank(resources.settings, resources.jobs)
        self._bank.meanwhile = self._meanwhile  # type: ignore[method-assign]  # one stage, one bank
        self._work = BankWork(resources.settings)
        self._work.lines.close()
        self._work.lines = self  # type: ignore[assignment]  # what is posted is heard here, without HTTP
        self._scenarios: dict[str, Scenario] = {}
        self._in_hand: set[str] = set()

    async def play(self, conduct: Conduct, scenarios: Sequence[Scenario]) -> list[Played]:
        """All of them blocked alike, and spent alike."""
        block, purse = scenarios[0].block, scenarios[0].purse
        await self._request(conduct, scenarios)
        await self._arrive(Moment.BEFORE_THE_ORDER)
        if block in (Block.RELEASED, Block.CANCELED):
            await self._block(is_frozen=block is Block.RELEASED)
            await self._visit()
            await self._decide(block)
        self._in_hand = set(self._scenarios)
        if isinstance(conduct, Outage):
            await bank_conditions.go_down(utc_now() + _DAYS, hangs=conduct is Outage.HANGING)
            self._look_again()
        await self._visit(is_hanging=conduct is Outage.HANGING)
        await bank_conditions.come_up()
        self._look_again()
        await self._arrive(Moment.AFTER_THE_ANSWER)
        if block is Block.AFTER_AN_ORDER:
            await self._block(is_frozen=True)
        await self._visit(in_flight_s=0 if block is Block.AFTER_AN_ORDER else None)
        await self._arrive(Moment.BEFORE_ITS_REPORTS)
        await self._let_the_bank_work()
        await self._arrive(Moment.AFTER_ITS_REPORTS)
        await self._visit()
        if purse is not Purse.KEPT:
            await self._spend(_LEFT if purse is not Purse.SPENT else 0)
        await bank_conditions.advance_clock(_DAYS if MANNERS[conduct].comes_back else _LATE)
        self._look_again()
        await self._let_the_bank_work()
        await self._arrive(Moment.AT_THE_END)
        await self._hear_what_waits()
        if purse is Purse.REFILLED:
            await self._refill()
        # Owners are told what they owe, before a bank that hangs makes everybody's patience short.
        await self._visit()
        return await self._endings()

    def _look_again(self) -> None:
        self._bank.conditions.forget()
        self._work.conditions.forget()

    async def _request(self, conduct: Conduct, scenarios: Sequence[Scenario]) -> None:
        """All of one conduct on one wallet, of somebody who has enough; each on its own where money is spent."""
        self._wallet = shared = await self._open_wallet()
        account = f"bank-{'success' if isinstance(conduct, Outage) else conduct}"
        order = Order(AMOUNT, shared.currency, account, None, None, {})
        self._scenarios = {new_id(_KINDS[scenario.kind][0]): scenario for scenario in scenarios}
        self._own: dict[str, Wallet] = {}
        for reference, scenario in self._scenarios.items():
            if scenario.purse is not Purse.KEPT:
                self._own[reference] = (await make_account(self._resources.databases)).wallet

        async def request(reference: str, kind: OperationType) -> None:
            wallet = self._own.get(reference, shared)
            fields: dict[str, Any] = {
                "now": utc_now(),
                "transaction_id": new_id(Prefix.TRANSACTION),
                "operation_id": reference,
                "user_id": wallet.user_id,
                "token_version": None,
                **order.sealed_for(reference, self._settings),
            }
            if kind is OperationType.WITHDRAWAL:
                fields["entry_id"] = new_id(Prefix.ENTRY)
            await self._resources.ledger.change(_KINDS[kind][1](**fields), Operation)

        await _together(*(request(reference, one.kind) for reference, one in self._scenarios.items()))

    async def _open_wallet(self) -> Wallet:
        """Its money is the bank's too."""
        databases = self._resources.databases
        wallet = (await make_account(databases)).wallet
        deposit = await fund_wallet(databases, wallet, _FUNDS)
        order = BankOrder(deposit.id, OrderKind.COLLECTION, deposit.amount, deposit.currency, "bank-account-0001")
        row = paid_row(order, utc_now(), self._settings) | {"bank_reference": deposit.bank_reference}
        await journal.insert_missing([row])
        return wallet

    async def _block(self, *, is_frozen: bool) -> None:
        """From here on the wallet pays nothing out."""
        databases = self._resources.databases
        self._admin = await make_user(databases, roles=["user", "admin"])
        if is_frozen:
            await freeze(databases, self._wallet, self._admin)
        else:
            await databases.wallet["users"].update_one({"_id": self._wallet.user_id}, {"$set": {"is_active": False}})

    async def _decide(self, block: Block) -> None:
        async def decide(operation: Operation) -> None:
            assert operation.status is OperationStatus.BLOCKED, operation
            released = release_of(operation, self._admin, is_forced=True)
            canceled = blocked_cancellation_of(operation, self._admin)
            await self._resources.ledger.change(released if block is Block.RELEASED else canceled, Operation)

        await _together(*(decide(operation) for operation in await self._operations()))

    async def _spend(self, left: int) -> None:
        """Each owner gives away what has come in, but for what is to be left."""
        await self._give([(wallet, self._wallet, wallet.available - left) for wallet in await self._owned()])

    async def _refill(self) -> None:
        await self._give([(self._wallet, wallet, wallet.owed) for wallet in await self._owned()])

    async def _owned(self) -> list[Wallet]:
        return await _together(*(current(wallet) for wallet in self._own.values()))

    async def _give(self, gifts: Sequence[tuple[Wallet, Wallet, int]]) -> None:
        ledger = self._resources.ledger
        given = (transfer_of(giver, taker, amount) for giver, taker, amount in gifts if amount > 0)
        answers = await _together(*(ledger.answer(transfer) for transfer in given))
        assert all(answer.status_code < _REFUSED for answer in answers), answers

    async def _visit(self, *, is_hanging: bool = False, in_flight_s: int | None = None) -> None:
        """Whatever has not ended is due, whenever it would have been."""
        outbox = self._resources.databases.wallet["outbox"]
        await outbox.update_many({"topic": "bank_order"}, {"$set": {"due_at": utc_now()}})
        settings = self._settings
        if is_hanging:
            settings = settings.model_copy(update={"bank_timeout_s": _SHORT_S})
        if in_flight_s is not None:
            settings = settings.model_copy(update={"bank_in_flight_s": in_flight_s})
        resources = self._resources
        desk = Desk(resources.ledger, self._bank, resources.mailbox, settings, resources.databases.client)
        rows = await claim_rows(_ALL, settings, tuple(OutboxTopic))
        await _together(*(pursue_row(row, desk) for row in rows))

    async def _let_the_bank_work(self) -> None:
        while batches := await self._work.claim(1):
            for orders in batches:
                await self._work.work(orders)
        for _ in range(_LOOKED_AT):
            await self._apply_what_came()

    async def post_all(self, series: Sequence[Sequence[Post]]) -> list[list[Trouble]]:
        """As the API takes callbacks: signature first."""

        async def post(posts: Sequence[Post]) -> list[Trouble]:
            for one in posts:
                callback_id = verify_signature(one.body, one.headers, self._settings)
                payload = read_payload(orjson.loads(one.body))
                await receive_callback(callback_id, payload, None, self._resources.jobs)
            return [None] * len(posts)

        return await _together(*(post(posts) for posts in series))

    async def _apply_what_came(self) -> None:
        rows = await claim_callbacks(_ALL)
        await _together(*(apply_callback(row, self._resources.ledger) for row in rows))

    async def _hear_what_waits(self) -> None:
        """Once more what was said early, since something else has settled meanwhile. What waits on is told of."""
        inbox = self._resources.databases.wallet["bank_callbacks"]
        waiting = {"due_at": {"$exists": True}}
        for _ in range(_LOOKED_AT):
            await inbox.update_many(waiting, {"$set": {"due_at": utc_now(), "attempts": _LAST_BUT_ONE}})
            await self._apply_what_came()
        waiting_on = await inbox.find(waiting).to_list()
        assert all("incident_id" in row for row in waiting_on)
        ended = {operation.id for operation in await self._operations() if operation.status in FINAL_STATUSES}
        assert not ended & {row["payload"]["reference"] for row in waiting_on}

    async def _arrive(self, moment: Moment) -> None:
        await _together(*(self._say(reference, moment) for reference in self._scenarios))
        # A return that waited for a settlement is due as soon as there is one.
        await self._apply_what_came()

    async def _meanwhile(self, reference: str) -> None:
        """Once: an order that is brought there again is no news."""
        if reference in self._in_hand:
            self._in_hand.remove(reference)
            await self._say(reference, Moment.BEFORE_THE_ANSWER)

    async def _say(self, reference: str, moment: Moment) -> None:
        """One after the other, each applied before the next one comes."""
        scenario = self._scenarios[reference]
        said, number = Callback.SUCCESS, 0
        for position, arrival in enumerate(scenario.arrivals):
            is_again = arrival.callback is Callback.DUPLICATE and number > 0
            if arrival.callback is not Callback.DUPLICATE:
                said = arrival.callback
            if arrival.moment is moment:
                if is_again:
                    await self._tell(reference, scenario, said, number, is_known=True)
                await self._tell(reference, scenario, said, position + 1)
            number = position + 1

    async def _tell(
        self, reference: str, scenario: Scenario, said: Callback, number: int, *, is_known: bool = False
    ) -> None:
        truth = "success" if MANNERS[scenario.conduct].truth is Truth.PAID else "failed"
        payload = CallbackPayload(
            type="payment.settled",
            reference=reference,
            status={Callback.FAILED: "failed", Callback.LATE: truth}.get(said, "success"),
            amount=AMOUNT + 1 if said is Callback.WRONG_AMOUNT else AMOUNT,
            currency="INR",
        )
        callback_id = f"msg_{reference}_besides_{number}"
        await receive_callback(callback_id, payload, None, self._resources.jobs)
        if not is_known:
            row: dict[str, Any] = {"_id": callback_id, "payload": payload.model_dump(), "request_id": None}
            await apply_callback(row | {"attempts": 1, "received_at": utc_now()}, self._resources.ledger)

    async def _operations(self) -> list[Operation]:
        """Each kind lies in a place of its own."""
        kinds: dict[OperationType, list[str]] = defaultdict(list)
        for reference, scenario in self._scenarios.items():
            kinds[scenario.kind].append(reference)
        found = [await record_repository.find_many(ids, Operation) for ids in kinds.values()]
        return [operation for operations in found for operation in operations]

    async def _endings(self) -> list[Played]:
        """What can be seen in the databases."""
        databases, ids = self._resources.databases, list(self._scenarios)
        statuses = {found.id: found.status for found in await self._operations()}
        entries: dict[str, list[str]] = defaultdict(list)
        logs = databases.wallet["transaction_logs"]
        wallet_ids = [self._wallet.id, *(wallet.id for wallet in self._own.values())]
        of_them = {"wallet_id": {"$in": wallet_ids}}
        async for entry in logs.find(of_them, {"reference": 1, "type": 1}, batch_size=_ALL):
            entries[entry["reference"].partition("_")[2]].append(entry["type"])
        incidents: dict[str, list[str]] = defaultdict(list)
        found = databases.wallet["incidents"].find({"reference": {"$in": ids}}, {"reference": 1, "kind": 1})
        async for incident in found:
            incidents[incident["reference"]].append(incident["kind"])
        returns = {
            row["_id"].partition("_")[2]: row["status"]
            async for row in databases.wallet["returns"].find({}, {"status": 1})
        }
        orders = {row["_id"]: row async for row in databases.bank["orders"].find({"_id": {"$in": ids}})}
        never: dict[str, Any] = {"state": None, "payments": [], "returns": []}
        return [
            Played(
                scenario,
                reference,
                Ending(
                    statuses[reference],
                    tuple(sorted(entries[reference.partition("_")[2]])),
                    tuple(sorted(incidents[reference])),
                    returns.get(reference.partition("_")[2]),
                    orders.get(reference, never)["state"],
                    len(orders.get(reference, never)["payments"]),
                    len(orders.get(reference, never)["returns"]),
                ),
            )
            for reference, scenario in self._scenarios.items()
        ]
