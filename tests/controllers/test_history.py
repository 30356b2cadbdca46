"""A wallet's past over HTTP: histories narrowed by any filters, and balances as they were."""

from datetime import timedelta
from typing import Any

import httpx
import pytest

from service.controllers.schemas import BalancesAtView, WalletAtView
from service.database import Databases
from service.domain.clock import to_rfc3339, utc_now
from service.domain.entries import EntryType
from service.domain.wallets import Wallet
from service.repositories.sessions import ENDED_TOKENS_LOOK
from service.services.access_tokens import issue_access_token
from service.settings import Settings
from tests.factories import fund_wallet, make_account, make_user, make_wallet
from tests.histories import OPENED_AT, Step, write_history
from tests.servers import Admin, fail_point

HISTORY = (
    Step(EntryType.DEPOSIT, 1_000, reference="dep_1"),
    Step(EntryType.WITHDRAWAL, 300, "rent", reference="wdr_1", status="pending"),
    Step(EntryType.WITHDRAWAL, 200, "food", reference="wdr_2", status="pending"),
    Step(EntryType.WITHDRAWAL_REFUND, 300, "rent", reference="wdr_1", status="failed"),
    Step(EntryType.WITHDRAWAL_SETTLEMENT, 200, "food", reference="wdr_2"),
    Step(EntryType.TRANSFER_OUT, 50, "rent", reference="trf_1", counterparty="wal_other"),
    Step(EntryType.TRANSFER_IN, 70, reference="trf_2", counterparty="wal_other"),
)
MICROSECOND = timedelta(microseconds=1)
# Every process writes there again and again, whatever it is asked: its heartbeat, and the server's time.
_IN_BACKGROUND = ("ledger_processes", "server_clock")


def after_h(hours: float) -> str:
    return to_rfc3339(OPENED_AT + timedelta(hours=hours))


class Past:
    """Somebody with a wallet that has a HISTORY, an entry each hour since OPENED_AT."""

    def __init__(self, api: httpx.AsyncClient, wallet: Wallet, token: str) -> None:
        self.api = api
        self.wallet = wallet
        self.of_wallet = f"/api/v1/wallets/{wallet.id}"
        self.of_user = f"/api/v1/users/{wallet.user_id}"
        self.headers = {"Authorization": f"Bearer {token}"}

    async def get(self, path: str, **query: Any) -> httpx.Response:
        return await self.api.get(path, params=query, headers=self.headers)


@pytest.fixture
async def past(api: httpx.AsyncClient, databases: Databases, settings: Settings) -> Past:
    user = await make_user(databases)
    wallet = await make_wallet(databases, user, created_at=OPENED_AT, updated_at=OPENED_AT)
    await write_history(databases, wallet, *HISTORY)
    return Past(api, wallet, issue_access_token(user, settings, utc_now()))


