"""Shows the running stack live: `python -m scripts.dashboard`, with the stack's settings around it (`make dashboard`).

Without a terminal it prints a line every few seconds; with --once one whole page. Ctrl-C ends it.
"""

import asyncio
import sys
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Final

import httpx
import typer
from pydantic import ValidationError
from pymongo.errors import PyMongoError
from rich.console import Console
from rich.live import Live

from scripts.dashboard.page import line, render
from scripts.dashboard.sources import Look, Sources
from service.database import bind_documents, connect
from service.settings import Settings, get_settings

_COULD_NOT_LOOK: Final = 2
# What the page's curves are made of.
_LOOKS_KEPT: Final = 30
_HTTP_TIMEOUT_S: Final = 1.5
_LINE_INTERVAL_S: Final = 10.0
_FIRST_LOOK_S: Final = 1.0


def main(
    *,
    once: Annotated[bool, typer.Option(help="Print one page and end.")] = False,
    interval: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.5, max=60)] = 1.0,
) -> None:
    """What the workers have to do, how fast it goes, and whether somebody has to look."""
    try:
        asyncio.run(_show(get_settings(), is_once=once, interval_s=interval))
    except (PyMongoError, ValidationError) as error:
        print(
            f"The dashboard finds no stack: {type(error).__name__}. Start one with make run or make up, or set "
            "WALLET_MONGO_URL and WALLET_REDIS_URL.",
            file=sys.stderr,
        )
        raise typer.Exit(_COULD_NOT_LOOK) from error
    except KeyboardInterrupt:
        # Somebody has seen enough.
        pass


@asynccontextmanager
async def open_sources(settings: Settings) -> AsyncIterator[Sources]:
    """Raises PyMongoError where MongoDB does not answer."""
    databases = connect(settings.mongo_url.get_secret_value(), settings)
    base_url = f"http://127.0.0.1:{settings.port}"
    worker_port = settings.worker_metrics_port
    metrics_urls = [f"{base_url}/metrics", *([f"http://127.0.0.1:{worker_port}/metrics"] if worker_port else [])]
    token = settings.metrics_token
    headers = {} if token is None else {"Authorization": f"Bearer {token.get_secret_value()}"}
    try:
        await bind_documents(databases)
        await databases.client.admin.command("ping")
        async with httpx.AsyncClient(timeout=_HTTP_TIMEOUT_S, headers=headers) as http:
            yield Sources(databases, http, base_url, metrics_urls)
    finally:
        await databases.close()


async def _show(settings: Settings, *, is_once: bool, interval_s: float) -> None:
    console = Console()
    where = f"http://127.0.0.1:{settings.port}"
    async with open_sources(settings) as sources:
        looks: deque[Look] = deque([await sources.look()], _LOOKS_KEPT)
        if is_once:
            # Rates are what changed between two looks.
            await asyncio.sleep(_FIRST_LOOK_S)
            looks.append(await sources.look())
            console.print(render(looks, width=console.width, height=None, where=where))
            return
        if not console.is_terminal:
            while True:
                print(line(looks), flush=True)
                await asyncio.sleep(max(_LINE_INTERVAL_S, interval_s))
                looks.append(await sources.look())
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(render(looks, width=console.width, height=console.height, where=where), refresh=True)
                await asyncio.sleep(interval_s)
                looks.append(await sources.look())


if __name__ == "__main__":
    typer.run(main)
