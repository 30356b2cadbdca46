"""Corrects portions of the house's accounts that differ from the books: `python -m scripts.correct_positions`.

As after processes of an earlier release, which know no portions, have gone on beside new ones. The pool takes the
difference; entries and wallets do not change. Runs beside the service, and again without harm. Whether the entries are
right is check-ledger's to say: run it first. Ends with 0, also where nothing was wrong; 2 where it could not look.
"""

import asyncio
import sys
from typing import Final

import typer
from pydantic import ValidationError
from pymongo.errors import PyMongoError

from service.database import bind_documents, connect
from service.services.house_positions import Correction, correct_positions
from service.settings import Settings, get_settings

_COULD_NOT_LOOK: Final = 2


def main() -> None:
    """Add to each pool what the portions lack of the books."""
    try:
        made = asyncio.run(_correct(get_settings()))
    except (PyMongoError, ValidationError) as error:
        print(f"correct-positions could not look: {error}", file=sys.stderr)
        raise typer.Exit(_COULD_NOT_LOOK) from error
    for one in made:
        print(f"{one.account} in {one.currency}: the portions had {one.headroom_before}, now {one.headroom_after}")
    if not made:
        print("Nothing to correct: the portions are those of the books.")


async def _correct(settings: Settings) -> list[Correction]:
    databases = connect(settings.mongo_url.get_secret_value(), settings, silence_s=None)
    try:
        await bind_documents(databases)
        return await correct_positions(databases.client)
    finally:
        await databases.client.close()


if __name__ == "__main__":
    typer.run(main)