class TestFilters:
    @pytest.mark.parametrize(
        ("query", "seqs"),
        [
            ({"type": ["WITHDRAWAL", "TRANSFER_OUT"]}, [6, 3, 2]),
            ({"category": "rent"}, [6, 4, 2]),
            ({"category": "nothing"}, []),
            ({"direction": "credit"}, [7, 4, 1]),
            ({"direction": "debit"}, [6, 5, 3, 2]),
            ({"status": "pending"}, [3, 2]),
            ({"reference": "wdr_1"}, [4, 2]),
            ({"counterparty": "wal_other"}, [7, 6]),
            ({"amount_min": 300}, [4, 2, 1]),
            ({"amount_max": 70}, [7, 6]),
            ({"amount_min": 70, "amount_max": 200}, [7, 5, 3]),
            ({"amount_min": 201, "amount_max": 200}, []),
            ({"created_from": after_h(3)}, [7, 6, 5, 4, 3]),
            ({"created_to": after_h(3)}, [2, 1]),
            ({"created_from": after_h(3), "created_to": after_h(5)}, [4, 3]),
            ({"created_from": after_h(5), "created_to": after_h(3)}, []),
            ({"created_from": after_h(2), "category": "rent", "direction": "debit", "amount_max": 299}, [6]),
            ({"type": "WITHDRAWAL", "category": "food", "status": "pending", "counterparty": "bank"}, [3]),
        ],
    )
    async def test_narrow_alone_and_together_by_wallet_and_by_user(
        self, past: Past, query: dict[str, Any], seqs: list[int]
    ) -> None:
        for path in (past.of_wallet, past.of_user):
            answer = await past.get(f"{path}/transactions", **query)
            assert answer.status_code == 200, answer.text
            assert [row["seq"] for row in answer.json()["data"]] == seqs

    @pytest.mark.parametrize(
        "query",
        [
            {"category": "rent"},
            {"direction": "debit"},
            {"counterparty": "bank"},
            {"amount_min": 60},
            {"created_from": after_h(2), "created_to": after_h(7)},
            {"status": "success", "created_to": after_h(7)},
        ],
    )
    async def test_page_by_page_the_list_is_the_same(self, past: Past, query: dict[str, Any]) -> None:
        for path in (past.of_wallet, past.of_user):
            whole = (await past.get(f"{path}/transactions", **query)).json()["data"]
            assert len(whole) > 1
            seen: list[Any] = []
            cursor: dict[str, str] = {}
            while True:
                page = (await past.get(f"{path}/transactions", limit=1, **query, **cursor)).json()
                seen += page["data"]
                if not page["has_more"]:
                    break
                cursor = {"cursor": page["next_cursor"]}
            assert seen == whole

    @pytest.mark.parametrize(
        "other",
        [
            {"category": "food"},
            {"category": "rent", "direction": "debit"},
            {"category": "rent", "status": "success"},
            {"category": "rent", "reference": "wdr_1"},
            {"category": "rent", "counterparty": "bank"},
            {"category": "rent", "amount_min": 1},
            {"category": "rent", "amount_max": 300},
            {"category": "rent", "created_from": after_h(0)},
            {},
        ],
    )
    async def test_a_cursor_holds_under_its_own_filters_only(self, past: Past, other: dict[str, Any]) -> None:
        for path in (past.of_wallet, past.of_user):
            first = (await past.get(f"{path}/transactions", limit=1, category="rent")).json()
            cursor = first["next_cursor"]
            assert (await past.get(f"{path}/transactions", category="rent", cursor=cursor)).status_code == 200
            answer = await past.get(f"{path}/transactions", cursor=cursor, **other)
            assert (answer.status_code, answer.json()["error"]) == (400, "invalid_cursor")

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            *(("amount_min", value) for value in ("0", "-1", "1.0", "1_000", "1e3", " 1", "", "९", "9007199254740992")),
            ("amount_max", "ten"),
            ("direction", "sideways"),
            ("category", ""),
            ("category", "x" * 65),
            ("category[$ne]", "rent"),
            ("reference", "x" * 65),
            ("counterparty", ""),
            ("status", "x" * 65),
            ("currency_code", "INR"),
        ],
    )
    async def test_refuse_what_they_do_not_know(self, past: Past, name: str, value: str) -> None:
        for path in (past.of_wallet, past.of_user):
            answer = await past.get(f"{path}/transactions", **{name: value})
            assert (answer.status_code, answer.json()["error"]) == (422, "invalid_fields")
            assert [field["pointer"] for field in answer.json()["errors"]] == [f"/query/{name}"]

    async def test_a_search_without_end_is_ended_and_says_how_to_shorten_it(
        self, past: Past, admin: Admin, settings: Settings
    ) -> None:
        namespace = f"{settings.database}.transaction_logs"
        for path in (past.of_wallet, past.of_user):
            # MaxTimeMSExpired, as the server says it.
            with fail_point(admin, times=1, failCommands=["find"], namespace=namespace, errorCode=50):
                answer = await past.get(f"{path}/transactions", reference="wdr_9")
            assert (answer.status_code, answer.json()["error"]) == (422, "search_too_long")


