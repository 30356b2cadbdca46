"""Two ledgers on one database, as two processes are: whoever commits first wins, and the other decides again."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any

import orjson
import pytest

from service.database import Databases
from service.domain.clock import utc_now
from service.domain.operations import Operation
from service.domain.policy import Policy
from service.domain.step_up import CODE_LIFETIME
from service.domain.transfers import Transfer
from service.domain.wallets import Wallet
from service.errors import IllegalTransition, WalletServiceError
from service.ledger import transaction
from service.ledger.approvals import Payment
from service.ledger.commands import Command
from service.ledger.committer import Committed, Ledger
from service.ledger.orders import NoteAttempt
from service.repositories import records as record_repository
from tests.factories import (
    batch_of,
    cancellation_of,
    challenge_until,
    change,
    change_of,
    confirmation_of,
    current,
    lapse_of,
    make_funded_wallet,
    run,
    transfer_of,
    withdrawal_of,
)

# In development each was run 20 times; what is quick is tried some times in each run.
_TIMES = 5


class TwoLedgers:
    def __init__(self, databases: Databases) -> None:
        self.databases = databases
        self.committed: list[Committed] = []
        self._limits: dict[str, Any] = {"batch_limit": 256, "queue_limit": 2_000, "patience_s": 20.0}
        self.ledgers = [
            Ledger(databases.client, policy=Policy(), **self._limits, on_committed=self.committed.append)
            for _ in range(2)
        ]
        self._turn = random.Random()  # noqa: S311 no secret

    async def execute(self, *commands: Command) -> list[str | None]:
        """Each by one of the two, at once and in any order; what it was refused with."""
        tasks = {
            n: asyncio.create_task(self._execute(self.ledgers[(n + self._turn.randint(0, 1)) % 2], commands[n]))
            for n in self._turn.sample(range(len(commands)), len(commands))
        }
        return [await tasks[n] for n in range(len(commands))]

    async def _execute(self, ledger: Ledger, command: Command) -> str | None:
        try:
            decided = await ledger.execute(command)
        except WalletServiceError as error:
            return error.code
        if decided.answer is None or decided.answer.status_code < 400:
            return None
        code: str = orjson.loads(decided.answer.body)["error"]
        return code

    async def entries_about(self, payment: Payment) -> list[str]:
        logs = self.databases.wallet["transaction_logs"]
        return sorted([entry["type"] async for entry in logs.find({"reference": payment.id})])

    async def topics_about(self, payment: Payment) -> set[str]:
        rows = self.databases.wallet["outbox"].find({"subject_id": payment.id})
        return {row["topic"] async for row in rows}


@pytest.fixture
async def two(databases: Databases) -> AsyncIterator[TwoLedgers]:
    two = TwoLedgers(databases)
    for ledger in two.ledgers:
        ledger.start()
    yield two
    for ledger in two.ledgers:
        await ledger.close()


async def wallets_of(databases: Databases, *balances: int) -> list[Wallet]:
    return [await make_funded_wallet(databases, balance) for balance in balances]


async def waiting_payment(databases: Databases, kind: str, amount: int = 700) -> tuple[Wallet, Wallet, Payment]:
    """It waits for `right`, from a wallet with 1,000."""
    payer, recipient = await wallets_of(databases, 1_000, 1)
    challenge = challenge_until(utc_now() + CODE_LIFETIME)
    if kind == "withdrawal":
        return payer, recipient, await change(databases, withdrawal_of(payer, amount, challenge=challenge))
    (decided,) = await run(databases, transfer_of(payer, recipient, amount, challenge=challenge))
    assert isinstance(decided.record, Transfer)
    return payer, recipient, decided.record


class TestTransfers:
    async def test_both_ways_at_once_keep_the_sum(self, two: TwoLedgers, databases: Databases) -> None:
        ada, bo = await wallets_of(databases, 50, 50)
        orders = [transfer_of(one, other, 1 + n % 20) for n in range(150) for one, other in ((ada, bo), (bo, ada))]
        codes = await two.execute(*orders)
        assert set(codes) <= {None, "insufficient_funds"}
        ada, bo = await current(ada), await current(bo)
        assert ada.available + bo.available == 100
        # One entry each for the deposit, and one for each transfer that was made.
        assert ada.seq == bo.seq == 1 + codes.count(None)

    async def test_more_than_there_is_takes_exactly_what_is_there(self, two: TwoLedgers, databases: Databases) -> None:
        ada, bo = await wallets_of(databases, 70, 1)
        codes = await two.execute(*(transfer_of(ada, bo, 1) for _ in range(150)))
        assert (codes.count(None), codes.count("insufficient_funds")) == (70, 80)
        assert ((await current(ada)).available, (await current(bo)).available) == (0, 71)

    async def test_one_key_makes_one_transfer(self, two: TwoLedgers, databases: Databases) -> None:
        ada, bo = await wallets_of(databases, 1_000, 1)
        for n in range(1, _TIMES + 1):
            codes = await two.execute(*[transfer_of(ada, bo, 10)] * 30)
            assert set(codes) <= {None, "idempotency_key_in_flight"}
            assert (await current(bo)).available == 1 + 10 * n

    async def test_batches_of_500_and_single_ones_come_through_together(
        self, two: TwoLedgers, databases: Databases
    ) -> None:
        ada, bo, cy, many = await wallets_of(databases, 600, 600, 600, 1)
        batches = [
            batch_of([transfer_of(payer, many, 1) for _ in range(500)], is_all_or_nothing=True) for payer in (ada, bo)
        ]
        codes = await two.execute(
            *batches, *(transfer_of(payer, many, 1) for payer in (ada, bo, cy) for _ in range(60))
        )
        assert set(codes) == {None}
        assert [(await current(one)).available for one in (ada, bo, cy)] == [40, 40, 540]
        assert (await current(many)).available == 1 + 1_000 + 180


@pytest.mark.parametrize("kind", ["transfer", "withdrawal"])
class TestPaymentsThatWait:
    async def test_confirming_canceling_and_lapsing_at_once_have_one_winner(
        self, two: TwoLedgers, databases: Databases, kind: str
    ) -> None:
        for _ in range(_TIMES):
            payer, recipient, payment = await waiting_payment(databases, kind)
            later = utc_now() + CODE_LIFETIME + timedelta(seconds=1)
            confirmed, canceled, lapsed = await two.execute(
                confirmation_of(payment), cancellation_of(payment), lapse_of(payment, now=later)
            )
            found = await record_repository.find(payment.id, type(payment))
            assert found is not None
            wallet = await current(payer)
            # Lapsing what has ended is no error; everything else has to know that it came second.
            assert lapsed is None
            assert {confirmed, canceled} <= {None, "illegal_transition"}
            if found.status == "canceled":
                assert (wallet.available, wallet.held, wallet.open_operations) == (1_000, 0, 0)
                assert len(await two.entries_about(payment)) == 2
                assert await two.topics_about(payment) == set()
                # A withdrawal can be canceled after it was confirmed.
                assert confirmed is not None or kind == "withdrawal"
                assert (canceled is None) == (found.failure_code is None)
                assert wallet.usage.day_amount == 0
            else:
                assert (confirmed, canceled) == (None, "illegal_transition")
                assert wallet.available == 300
                assert (await current(recipient)).available == (701 if kind == "transfer" else 1)
                assert wallet.usage.day_amount == 700
                assert await two.topics_about(payment) == (set() if kind == "transfer" else {"bank_order"})

    async def test_two_confirmations_pay_once(self, two: TwoLedgers, databases: Databases, kind: str) -> None:
        for _ in range(_TIMES):
            payer, recipient, payment = await waiting_payment(databases, kind)
            codes = await two.execute(*(confirmation_of(payment) for _ in range(6)))
            assert sorted(codes, key=str) == [None] + ["illegal_transition"] * 5
            wallet = await current(payer)
            assert (wallet.available, wallet.open_operations) == (300, 0 if kind == "transfer" else 1)
            assert (await current(recipient)).available == (701 if kind == "transfer" else 1)

    async def test_wrong_codes_at_once_are_no_more_tries_than_there_are(
        self, two: TwoLedgers, databases: Databases, kind: str
    ) -> None:
        payer, _, payment = await waiting_payment(databases, kind)
        wrong = [confirmation_of(payment, code_hash="wrong") for _ in range(12)]
        codes = await two.execute(*wrong)
        told = {code: codes.count(code) for code in set(codes)}
        assert told == {"invalid_code": 4, "too_many_tries": 1, "illegal_transition": 7}
        assert (await current(payer)).available == 1_000


class TestWithdrawals:
    async def test_canceling_and_beginning_at_once_have_one_winner(self, two: TwoLedgers, databases: Databases) -> None:
        for _ in range(_TIMES * 2):
            (payer,) = await wallets_of(databases, 1_000)
            withdrawal = await change(databases, withdrawal_of(payer, 700))
            canceled, begun = await two.execute(cancellation_of(withdrawal), change_of(NoteAttempt, withdrawal))
            assert sorted((canceled, begun), key=str) == [None, IllegalTransition.code]
            found = await record_repository.find(withdrawal.id, Operation)
            assert found is not None
            wallet = await current(payer)
            if canceled is None:
                assert (found.status, wallet.available, wallet.held) == ("canceled", 1_000, 0)
                assert await two.topics_about(withdrawal) == set()
            else:
                assert (found.status, wallet.available, wallet.held) == ("processing", 300, 700)
                assert await two.topics_about(withdrawal) == {"bank_order"}


class TestTurns:
    """One process is always quicker: it reads, decides and commits before the other has decided."""

    async def test_the_slow_one_gets_through_to_a_hot_wallet(
        self, two: TwoLedgers, databases: Databases, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (hot,) = await wallets_of(databases, 100_000)
        load = transaction._load

        async def loading(commands: Sequence[Command], *rest: Any) -> Any:
            loaded = await load(commands, *rest)
            if any(command.request_id == "slow" for command in commands):
                # As long as a machine that is busy with other things takes, and longer than any batch of the quick one.
                await asyncio.sleep(0.1)
            return loaded

        monkeypatch.setattr(transaction, "_load", loading)
        quick, slow = two.ledgers
        through = asyncio.Event()
        made = 0

        async def go_on_for_ever() -> None:
            nonlocal made
            while not through.is_set():
                await quick.execute(withdrawal_of(hot, 1))
                made += 1

        load_of_quick = [asyncio.create_task(go_on_for_ever()) for _ in range(4)]
        for _ in range(_TIMES):
            await slow.execute(withdrawal_of(hot, 1, request_id="slow"))
        through.set()
        await asyncio.gather(*load_of_quick)
        after = await current(hot)
        # One for its deposit.
        assert after.seq == 1 + made + _TIMES
        assert made > 0
