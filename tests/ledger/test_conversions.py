"""The rule of conversions: each refusal, what moves, and that a quote is good for one of any number of racers."""

import asyncio
from collections import defaultdict
from datetime import timedelta
from typing import Any, NamedTuple

import orjson
import pytest

from service.database import Databases
from service.domain.clock import utc_now
from service.domain.conversions import Conversion
from service.domain.limits import Limits, Usage
from service.domain.money import MAX_AMOUNT_MINOR
from service.domain.policy import Policy
from service.domain.quotes import Quote, QuoteStatus
from service.domain.wallets import Freeze, Wallet, WalletStatus
from service.ledger.committer import Ledger
from service.ledger.conversions import ConvertMoney
from service.repositories import records as record_repository
from tests.factories import (
    Account,
    conversion_of,
    current,
    fund_wallet,
    make_account,
    make_quote,
    make_user,
    make_wallet,
    run,
)

_RACES = 20
_FROZEN: dict[str, Any] = {"status": WalletStatus.FROZEN}


class Exchange(NamedTuple):
    """Somebody with 100.00 INR, an empty wallet in USD and a quote from the one to the other."""

    account: Account
    target: Wallet
    quote: Quote


@pytest.fixture
async def exchange(databases: Databases) -> Exchange:
    return await make_exchange(databases)


async def make_exchange(databases: Databases) -> Exchange:
    account = await make_account(databases, balance=10_000)
    target = await make_wallet(databases, account.user, currency="USD")
    return Exchange(account, target, await make_quote(databases, account.user))


async def _answer(databases: Databases, command: ConvertMoney, **policy: Any) -> tuple[int, dict[str, Any]]:
    (decided,) = await run(databases, command, policy=Policy(**policy))
    assert decided.answer is not None, decided
    return decided.answer.status_code, orjson.loads(decided.answer.body)


async def _refusal(databases: Databases, command: ConvertMoney) -> str:
    status_code, body = await _answer(databases, command)
    assert status_code >= 400
    assert await databases.wallet["conversions"].count_documents({"quote_id": command.quote_id}) == 0
    code: str = body["error"]
    return code


async def _entries(databases: Databases, quote: Quote) -> list[dict[str, Any]]:
    found = databases.wallet["transaction_logs"].find({"user_id": quote.user_id, "counterparty": "house:fx"})
    return await found.sort("_id").to_list()