class TestBalanceAt:
    @pytest.mark.parametrize(
        ("hours", "seq", "available", "held"),
        [
            (-1, 0, 0, 0),
            (0.5, 0, 0, 0),
            (1, 1, 1_000, 0),
            (1.5, 1, 1_000, 0),
            (3, 3, 500, 500),
            (4, 4, 800, 200),
            (5, 5, 800, 0),
            (7, 7, 820, 0),
            (24 * 365, 7, 820, 0),
        ],
    )
    async def test_is_what_the_last_entry_up_to_then_left(
        self, past: Past, hours: float, seq: int, available: int, held: int
    ) -> None:
        at = after_h(hours)
        amounts = {"at": at, "seq": seq, "available": available, "held": held, "balance": available + held}
        answer = await past.get(past.of_wallet, at=at)
        assert answer.status_code == 200
        assert answer.json() == {
            "id": past.wallet.id, "user_id": past.wallet.user_id, "currency": "INR", **amounts,
        }  # fmt: skip
        assert WalletAtView(**answer.json()).model_dump() == answer.json()
        answer = await past.get(f"{past.of_user}/balance", at=at)
        assert answer.json() == {
            "user_id": past.wallet.user_id,
            "at": at,
            "balances": [{"wallet_id": past.wallet.id, "currency": "INR", **amounts}],
        }
        assert BalancesAtView(**answer.json()).model_dump() == answer.json()

    async def test_a_moment_before_an_entry_is_without_it(self, past: Past) -> None:
        just_before = (OPENED_AT + timedelta(hours=2) - MICROSECOND).isoformat()
        assert (await past.get(past.of_wallet, at=just_before)).json()["seq"] == 1

    async def test_now_it_is_the_balance(self, past: Past) -> None:
        now = (await past.get(past.of_wallet)).json()
        then = (await past.get(past.of_wallet, at=to_rfc3339(utc_now()))).json()
        assert {name: now[name] for name in ("seq", "available", "held", "balance")} == {
            name: then[name] for name in ("seq", "available", "held", "balance")
        }

    async def test_is_told_for_every_wallet_there_is_by_now(self, past: Past, databases: Databases) -> None:
        wallet = past.wallet
        user = await make_user(databases)
        dollars = await make_wallet(databases, user.model_copy(update={"id": wallet.user_id}), currency="USD")
        await fund_wallet(databases, dollars, 9)
        answer = await past.get(f"{past.of_user}/balance", at=after_h(3))
        told = [(one["wallet_id"], one["seq"], one["balance"]) for one in answer.json()["balances"]]
        assert told == [(dollars.id, 0, 0), (wallet.id, 3, 1_000)]

    @pytest.mark.parametrize("query", ["at=yesterday", "at=2026-01-01", "at=1700000000", "at=", "since=x", "at[$lt]=x"])
    async def test_refuses_what_is_no_time(self, past: Past, query: str) -> None:
        for path in (past.of_wallet, f"{past.of_user}/balance"):
            answer = await past.api.get(f"{path}?{query}", headers=past.headers)
            assert (answer.status_code, answer.json()["error"]) == (422, "invalid_fields")
            assert [field["pointer"] for field in answer.json()["errors"]] == [f"/query/{query.partition('=')[0]}"]

    async def test_somebody_elses_is_not_found(self, past: Past, databases: Databases) -> None:
        other = await make_account(databases, balance=777_123_456_789_012)
        for path in (f"/api/v1/wallets/{other.wallet.id}", f"/api/v1/users/{other.user.id}/balance"):
            answer = await past.get(path, at=after_h(1))
            assert (answer.status_code, answer.json()["error"]) == (404, "not_found")
            assert "777123456789012" not in answer.text


class TestTheHotBalance:
    async def test_asks_the_database_once(self, past: Past, admin: Admin, settings: Settings) -> None:
        database = admin[settings.database]
        in_background = {f"{settings.database}.{name}" for name in _IN_BACKGROUND}
        database["system.profile"].drop()
        database.command({"profile": 2})
        try:
            assert (await past.get(f"{past.of_user}/balance")).status_code == 200
            asked = [
                row["ns"]
                for row in database["system.profile"].find({"appName": "wallet-service"})
                if row["command"].get("comment") != ENDED_TOKENS_LOOK and row["ns"] not in in_background
            ]
        finally:
            database.command({"profile": 0})
            database["system.profile"].drop()
        assert asked == [f"{settings.database}.wallets"]
