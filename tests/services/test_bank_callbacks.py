"""What becomes of a callback in the inbox: applied, ignored, left for later; each only once."""

from collections.abc import AsyncIterator
from math import inf
from typing import Any
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from service.database import Databases
from service.domain.clock import utc_now
from service.domain.operations import Operation, OperationStatus
from service.domain.policy import Policy
from service.errors import InvalidSignature, Unavailable
from service.ledger.committer import Ledger
from service.repositories import bank_callbacks as inbox
from service.repositories import records as record_repository
from service.services import bank_callbacks
from service.services.bank_callbacks import CallbackPayload, apply_callback, receive_callback, verify_signature
from service.settings import Settings
from service.startup import Resources
from tests.factories import asking_of, change, make_funded_wallet, withdrawal_of


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


@pytest.fixture
async def withdrawal(databases: Databases) -> Operation:
    """The bank has been asked for it."""
    requested = await change(databases, withdrawal_of(await make_funded_wallet(databases, 1_000), 500))
    return await change(databases, asking_of(requested))


async def _received(operation: Operation, databases: Databases, **said: Any) -> dict[str, Any]:
    """A callback about the operation as it lies in the inbox."""
    payload = {
        "type": "payment.settled",
        "reference": operation.id,
        "status": "success",
        "amount": operation.amount,
        "currency": operation.currency,
    }
    callback_id = f"msg_{uuid4().hex}"
    assert await inbox.insert_once(callback_id, payload | said, None, utc_now())
    return await _kept(callback_id, databases)


async def _kept(callback_id: str, databases: Databases) -> dict[str, Any]:
    row = await databases.wallet["bank_callbacks"].find_one({"_id": callback_id})
    assert row is not None
    return row


async def _status(operation: Operation) -> OperationStatus:
    found = await record_repository.find(operation.id, Operation)
    assert found is not None
    return found.status


class TestApplying:
    @pytest.mark.parametrize(
        ("said", "status"), [("success", OperationStatus.SUCCESS), ("failed", OperationStatus.FAILED)]
    )
    async def test_ends_the_operation_and_notes_it(
        self, withdrawal: Operation, ledger: Ledger, databases: Databases, said: str, status: OperationStatus
    ) -> None:
        row = await _received(withdrawal, databases, status=said)
        await apply_callback(row, ledger)
        assert await _status(withdrawal) is status
        kept = await _kept(row["_id"], databases)
        assert kept["result"] == status
        assert "due_at" not in kept

    async def test_twice_moves_money_once(self, withdrawal: Operation, ledger: Ledger, databases: Databases) -> None:
        row = await _received(withdrawal, databases, status="failed")
        await apply_callback(row, ledger)
        await apply_callback(row, ledger)
        entries = databases.wallet["transaction_logs"]
        assert await entries.count_documents({"reference": withdrawal.id, "type": "WITHDRAWAL_REFUND"}) == 1

    @pytest.mark.parametrize("status", ["success", "failed"])
    async def test_another_type_of_event_moves_nothing(
        self, withdrawal: Operation, ledger: Ledger, databases: Databases, status: str
    ) -> None:
        row = await _received(withdrawal, databases, type="test.ping", status=status)
        await apply_callback(row, ledger)
        assert await _status(withdrawal) is OperationStatus.PROCESSING
        assert (await _kept(row["_id"], databases))["result"] == "ignored_type"

    @pytest.mark.parametrize("said", [{"amount": 1}, {"currency": "USD"}])
    @pytest.mark.parametrize("status", ["success", "failed"])
    async def test_another_amount_or_currency_moves_nothing(
        self, withdrawal: Operation, ledger: Ledger, databases: Databases, status: str, said: dict[str, Any]
    ) -> None:
        row = await _received(withdrawal, databases, status=status, **said)
        await apply_callback(row, ledger)
        assert await _status(withdrawal) is OperationStatus.REQUIRES_REVIEW

    @pytest.mark.parametrize("reference", ["wdr_unknown", "xyz_unknown"])
    async def test_an_unknown_reference_is_noted(
        self, withdrawal: Operation, ledger: Ledger, databases: Databases, reference: str
    ) -> None:
        row = await _received(withdrawal, databases, reference=reference)
        await apply_callback(row, ledger)
        assert (await _kept(row["_id"], databases))["result"] == "unknown_reference"


