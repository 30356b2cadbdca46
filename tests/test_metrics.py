"""The metrics themselves: their names, and processes that count together."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import httpx

from scripts.service_stack import Stack
from service import metrics
from tests.samples import samples_in

_ROOT = Path(metrics.__file__).parent.parent
_LIVEZ = {"method": "GET", "route": "/livez", "status": "200"}


class TestProcessesThatShareAPort:
    async def test_count_together_whichever_answers(self, payment_stack: Stack) -> None:
        """A connection stays with one process, so each of these is a new one."""

        async def ask(path: str) -> httpx.Response:
            async with httpx.AsyncClient(base_url=payment_stack.base_url) as client:
                return await client.get(path)

        async def total() -> float:
            return samples_in((await ask("/metrics")).text).of("wallet_http_requests_total", _LIVEZ)

        before = await total()
        await asyncio.gather(*(ask("/livez") for _ in range(60)))
        # Many times, so that both are asked.
        assert [await total() for _ in range(12)] == [before + 60] * 12
        counted = list((payment_stack.data_dir / "metrics").glob("counter_*.db"))
        assert len(counted) == 2
        assert all(b"/livez" in path.read_bytes() for path in counted)

    async def test_tell_what_mongodb_knows_once(self, payment_http: httpx.AsyncClient) -> None:
        found = samples_in((await payment_http.get("/metrics")).text)
        assert sorted(labels["queue"] for labels in found.labels_of("wallet_queue_rows")) == sorted(
            {labels["queue"] for labels in found.labels_of("wallet_queue_rows")}
        )
        assert found.of("wallet_ledger_queue_limit") == 2 * 4096

    def test_forget_what_the_dead_had_in_hand_and_keep_what_they_counted(self, tmp_path: Path) -> None:
        environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
        work = "from service import metrics; metrics.rows_taken('outbox', 3); metrics.rows_done('outbox', 'done')"
        tell = "from service import metrics; print(metrics.render('')[0].decode())"

        def run(code: str) -> str:
            return subprocess.run(  # noqa: S603 our own code
                [sys.executable, "-c", code], env=environment, cwd=_ROOT, check=True, capture_output=True, text=True
            ).stdout

        run(work)
        run(work)
        found = samples_in(run(tell))
        assert found.of("wallet_jobs_total", {"queue": "outbox", "outcome": "done"}) == 2
        assert found.of("wallet_rows_in_hand", {"queue": "outbox"}) == 0
        assert not list(tmp_path.glob("gauge_live*_0.db"))


class TestOpenTelemetry:
    def test_is_not_there_where_it_is_off(self) -> None:
        modules = ("opentelemetry.sdk", "opentelemetry.exporter", "google.protobuf")
        code = (
            f"import sys, service.main, workers.main; sys.exit(str([m for m in {modules} if m in sys.modules] or ''))"
        )
        command = [sys.executable, "-c", code]
        ended = subprocess.run(command, cwd=_ROOT, check=False, capture_output=True, text=True)  # noqa: S603 our own code
        assert ended.stderr.strip() == ""
