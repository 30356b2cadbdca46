"""Statements over HTTP: what they tell, that a file is either complete or broken, and that nothing stays open."""

import asyncio
import csv
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from io import StringIO
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from scripts.embedded import free_port
from service.controllers.statements import StatementView
from service.database import Databases
from service.domain.clock import to_rfc3339
from service.domain.entries import Entry, EntryType
from service.domain.money import MAX_AMOUNT_MINOR
from service.domain.wallets import Wallet
from service.repositories import transaction_logs as log_repository
from service.repositories import users as user_repository
from service.settings import Settings
from tests.factories import bearer, make_account
from tests.histories import OPENED_AT, Step, make_old_wallet, write_history
from tests.servers import Admin, fail_point

HISTORY = (
    Step(EntryType.DEPOSIT, 100_000),
    Step(EntryType.WITHDRAWAL, 30_000, "rent", status="pending"),
    Step(EntryType.TRANSFER_OUT, 2_550, 'a "quoted", one'),
    Step(EntryType.WITHDRAWAL_SETTLEMENT, 30_000, "rent"),
    Step(EntryType.TRANSFER_IN, 5),
    Step(EntryType.HOLD, 1_000),
    Step(EntryType.HOLD_RELEASE, 1_000),
)
FROM, TO = OPENED_AT, OPENED_AT + timedelta(days=365)
# Several batches, and far more than a connection's buffers hold.
MANY = 1_001


class Holder:
    """Somebody who asks for statements of a wallet."""

    def __init__(self, api: httpx.AsyncClient, wallet: Wallet, headers: dict[str, str]) -> None:
        self.api = api
        self.wallet = wallet
        self.headers = headers

    @property
    def path(self) -> str:
        return f"/api/v1/wallets/{self.wallet.id}/statement"

    async def ask(self, since_h: float = 0, until_h: float = 8_760, **query: Any) -> httpx.Response:
        period = {
            "from": to_rfc3339(OPENED_AT + timedelta(hours=since_h)),
            "to": to_rfc3339(OPENED_AT + timedelta(hours=until_h)),
        }
        return await self.api.get(self.path, params=period | query, headers=self.headers)

    async def json(self, since_h: float = 0, until_h: float = 8_760) -> dict[str, Any]:
        answer = await self.ask(since_h, until_h)
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    async def csv(self, since_h: float = 0, until_h: float = 8_760) -> list[dict[str, str]]:
        answer = await self.ask(since_h, until_h, format="csv")
        assert answer.status_code == 200, answer.text
        return list(csv.DictReader(StringIO(answer.text, newline=""), strict=True))


async def make_holder(
    api: httpx.AsyncClient, databases: Databases, settings: Settings, *steps: Step, currency: str = "INR"
) -> Holder:
    wallet = await make_old_wallet(databases, currency)
    await write_history(databases, wallet, *steps)
    user = await user_repository.find(wallet.user_id)
    assert user is not None
    return Holder(api, wallet, bearer(user, settings))


@pytest.fixture
async def holder(api: httpx.AsyncClient, databases: Databases, settings: Settings) -> Holder:
    """Of a wallet with HISTORY, an entry each hour since OPENED_AT."""
    return await make_holder(api, databases, settings, *HISTORY)