class TestAConversion:
    async def test_moves_both_wallets_in_one_transaction_and_uses_the_quote_up(
        self, databases: Databases, exchange: Exchange
    ) -> None:
        command = conversion_of(exchange.quote, category="travel", metadata={"trip": "1"})
        status_code, body = await _answer(databases, command)
        assert status_code == 201
        source = await current(exchange.account.wallet)
        target = await current(exchange.target)
        assert (source.available, target.available) == (0, 120)
        assert (source.open_operations, target.open_operations, source.held, target.held) == (0, 0, 0, 0)
        assert [body[name]["available"] for name in ("from_wallet", "to_wallet")] == [0, 120]
        leaving, coming = await _entries(databases, exchange.quote)
        assert [leaving["type"], coming["type"]] == ["CONVERSION_OUT", "CONVERSION_IN"]
        assert [leaving["amount"], coming["amount"]] == [10_000, 120]
        for entry in (leaving, coming):
            assert (entry["reference"], entry["transaction_id"]) == (body["id"], command.transaction_id)
            assert (entry["category"], entry["status"]) == ("travel", "success")
        quote = await record_repository.find(exchange.quote.id, Quote)
        assert quote is not None
        assert (quote.status, quote.conversion_id, quote.version) == (QuoteStatus.USED, body["id"], 1)

    async def test_is_stored_with_the_rate_of_the_quote(self, databases: Databases, exchange: Exchange) -> None:
        command = conversion_of(exchange.quote)
        await _answer(databases, command)
        stored = await record_repository.find(command.conversion_id, Conversion)
        assert stored is not None
        assert (stored.rate, stored.margin_bp) == (exchange.quote.rate, exchange.quote.margin_bp)
        assert (stored.wallet_id, stored.to_wallet_id) == (exchange.account.wallet.id, exchange.target.id)

    async def test_adds_up_to_zero_in_each_currency_with_what_the_house_has_got_and_given(
        self, databases: Databases, exchange: Exchange
    ) -> None:
        """The house's side is reckoned from the conversions alone, that of the wallets from the entries alone."""
        back = await make_quote(
            databases, exchange.account.user, from_currency="USD", to_currency="INR", amount=70, to_amount=5_799
        )
        for quote in (exchange.quote, back):
            assert (await _answer(databases, conversion_of(quote)))[0] == 201
        sums: dict[str, int] = defaultdict(int)
        for entry in await _entries(databases, exchange.quote):
            sums[entry["currency"]] += entry["available_after"] - entry["available_before"]
        assert sums == {"INR": -10_000 + 5_799, "USD": 120 - 70}
        async for row in databases.wallet["conversions"].find({"user_id": exchange.account.user.id}):
            sums[row["currency"]] += row["amount"]
            sums[row["to_currency"]] -= row["to_amount"]
        assert sums == {"INR": 0, "USD": 0}

    @pytest.mark.parametrize(
        "limits", [Limits(per_transaction=9_999), Limits(per_day=9_999), Limits(per_month=9_999)], ids=str
    )
    async def test_is_within_the_limits_of_the_wallet_that_gives(
        self, databases: Databases, exchange: Exchange, limits: Limits
    ) -> None:
        status_code, body = await _answer(databases, conversion_of(exchange.quote), limits={"INR": limits})
        assert (status_code, body["error"]) == (422, "limit_exceeded")
        dollars = {"USD": Limits(per_transaction=1, per_day=1, per_month=1)}
        assert (await _answer(databases, conversion_of(exchange.quote), limits=dollars))[0] == 201
        usage = (await current(exchange.account.wallet)).usage
        assert (usage.hour_count, usage.day_total, usage.month_total) == (1, 10_000, 10_000)
        assert (await current(exchange.target)).usage == Usage()

    async def test_may_pass_wallets_that_are_frozen_the_other_way(self, databases: Databases) -> None:
        user = await make_user(databases)
        source = await make_wallet(databases, user)
        await fund_wallet(databases, source, 10_000)
        await databases.wallet["wallets"].update_one({"_id": source.id}, {"$set": _FROZEN | {"freeze": Freeze.IN}})
        await make_wallet(databases, user, currency="USD", **_FROZEN, freeze=Freeze.OUT)
        assert (await _answer(databases, conversion_of(await make_quote(databases, user))))[0] == 201


class TestRefusals:
    async def test_a_quote_that_does_not_exist(self, databases: Databases, exchange: Exchange) -> None:
        command = conversion_of(exchange.quote, quote_id="quo_0198c0ffee0070008000000000000001", currencies=())
        assert await _refusal(databases, command) == "not_found"

    async def test_a_record_that_is_no_quote(self, databases: Databases, exchange: Exchange) -> None:
        done = conversion_of(exchange.quote)
        await _answer(databases, done)
        again = conversion_of(exchange.quote, quote_id=done.conversion_id)
        assert await _refusal(databases, again) == "not_found"

    async def test_somebody_elses_quote(self, databases: Databases, exchange: Exchange) -> None:
        thief = await make_account(databases, balance=10_000)
        await make_wallet(databases, thief.user, currency="USD")
        assert await _refusal(databases, conversion_of(exchange.quote, user_id=thief.user.id)) == "not_found"
        assert (await current(exchange.account.wallet)).available == 10_000

    async def test_an_expired_quote_from_its_very_end_on(self, databases: Databases, exchange: Exchange) -> None:
        ends = exchange.quote.expires_at
        assert await _refusal(databases, conversion_of(exchange.quote, now=ends)) == "quote_expired"
        just_in_time = conversion_of(exchange.quote, now=ends - timedelta(milliseconds=1))
        assert (await _answer(databases, just_in_time))[0] == 201

    async def test_a_used_quote_also_long_after(self, databases: Databases, exchange: Exchange) -> None:
        first = conversion_of(exchange.quote)
        await _answer(databases, first)
        await fund_wallet(databases, exchange.account.wallet, 10_000)
        for now in (utc_now(), utc_now() + timedelta(days=1)):
            status_code, body = await _answer(databases, conversion_of(exchange.quote, now=now))
            assert (status_code, body["error"]) == (409, "quote_used")
            assert body["conversion_id"] == first.conversion_id
        assert (await current(exchange.account.wallet)).available == 10_000

    @pytest.mark.parametrize("missing", ["INR", "USD"])
    async def test_a_wallet_that_is_missing(self, databases: Databases, missing: str) -> None:
        user = await make_user(databases)
        await make_wallet(databases, user, currency="USD" if missing == "INR" else "INR")
        status_code, body = await _answer(databases, conversion_of(await make_quote(databases, user)))
        assert (status_code, body["error"], body["currency"]) == (422, "no_wallet_in_currency", missing)

    @pytest.mark.parametrize(
        ("source", "target", "code"),
        [
            (_FROZEN | {"freeze": Freeze.OUT}, {}, "wallet_frozen"),
            (_FROZEN | {"freeze": Freeze.BOTH}, {}, "wallet_frozen"),
            ({}, _FROZEN | {"freeze": Freeze.IN}, "wallet_frozen"),
            ({}, _FROZEN | {"freeze": Freeze.BOTH}, "wallet_frozen"),
            ({"status": WalletStatus.CLOSED}, {}, "wallet_closed"),
            ({}, {"status": WalletStatus.CLOSED}, "wallet_closed"),
            ({"available": 9_999}, {}, "insufficient_funds"),
            ({}, {"available": MAX_AMOUNT_MINOR - 119}, "balance_overflow"),
            ({}, {"held": MAX_AMOUNT_MINOR - 119}, "balance_overflow"),
        ],
    )
    async def test_a_wallet_that_cannot_give_or_take(
        self, databases: Databases, source: dict[str, Any], target: dict[str, Any], code: str
    ) -> None:
        user = await make_user(databases)
        await make_wallet(databases, user, **({"available": 10_000} | source))
        await make_wallet(databases, user, currency="USD", **target)
        quote = await make_quote(databases, user)
        assert await _refusal(databases, conversion_of(quote)) == code
        untouched = await record_repository.find(quote.id, Quote)
        assert untouched == quote

    async def test_a_deactivated_user(self, databases: Databases) -> None:
        user = await make_user(databases, is_active=False)
        await make_wallet(databases, user, available=10_000)
        await make_wallet(databases, user, currency="USD")
        (decided,) = await run(databases, conversion_of(await make_quote(databases, user)))
        assert decided.error is not None
        assert decided.error.code == "account_deactivated"


