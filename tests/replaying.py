"""A process of its own that replays wallets, for tests: `python -m tests.replaying round`, `… loop <wallet> <seconds>`.

It does what a worker does, in the database that its environment names, and tells on standard output what it found.
"""

import asyncio
import json
import logging
import sys
from time import monotonic

import structlog

from service.services.replay import replay_slice, work_on_round
from service.settings import get_settings
from service.startup import Resources, open_resources


async def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    async with open_resources(get_settings()) as resources:
        if sys.argv[1] == "round":
            await work_on_round(resources.databases.client, resources.ledger, resources.settings)
        else:
            sys.stdout.write(json.dumps(await loop(resources, sys.argv[2], float(sys.argv[3]))))


async def loop(resources: Resources, first: str, seconds: float) -> dict[str, object]:
    """The wallets behind that one, all of them and what is new of them in turn, until the time is over."""
    end = monotonic() + seconds
    rounds = entries = 0
    findings: list[str] = []
    while monotonic() < end:
        position: str | None = first
        while position is not None:
            one = await replay_slice(
                resources.databases.client, resources.ledger, resources.settings, position, is_whole=rounds % 2 == 0
            )
            entries += one.entries
            findings += [repr(finding) for finding in one.findings]
            position = one.position
        rounds += 1
    return {"rounds": rounds, "entries": entries, "findings": findings}


if __name__ == "__main__":
    asyncio.run(main())