@pytest.fixture(scope="module")
async def busy(app: FastAPI, databases: Databases, settings: Settings) -> AsyncIterator[Holder]:
    """Of a wallet with more movements than JSON holds."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://wallet.example") as client:
        yield await make_holder(client, databases, settings, *[Step(EntryType.DEPOSIT, 3)] * MANY)


class TestJson:
    async def test_leads_from_the_opening_balance_to_the_closing_one(self, holder: Holder) -> None:
        statement = await holder.json(since_h=2, until_h=6)
        assert [(row["seq"], row["type"], row["change"], row["balance"]) for row in statement["rows"]] == [
            (2, "WITHDRAWAL", 0, 100_000),
            (3, "TRANSFER_OUT", -2_550, 97_450),
            (4, "WITHDRAWAL_SETTLEMENT", -30_000, 67_450),
            (5, "TRANSFER_IN", 5, 67_455),
        ]
        opening, closing = statement["opening"], statement["closing"]
        assert [opening[name] for name in ("seq", "available", "held", "balance")] == [1, 100_000, 0, 100_000]
        assert [closing[name] for name in ("seq", "available", "held", "balance")] == [5, 67_455, 0, 67_455]
        assert (statement["total_in"], statement["total_out"], statement["movements"]) == (5, 32_550, 4)
        assert opening["balance"] + statement["total_in"] - statement["total_out"] == closing["balance"]
        assert statement["rows"][-1]["hash"] == closing["hash"]
        assert (statement["currency"], statement["wallet_id"]) == ("INR", holder.wallet.id)
        assert StatementView(**statement).model_dump(mode="json", by_alias=True) == statement

    @pytest.mark.parametrize(
        ("since_h", "until_h", "seqs"),
        [
            (0, 1, []),
            (0, 1.001, [1]),
            (1, 2, [1]),
            (1.001, 2, []),
            (3, 5, [3, 4]),
            (7, 9_000, [7]),
            (8, 9_000, []),
            (-48, -24, []),
        ],
    )
    async def test_begins_at_from_and_ends_before_to(
        self, holder: Holder, since_h: float, until_h: float, seqs: list[int]
    ) -> None:
        statement = await holder.json(since_h, until_h)
        assert [row["seq"] for row in statement["rows"]] == seqs
        assert statement["movements"] == len(seqs)
        if not seqs:
            assert statement["opening"] == statement["closing"]

    async def test_those_of_two_periods_join(self, holder: Holder) -> None:
        first, second = await holder.json(0, 3), await holder.json(3, 9_000)
        assert first["closing"] == second["opening"]
        assert len(first["rows"] + second["rows"]) == len(HISTORY)

    async def test_is_refused_where_it_would_be_too_long_and_says_what_to_take(self, busy: Holder) -> None:
        answer = await busy.ask()
        problem = answer.json()
        assert (answer.status_code, problem["error"]) == (422, "statement_too_long")
        assert (problem["movements"], problem["limit"]) == (MANY, 1_000)
        assert "format=csv" in problem["message"]
        assert len((await busy.json(since_h=1.5))["rows"]) == 1_000

    async def test_is_refused_where_a_total_is_more_than_json_carries(
        self, api: httpx.AsyncClient, databases: Databases, settings: Settings
    ) -> None:
        there_and_back = (Step(EntryType.CREDIT, MAX_AMOUNT_MINOR), Step(EntryType.DEBIT, MAX_AMOUNT_MINOR))
        holder = await make_holder(api, databases, settings, *there_and_back * 2)
        assert (await holder.json(until_h=3))["total_in"] == MAX_AMOUNT_MINOR
        answer = await holder.ask()
        assert (answer.status_code, answer.json()["error"]) == (422, "total_overflow")
        assert (await holder.csv())[-1]["total_in"] == "180143985094819.82"


class TestCsv:
    async def test_tells_the_same_between_an_opening_and_a_closing_record(self, holder: Holder) -> None:
        opening, *movements, closing = await holder.csv(since_h=2, until_h=6)
        assert (opening["record"], closing["record"]) == ("opening", "closing")
        assert {row["record"] for row in movements} == {"movement"}
        told = [
            (row["seq"], row["change_minor"], row["change"], row["balance_minor"], row["held"]) for row in movements
        ]
        assert told == [
            ("2", "0", "0.00", "100000", "300.00"),
            ("3", "-2550", "-25.50", "97450", "300.00"),
            ("4", "-30000", "-300.00", "67450", "0.00"),
            ("5", "5", "0.05", "67455", "0.00"),
        ]
        frame = ("seq", "time", "currency", "balance_minor", "balance")
        assert [opening[name] for name in frame] == ["1", "2026-01-01T02:00:00.000Z", "INR", "100000", "1000.00"]
        assert [closing[name] for name in frame] == ["5", "2026-01-01T06:00:00.000Z", "INR", "67455", "674.55"]
        totals = ("total_in_minor", "total_in", "total_out_minor", "total_out", "movements")
        assert [closing[name] for name in totals] == ["5", "0.05", "32550", "325.50", "4"]
        assert {opening[name] for name in totals} == {""}
        assert movements[-1]["hash"] == closing["hash"]

    async def test_has_as_many_cells_in_each_record_and_ends_each_by_crlf(self, holder: Holder) -> None:
        answer = await holder.ask(format="csv")
        assert answer.content.count(b"\n") == answer.content.count(b"\r\n") == len(HISTORY) + 3
        assert answer.content.endswith(b"\r\n")
        assert {len(record) for record in csv.reader(StringIO(answer.text, newline=""))} == {28}
        assert b'"a ""quoted"", one"' in answer.content

    async def test_is_a_file_with_a_name(self, holder: Holder) -> None:
        answer = await holder.ask(format="csv")
        assert answer.headers["content-type"] == "text/csv; charset=utf-8; header=present"
        name = f"statement_{holder.wallet.id}_20260101_20270101.csv"
        assert answer.headers["content-disposition"] == f'attachment; filename="{name}"'

    async def test_text_cannot_become_a_formula_and_numbers_stay_numbers(
        self, api: httpx.AsyncClient, databases: Databases, settings: Settings
    ) -> None:
        steps = (Step(EntryType.CREDIT, 7, "=1+1", reference="+1", counterparty="@x"), Step(EntryType.DEBIT, 7, "-1"))
        holder = await make_holder(api, databases, settings, *steps)
        _, first, second, _ = await holder.csv()
        assert [first[name] for name in ("category", "reference", "counterparty")] == ["'=1+1", "'+1", "'@x"]
        assert (second["category"], second["change_minor"], second["change"]) == ("'-1", "-7", "-0.07")

    @pytest.mark.parametrize(("currency", "decimal"), [("JPY", "1234"), ("KWD", "1.234")])
    async def test_decimals_are_the_currencys(
        self, api: httpx.AsyncClient, databases: Databases, settings: Settings, currency: str, decimal: str
    ) -> None:
        holder = await make_holder(api, databases, settings, Step(EntryType.CREDIT, 1_234), currency=currency)
        assert (await holder.csv())[1]["amount"] == decimal

    async def test_has_any_length(self, busy: Holder) -> None:
        records = await busy.csv()
        assert [int(row["seq"]) for row in records] == [0, *range(1, MANY + 1), MANY]
        assert records[-1]["balance_minor"] == str(3 * MANY)

    async def test_of_an_empty_wallet_is_complete_too(
        self, api: httpx.AsyncClient, databases: Databases, settings: Settings
    ) -> None:
        holder = await make_holder(api, databases, settings)
        opening, closing = await holder.csv()
        assert (opening["record"], closing["record"], closing["balance_minor"]) == ("opening", "closing", "0")


class TestRefusals:
    @pytest.mark.parametrize(
        ("query", "pointer"),
        [
            ("", "/query/from"),
            ("from=2026-01-01T00:00:00Z", "/query/to"),
            ("to=2026-01-01T00:00:00Z", "/query/from"),
            ("from=2026-01-01&to=2026-02-01T00:00:00Z", "/query/from"),
            ("from=2026-01-01T00:00:00Z&to=2026-01-01T00:00:00Z", "/query/to"),
            ("from=2026-02-01T00:00:00Z&to=2026-01-01T00:00:00Z", "/query/to"),
            ("from=2026-01-01T00:00:00Z&to=2026-02-01T00:00:00Z&format=pdf", "/query/format"),
            ("from=2026-01-01T00:00:00Z&to=2026-02-01T00:00:00Z&limit=1", "/query/limit"),
            ("created_from=2026-01-01T00:00:00Z&from=2026-01-01T00:00:00Z&to=2026-02-01T00:00:00Z",
             "/query/created_from"),
        ],
    )  # fmt: skip
    async def test_a_period_is_two_times_in_order(self, holder: Holder, query: str, pointer: str) -> None:
        answer = await holder.api.get(f"{holder.path}?{query}", headers=holder.headers)
        assert (answer.status_code, answer.json()["error"]) == (422, "invalid_fields")
        assert pointer in [field["pointer"] for field in answer.json()["errors"]]

    @pytest.mark.parametrize("form", ["json", "csv"])
    async def test_somebody_elses_is_not_found(self, holder: Holder, databases: Databases, form: str) -> None:
        holder.wallet = (await make_account(databases, balance=777)).wallet
        answer = await holder.ask(format=form)
        assert (answer.status_code, answer.json()["error"]) == (404, "not_found")
        assert (await holder.api.get(holder.path)).status_code == 401


class TestWhileTheWalletMoves:
    @pytest.mark.parametrize("form", ["json", "csv"])
    async def test_a_statement_is_of_the_moment_it_was_asked_for(
        self, holder: Holder, databases: Databases, monkeypatch: pytest.MonkeyPatch, form: str
    ) -> None:
        """An entry arrives after each question to the database."""
        find_point_before = log_repository.find_point_before

        async def find_and_be_overtaken(*arguments: Any) -> Any:
            point = await find_point_before(*arguments)
            await write_history(databases, holder.wallet, Step(EntryType.CREDIT, 1))
            return point

        monkeypatch.setattr(log_repository, "find_point_before", find_and_be_overtaken)
        if form == "json":
            statement = await holder.json()
            assert (statement["movements"], len(statement["rows"])) == (7, 7)
        else:
            records = await holder.csv()
            assert (len(records), records[-1]["seq"]) == (9, "7")

    async def test_a_period_to_come_holds_nothing_though_entries_arrive(
        self, holder: Holder, databases: Databases, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        find_point_before = log_repository.find_point_before

        async def find_and_be_overtaken(*arguments: Any) -> Any:
            point = await find_point_before(*arguments)
            await write_history(databases, holder.wallet, Step(EntryType.CREDIT, 1))
            return point

        monkeypatch.setattr(log_repository, "find_point_before", find_and_be_overtaken)
        statement = await holder.json(since_h=9_000, until_h=9_001)
        assert (statement["movements"], statement["rows"]) == (0, [])
        assert statement["opening"] == statement["closing"]


class TestDamage:
    @pytest.mark.parametrize("change", [{"available_before": 1}, {"prev_hash": "f" * 64}])
    async def test_an_entry_that_does_not_follow_is_not_told_as_if_it_did(
        self, holder: Holder, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
    ) -> None:
        entry_from_row = log_repository.entry_from_row

        def damaged(row: dict[str, Any]) -> Entry:
            entry = entry_from_row(row)
            return entry._replace(**change) if entry.seq == 3 else entry

        monkeypatch.setattr(log_repository, "entry_from_row", damaged)
        assert (await holder.ask()).status_code == 500
        assert (await holder.ask(until_h=3)).status_code == 200

    async def test_a_missing_last_entry_is_noticed(
        self, holder: Holder, admin: Admin, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        find_point_before = log_repository.find_point_before

        async def find_and_lose_the_last(*arguments: Any) -> Any:
            point = await find_point_before(*arguments)
            admin[settings.database]["transaction_logs"].delete_one({"wallet_id": holder.wallet.id, "seq": 7})
            return point

        monkeypatch.setattr(log_repository, "find_point_before", find_and_lose_the_last)
        assert (await holder.ask()).status_code == 500


@pytest.fixture
async def address(app: FastAPI) -> AsyncIterator[str]:
    """The API behind a real server: what a client sees of a broken answer is the server's doing."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, lifespan="off", log_config=None, http="httptools"))
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 uvicorn has no event for it
        await asyncio.sleep(0.01)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    await serving


