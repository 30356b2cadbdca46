"""From a deposit over HTTP to somebody else's receiver: that of the README, as it stands there."""

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from standardwebhooks.webhooks import Webhook

from scripts.embedded import free_port
from tests.person import Person
from tests.receivers import Reply, running_receiver

_README = Path(__file__).parents[2] / "README.md"
_PATIENCE_S = 30


def _receiver_of_the_readme(secret: str, port: int) -> str:
    section = _README.read_text(encoding="utf-8").partition("\n## Webhooks\n")[2]
    found = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert found is not None
    code = found[1]
    assert code.count("whsec_…") == 1
    assert code.count("9000") == 1
    return code.replace("whsec_…", secret).replace("9000", str(port))


@asynccontextmanager
async def _running(code: str) -> AsyncIterator[asyncio.StreamReader]:
    """Its output."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert process.stdout is not None
    try:
        yield process.stdout
    finally:
        process.kill()
        await process.wait()


async def test_the_readmes_receiver_hears_of_a_deposit_step_by_step(http: httpx.AsyncClient) -> None:
    person, port = await Person.register(http), free_port()
    order: dict[str, Any] = {
        "url": f"http://127.0.0.1:{port}/",
        "event_types": ["deposit.pending", "deposit.succeeded"],
    }
    made = (await person.post("/webhook-endpoints", **order)).json()
    async with _running(_receiver_of_the_readme(made["secret"], port)) as heard, asyncio.timeout(_PATIENCE_S):
        await person.fund(10_000)
        lines = sorted([(await heard.readline()).decode().split() for _ in range(2)], key=lambda line: line[2])
    assert [line[:2] for line in lines] == [
        ["deposit.pending", person.wallet_id],
        ["deposit.succeeded", person.wallet_id],
    ]


async def test_what_was_refused_first_comes_again_by_itself(http: httpx.AsyncClient) -> None:
    person = await Person.register(http)
    async with running_receiver() as receiver, asyncio.timeout(_PATIENCE_S):
        receiver.answers(Reply(503), Reply(200))
        made = (await person.post("/webhook-endpoints", url=receiver.url(), event_types=["deposit.succeeded"])).json()
        await person.fund(10_000)
        await receiver.wait_for(2)
        first, second = receiver.requests
        assert (first.headers["webhook-id"], first.body) == (second.headers["webhook-id"], second.body)
        Webhook(made["secret"]).verify(second.body, dict(second.headers))
        path = f"/webhook-endpoints/{made['id']}/deliveries/{first.headers['webhook-id']}"
        for _ in range(100):
            shown = (await person.get(path)).json()
            if shown["status"] == "delivered":
                break
            await asyncio.sleep(0.05)
    assert [one["code"] for one in shown["tries"]] == [503, 200]
