"""An outage is no defect: two lines in the log for each, and nothing that counts against the rows it kept waiting."""

import asyncio
from collections.abc import MutableMapping, Sequence
from datetime import timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pymongo.errors import AutoReconnect, BulkWriteError, NetworkTimeout, NotPrimaryError, OperationFailure, WriteError

import workers.drain
import workers.outbox
from service.controllers.problems import add_problem_handlers
from service.database import Databases
from service.domain.clock import utc_now
from service.domain.outbox import OutboxRow, OutboxTopic, outbox_row
from service.errors import LedgerBusy, Unavailable
from service.gateways.job_queue import Job
from service.outages import OutageLog
from service.repositories import outbox as outbox_repository
from service.startup import Resources
from tests.factories import make_user
from tests.logs import own_logs
from tests.workers.test_drain import GRACE_S
from workers.drain import run_drains
from workers.outbox import mails_drain

_OUTAGES = [
    Unavailable(retry_after_s=1),
    LedgerBusy(retry_after_s=1),
    NetworkTimeout("timed out"),
    NotPrimaryError("not primary"),
    AutoReconnect("connection closed"),
    # As the driver tells of one write of several.
    WriteError("Not primary while writing to wallet.events", 189),
    BulkWriteError({"writeErrors": [{"index": 0, "code": 11602, "errmsg": "interrupted"}]}),
]


async def until_over(lines: Sequence[MutableMapping[str, Any]]) -> None:
    for _ in range(1_000):
        if lines[-1]["event"] == "outage.ended":
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"it is still going on: {lines}")


class TestAnOutage:
    async def test_has_one_line_where_it_begins_and_one_where_it_ends(self) -> None:
        told = OutageLog(quiet_s=0.2)
        with own_logs() as lines:
            for _ in range(500):
                told.met("drain_outbox", Unavailable(retry_after_s=1), rows_put_back=1)
            await until_over(lines)
        began, ended = lines
        assert (began["event"], began["log_level"], began["error"]) == ("outage.began", "warning", "Unavailable")
        assert (ended["event"], ended["log_level"], ended["rows_put_back"]) == ("outage.ended", "info", 500)
        assert ended["duration_s"] >= 0

    async def test_that_comes_again_is_told_again(self) -> None:
        told = OutageLog(quiet_s=0.01)
        with own_logs() as lines:
            for _ in range(2):
                told.met("sweep", AutoReconnect("away"))
                await until_over(lines)
        assert [line["event"] for line in lines] == ["outage.began", "outage.ended"] * 2


@pytest.mark.parametrize("error", _OUTAGES, ids=lambda error: type(error).__name__)
async def test_a_row_that_an_outage_kept_waiting_is_put_back_and_has_not_failed(
    resources: Resources, databases: Databases, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    user = await make_user(databases)
    told = OutageLog(quiet_s=0.01)
    monkeypatch.setattr(workers.drain, "outages", told)

    async def losing(row: OutboxRow, _desk: Any) -> None:
        if row.subject_id == user.id:
            raise error

    monkeypatch.setattr(workers.outbox, "pursue_row", losing)
    row = outbox_row(OutboxTopic.PASSWORD_NOTICE, user.id, "a-request", utc_now())
    await outbox_repository.insert_many([row], session=None)
    drain = mails_drain(resources)
    with own_logs() as lines:
        await drain.run()
        await drain.close(GRACE_S)
        await until_over(lines)
    # Which row it was is there for those who ask for debug lines.
    shown = [line["event"] for line in lines if line["log_level"] != "debug"]
    assert shown == ["outage.began", "outage.ended"]
    assert not any("exc_info" in line or line["log_level"] == "error" for line in lines)
    assert drain.failed == 0
    left = await databases.wallet["outbox"].find_one({"_id": row.id})
    assert left is not None
    assert "failures" not in left
    assert "claim" not in left
    # Soon again, and not only once its claim would have ended.
    assert left["due_at"] <= utc_now() + timedelta(seconds=2)
    await databases.wallet["outbox"].delete_one({"_id": row.id})


@pytest.mark.parametrize("error", _OUTAGES, ids=lambda error: type(error).__name__)
async def test_a_job_that_an_outage_stops_is_told_of_as_an_outage(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Before it has a row: while it looks for them."""
    told = OutageLog(quiet_s=0.01)
    monkeypatch.setattr(workers.drain, "outages", told)
    with own_logs() as lines:
        await run_drains([Stopped(error)], Job.DISPATCH_EVENTS)
        await until_over(lines)
    assert [line["event"] for line in lines] == ["outage.began", "outage.ended"]


async def test_a_job_that_a_defect_stops_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers.drain, "outages", OutageLog())
    with pytest.raises(OperationFailure):
        await run_drains([Stopped(OperationFailure("no", 13))], Job.DISPATCH_EVENTS)


class Stopped:
    """A drain whose look for rows fails."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def run(self) -> None:
        raise self._error


class TestARequest:
    @pytest.mark.parametrize(("code", "status"), [(189, 503), (11602, 503), (13, 500)])
    async def test_that_meets_an_outage_is_told_to_come_back(self, code: int, status: int) -> None:
        """Whatever the driver calls it. Any other refusal is a defect."""
        app = FastAPI()
        add_problem_handlers(app)

        @app.get("/write")
        async def write() -> None:
            raise WriteError("refused", code)

        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as http:
            assert (await http.get("/write")).status_code == status
