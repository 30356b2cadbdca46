"""Runs this repository's commands as a person would: in a process of their own, told only what a test says."""

import asyncio
import json
import sys
from pathlib import Path
from typing import NamedTuple

from scripts.stack_environment import environment_for
from service.settings import Settings


class Ended(NamedTuple):
    status: int
    out: str
    err: str


async def run_module(settings: Settings, folder: Path, module: str, *arguments: str, **environment: str) -> Ended:
    """`python -m module arguments` with the settings' database; in `folder`, where no `.env` lies."""
    assert settings.mongo_admin_url is not None
    told = {
        "WALLET_MONGO_URL": settings.mongo_url.get_secret_value(),
        "WALLET_MONGO_ADMIN_URL": settings.mongo_admin_url.get_secret_value(),
        "WALLET_REDIS_URL": settings.redis_url.get_secret_value(),
        "WALLET_DATABASE": settings.database,
        # They stand in the database, and check-ledger holds them against the settings.
        "WALLET_HOUSE_FLOORS": json.dumps(settings.house_floors),
        **environment,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        *arguments,
        cwd=folder,
        env={**environment_for(told), "COLUMNS": "200"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())