class TestRaces:
    async def test_of_two_conversions_in_one_batch_the_first_uses_the_quote(
        self, databases: Databases, exchange: Exchange
    ) -> None:
        await fund_wallet(databases, exchange.account.wallet, 10_000)
        decided = await run(databases, conversion_of(exchange.quote), conversion_of(exchange.quote))
        assert [one.answer.status_code for one in decided if one.answer is not None] == [201, 409]
        assert (await current(exchange.target)).available == 120

    async def test_two_ledgers_and_many_keys_convert_one_quote_exactly_once(self, databases: Databases) -> None:
        ledgers = [_ledger(databases) for _ in range(2)]
        for ledger in ledgers:
            ledger.start()
        try:
            for _ in range(_RACES):
                exchange = await make_exchange(databases)
                await fund_wallet(databases, exchange.account.wallet, 30_000)
                await self._race(databases, exchange, ledgers)
        finally:
            for ledger in ledgers:
                await ledger.close()

    async def _race(self, databases: Databases, exchange: Exchange, ledgers: list[Ledger]) -> None:
        decided = await asyncio.gather(
            *(ledger.execute(conversion_of(exchange.quote)) for _ in range(2) for ledger in ledgers)
        )
        statuses = sorted(one.answer.status_code for one in decided if one.answer is not None)
        assert statuses == [201, 409, 409, 409]
        assert (await current(exchange.account.wallet)).available == 30_000
        assert (await current(exchange.target)).available == 120
        assert len(await _entries(databases, exchange.quote)) == 2
        assert await databases.wallet["conversions"].count_documents({"quote_id": exchange.quote.id}) == 1

    async def test_two_ledgers_and_one_key_give_one_answer(self, databases: Databases) -> None:
        ledgers = [_ledger(databases) for _ in range(2)]
        for ledger in ledgers:
            ledger.start()
        try:
            for _ in range(_RACES):
                exchange = await make_exchange(databases)
                command = conversion_of(exchange.quote)
                decided = await asyncio.gather(*(ledger.execute(command) for ledger in ledgers))
                answers = {one.answer.body for one in decided if one.answer is not None}
                assert len(answers) == 1
                assert sorted(one.answer.replayed for one in decided if one.answer is not None) == [False, True]
                assert (await current(exchange.target)).available == 120
        finally:
            for ledger in ledgers:
                await ledger.close()


def _ledger(databases: Databases) -> Ledger:
    return Ledger(
        databases.client,
        policy=Policy(),
        batch_limit=256,
        queue_limit=1000,
        patience_s=10.0,
        on_committed=lambda _: None,
    )