def open_cursors(admin: Admin, wallet: Wallet) -> Sequence[Any]:
    """What the server still keeps for somebody's reading of that wallet."""
    pipeline: list[dict[str, Any]] = [
        {"$currentOp": {"allUsers": True, "idleCursors": True}},
        {"$match": {"cursor.originatingCommand.filter.wallet_id": wallet.id}},
    ]
    return list(admin.admin.aggregate(pipeline))


@pytest.fixture
async def reader(api: httpx.AsyncClient, databases: Databases, settings: Settings) -> Holder:
    """Of a wallet that nobody has read before."""
    return await make_holder(api, databases, settings, *[Step(EntryType.DEPOSIT, 3)] * MANY)


class TestBrokenStreams:
    async def test_a_complete_file_ends_with_its_last_chunk(self, busy: Holder, address: str) -> None:
        async with httpx.AsyncClient(base_url=address) as client:
            records = await Holder(client, busy.wallet, busy.headers).csv()
        assert len(records) == MANY + 2

    @pytest.mark.parametrize("failure", [{"errorCode": 11600}, {"closeConnection": True}])
    async def test_a_database_that_fails_midway_breaks_the_file_off(
        self, busy: Holder, address: str, admin: Admin, failure: dict[str, Any]
    ) -> None:
        received = bytearray()
        with (
            fail_point(admin, times=1, failCommands=["getMore"], appName="wallet-service", **failure),
            pytest.raises(httpx.RemoteProtocolError, match="incomplete"),
        ):
            await self._receive(busy, address, received)
        assert b"opening" in received
        assert b"closing" not in received

    async def _receive(self, holder: Holder, address: str, received: bytearray) -> None:
        period = {"from": to_rfc3339(FROM), "to": to_rfc3339(TO), "format": "csv"}
        async with (
            httpx.AsyncClient(base_url=address) as client,
            client.stream("GET", holder.path, params=period, headers=holder.headers) as answer,
        ):
            assert answer.status_code == 200
            async for chunk in answer.aiter_bytes():
                received.extend(chunk)

    async def test_a_client_that_hangs_up_leaves_no_cursor_behind(
        self, reader: Holder, app: FastAPI, admin: Admin
    ) -> None:
        seen_open: list[Any] = []

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body":
                seen_open.extend(open_cursors(admin, reader.wallet))
                if seen_open:
                    client.hang_up()
                    await asyncio.sleep(60)

        client = Caller(reader)
        await app(client.scope, client.receive, send)
        assert seen_open
        assert open_cursors(admin, reader.wallet) == []

    async def test_nor_does_one_that_hangs_up_while_the_database_is_asked(
        self, reader: Holder, app: FastAPI, admin: Admin
    ) -> None:
        async def send(message: Any) -> None:
            if b"movement" in message.get("body", b""):
                # Called while the next portion is on its way.
                asyncio.get_running_loop().call_later(0.2, client.hang_up)

        client = Caller(reader)
        blocked = {"blockConnection": True, "blockTimeMS": 1_000}
        with fail_point(admin, times=1, failCommands=["getMore"], appName="wallet-service", **blocked):
            await app(client.scope, client.receive, send)
        assert client.has_hung_up
        assert open_cursors(admin, reader.wallet) == []


class Caller:
    """A client as ASGI shows it, so that a test decides when it goes."""

    def __init__(self, holder: Holder) -> None:
        self._gone = asyncio.Event()
        self._has_asked = False
        query = str(httpx.QueryParams({"from": to_rfc3339(FROM), "to": to_rfc3339(TO), "format": "csv"}))
        self.scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": holder.path,
            "raw_path": holder.path.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in holder.headers.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
        }

    @property
    def has_hung_up(self) -> bool:
        return self._gone.is_set()

    def hang_up(self) -> None:
        self._gone.set()

    async def receive(self) -> dict[str, Any]:
        if not self._has_asked:
            self._has_asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}
