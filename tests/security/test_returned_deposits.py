"""Somebody pays in, converts, and has their bank take the deposit back: the converted money must not go out."""

import asyncio
from copy import copy

import orjson
import pytest
from pymongo.asynchronous.client_session import AsyncClientSession

from service.database import Databases, start_transaction
from service.domain.operations import Operation
from service.domain.policy import Policy
from service.domain.returns import return_id_of
from service.domain.wallets import Freeze, Wallet, WalletStatus
from service.errors import WalletOwes
from service.repositories import users as user_repository
from service.services import wallet_life
from service.services.orders import Requester
from service.services.wallets import open_wallet
from service.startup import Resources
from tests.factories import (
    conversion_of,
    current,
    freeze,
    fund_wallet,
    make_quote,
    make_wallet,
    run,
    withdrawal_of,
)
from tests.services.test_owed import Case
from tests.services.test_owed import case as case  # noqa: PLC0414 pytest takes it from here
from tests.services.test_owed import ledger as ledger  # noqa: PLC0414 pytest takes it from here

_OUT = (WalletStatus.FROZEN, Freeze.OUT)
_ACTIVE = (WalletStatus.ACTIVE, None)


class Fraud:
    """10,000 were paid in as INR, and all of it converted to USD."""

    def __init__(self, case: Case, usd: Wallet, points: Wallet, deposit: Operation) -> None:
        self.case, self.usd, self.points, self.deposit = case, usd, points, deposit

    async def freezes(self) -> list[tuple[WalletStatus, Freeze | None]]:
        wallets = [await current(wallet) for wallet in (self.case.wallet, self.usd, self.points)]
        return [(wallet.status, wallet.freeze) for wallet in wallets]

    async def pays_out(self) -> str:
        """How a withdrawal from the wallet in USD comes out: its status, or the code of its refusal."""
        (decided,) = await run(self.case.databases, withdrawal_of(self.usd, 100))
        assert decided.answer is not None
        body = orjson.loads(decided.answer.body)
        return str(body.get("error") or body["status"])

    async def open(self, currency: str) -> Wallet:
        requester = Requester(self.usd.user_id, None)
        return await open_wallet(self.case.databases.client, requester, currency, Policy())

    async def unfreeze(self, wallet: Wallet) -> Wallet:
        admin = Requester(self.case.admin_id, None)
        return await wallet_life.unfreeze_wallet(self.case.ledger, admin, wallet.id, "It looks fine", None)


@pytest.fixture
async def fraud(case: Case, databases: Databases) -> Fraud:
    user = await user_repository.find(case.wallet.user_id)
    assert user is not None
    usd = await make_wallet(databases, user, currency="USD")
    points = await make_wallet(databases, user, currency="PTS")
    deposit = await fund_wallet(databases, case.wallet, 10_000)
    (converted,) = await run(databases, conversion_of(await make_quote(databases, user)))
    assert converted.error is None, converted
    return Fraud(case, await current(usd), points, deposit)