class TestTheSameIdAgain:
    async def test_is_a_repetition_where_it_says_what_is_kept_and_more(
        self, withdrawal: Operation, databases: Databases, resources: Resources
    ) -> None:
        # Kept by a version that did not know the optional fields.
        row = await _received(withdrawal, databases)
        said = CallbackPayload.model_validate({**row["payload"], "bank_reference": "bnk_1"})
        await receive_callback(row["_id"], said, None, resources.jobs)
        assert await databases.wallet["bank_callbacks"].count_documents({"reuses": row["_id"]}) == 0

    @pytest.mark.parametrize("said", [{"amount": 499}, {"status": "failed"}])
    async def test_is_kept_apart_where_it_says_otherwise(
        self, withdrawal: Operation, databases: Databases, resources: Resources, said: dict[str, Any]
    ) -> None:
        row = await _received(withdrawal, databases)
        other = CallbackPayload.model_validate({**row["payload"], **said})
        await receive_callback(row["_id"], other, None, resources.jobs)
        assert await databases.wallet["bank_callbacks"].count_documents({"reuses": row["_id"]}) == 1


class TestTrouble:
    async def test_of_ours_leaves_it_for_when_its_claim_ends(
        self, withdrawal: Operation, databases: Databases, resources: Resources
    ) -> None:
        ended = Ledger(
            resources.databases.client,
            policy=Policy(),
            batch_limit=1,
            queue_limit=1,
            patience_s=1,
            on_committed=lambda _committed: None,
        )
        ended.start()
        await ended.close()
        row = await _received(withdrawal, databases)
        with pytest.raises(Unavailable):
            await apply_callback(row, ended)
        kept = await _kept(row["_id"], databases)
        assert kept == row


class TestUnsignedOnes:
    def test_are_told_of_now_and_then_and_not_each(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bank_callbacks, "_refusals", bank_callbacks._Refusals())
        with capture_logs() as lines:
            for _ in range(5):
                with pytest.raises(InvalidSignature):
                    verify_signature(b"{}", {}, settings)
            monkeypatch.setattr(bank_callbacks, "monotonic", lambda: inf)
            with pytest.raises(InvalidSignature):
                verify_signature(b"{}", {}, settings)
        assert [line["count"] for line in lines if line["event"] == "bank.callback_refused"] == [1, 5]


class TestASettlementAfterItsReturn:
    """A dispute that was won: the bank has credited again what it had taken back. Money is moved by people then."""

    @pytest.mark.parametrize("bank_reference", [None, "bnk_1", "bnk_2"])
    async def test_is_an_incident_and_no_duplicate(
        self, withdrawal: Operation, ledger: Ledger, databases: Databases, bank_reference: str | None
    ) -> None:
        first = await _received(withdrawal, databases, bank_reference="bnk_1")
        await apply_callback(first, ledger)
        await apply_callback(await _returned(withdrawal, databases), ledger)
        again = await _received(withdrawal, databases, bank_reference=bank_reference)
        await apply_callback(again, ledger)
        kept = await _kept(again["_id"], databases)
        assert kept["result"] == "contradiction"
        incident = await databases.wallet["incidents"].find_one({"_id": kept["incident_id"]})
        assert incident is not None
        assert incident["kind"] == "settled_after_return"

    async def test_is_none_where_it_came_before_and_is_applied_once_more(
        self, withdrawal: Operation, ledger: Ledger, databases: Databases
    ) -> None:
        """A worker died between the two: its row comes back after the return has been booked."""
        first = await _received(withdrawal, databases, bank_reference="bnk_1")
        await apply_callback(first, ledger)
        await apply_callback(await _returned(withdrawal, databases), ledger)
        await apply_callback(first, ledger)
        assert (await _kept(first["_id"], databases))["result"] == "success"
        assert await databases.wallet["incidents"].count_documents({"reference": withdrawal.id}) == 0


async def _returned(operation: Operation, databases: Databases) -> dict[str, Any]:
    return await _received(
        operation,
        databases,
        type="payment.returned",
        bank_reference="bnk_back",
        return_code="AC04",
        return_message=None,
    )