class TestAReturnThatIsNotCovered:
    async def test_stops_outgoing_money_of_all_wallets_of_its_owner(self, fraud: Fraud) -> None:
        assert fraud.usd.available == 120
        await fraud.case.take_back(fraud.deposit)
        assert await fraud.pays_out() == "wallet_frozen"
        assert (await current(fraud.usd)).available == 120
        assert await fraud.freezes() == [_OUT, _OUT, _ACTIVE]
        events = fraud.case.databases.wallet["audit_events"]
        for wallet in (fraud.case.wallet, fraud.usd):
            event = await events.find_one({"subject_id": wallet.id, "action": "wallet.frozen"})
            assert event is not None
            assert event["_id"] == (await current(wallet)).freeze_event_id
            assert event["details"]["return_id"] == return_id_of(fraud.deposit.id)

    async def test_that_waits_for_a_person_stops_it_too(self, fraud: Fraud) -> None:
        await fraud.case.close()
        await fraud.case.take_back(fraud.deposit)
        assert (await fraud.freezes())[1] == _OUT
        with pytest.raises(WalletOwes):
            await fraud.unfreeze(fraud.usd)

    async def test_leaves_each_wallet_shut_as_far_as_it_was(self, fraud: Fraud) -> None:
        await freeze(fraud.case.databases, fraud.usd, await fraud.case.admin(), Freeze.IN)
        await fraud.case.take_back(fraud.deposit)
        assert (await fraud.freezes())[1] == (WalletStatus.FROZEN, Freeze.BOTH)

    async def test_freezes_what_is_frozen_once_more_so_that_no_release_from_before_covers_it(
        self, fraud: Fraud
    ) -> None:
        for wallet in (fraud.case.wallet, fraud.usd):
            await freeze(fraud.case.databases, wallet, await fraud.case.admin(), Freeze.OUT)
        before = [(await current(wallet)).freeze_event_id for wallet in (fraud.case.wallet, fraud.usd)]
        await fraud.case.take_back(fraud.deposit)
        after = [await current(wallet) for wallet in (fraud.case.wallet, fraud.usd)]
        assert [(one.status, one.freeze) for one in after] == [_OUT, _OUT]
        assert {one.freeze_event_id for one in after}.isdisjoint(before)

    async def test_stops_it_until_it_is_paid_and_an_admin_unfreezes_each_wallet(self, fraud: Fraud) -> None:
        await fraud.case.take_back(fraud.deposit)
        with pytest.raises(WalletOwes):
            await fraud.unfreeze(fraud.usd)
        admin = Requester(fraud.case.admin_id, None)
        with pytest.raises(WalletOwes):
            await wallet_life.freeze_wallet(fraud.case.ledger, admin, fraud.usd.id, Freeze.IN, "Let it out", None)
        await run(fraud.case.databases, fraud.case.credit(10_000))
        await fraud.unfreeze(fraud.usd)
        assert await fraud.pays_out() == "pending"

    async def test_opens_no_wallet_meanwhile(self, fraud: Fraud) -> None:
        await fraud.case.take_back(fraud.deposit)
        with pytest.raises(WalletOwes):
            await fraud.open("EUR")

    async def test_freezes_a_wallet_that_is_opened_at_once_or_it_is_not_opened(self, fraud: Fraud) -> None:
        opened, _ = await asyncio.gather(fraud.open("EUR"), fraud.case.take_back(fraud.deposit), return_exceptions=True)
        if isinstance(opened, WalletOwes):
            return
        assert isinstance(opened, Wallet), opened
        wallet = await current(opened)
        assert (wallet.status, wallet.freeze) == _OUT


class TestAReturnInTheMiddleOfOpeningAnotherWallet:
    """The moment that the opening command reads comes before the return, and its commit comes after it."""

    @pytest.fixture
    def interrupted(self, fraud: Fraud, resources: Resources, monkeypatch: pytest.MonkeyPatch) -> None:
        other = copy(fraud.case)
        other.ledger = resources.ledger

        async def begin_before_the_return(session: AsyncClientSession) -> None:
            monkeypatch.undo()
            await start_transaction(session)
            await fraud.case.databases.wallet["wallets"].find_one({"_id": fraud.usd.id}, session=session)
            await other.take_back(fraud.deposit)

        monkeypatch.setattr("service.ledger.transaction.start_transaction", begin_before_the_return)

    async def test_keeps_it_frozen(self, fraud: Fraud, request: pytest.FixtureRequest) -> None:
        await freeze(fraud.case.databases, fraud.usd, await fraud.case.admin(), Freeze.OUT)
        request.getfixturevalue("interrupted")
        with pytest.raises(WalletOwes):
            await fraud.unfreeze(fraud.usd)
        assert (await fraud.freezes())[1] == _OUT

    async def test_keeps_it_closed(self, fraud: Fraud, request: pytest.FixtureRequest) -> None:
        admin = Requester(fraud.case.admin_id, None)
        wallet = await fraud.open("GBP")
        await wallet_life.close_wallet(fraud.case.ledger, admin, wallet.id, "Not needed", None, is_admin=True)
        request.getfixturevalue("interrupted")
        with pytest.raises(WalletOwes):
            await wallet_life.reopen_wallet(fraud.case.ledger, admin, wallet.id, "Needed after all", None)
        assert (await current(wallet)).status is WalletStatus.CLOSED


async def test_that_waits_for_a_person_keeps_other_wallets_closed(fraud: Fraud) -> None:
    admin = Requester(fraud.case.admin_id, None)
    wallet = await fraud.open("GBP")
    await wallet_life.close_wallet(fraud.case.ledger, admin, wallet.id, "Not needed", None, is_admin=True)
    await fraud.case.close()
    await fraud.case.take_back(fraud.deposit)
    with pytest.raises(WalletOwes):
        await wallet_life.reopen_wallet(fraud.case.ledger, admin, wallet.id, "Needed after all", None)
    with pytest.raises(WalletOwes):
        await fraud.open("EUR")


async def test_one_that_is_covered_stops_nothing(case: Case, databases: Databases) -> None:
    deposit = await fund_wallet(databases, case.wallet, 10_000)
    await case.take_back(deposit)
    wallet = await current(case.wallet)
    assert (wallet.status, wallet.freeze, wallet.available) == (*_ACTIVE, 0)
