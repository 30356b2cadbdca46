"""Corrects portions of the house's accounts that differ from the books: `… --reason … --by …`.

Needed after processes of an earlier release ran beside new ones. The pool takes the difference, with an audit event;
entries and wallets do not change. Runs beside the service, and again without harm. Whether the entries are
right is check-ledger's to say: run it first. Ends with 0, also where nothing was wrong; 2 if it
could not read the database.
"""

import asyncio
import sys
from collections.abc import Callable
from typing import Annotated, Final

import typer
from pydantic import ValidationError
from pymongo.errors import PyMongoError

from service.database import bind_documents, connect
from service.errors import Unavailable
from service.services.house_positions import Correction, FloorsNotAppliedError, correct_positions
from service.settings import Settings, get_settings

_COULD_NOT_LOOK: Final = 2


def _text(text: str) -> str:
    if not text.strip():
        raise typer.BadParameter("say something")
    return text.strip()


def main(
    reason: Annotated[str, typer.Option(callback=_text, help="Why they differ: an upgrade, an incident, a ticket.")],
    by: Annotated[str, typer.Option("--by", callback=_text, help="Who corrects them.")],
) -> None:
    """Set each pool so that portions and books agree."""
    made: list[Correction] = []

    def tell(one: Correction) -> None:
        made.append(one)
        print(f"{one.account} in {one.currency}: the portions had {one.headroom_before}, now {one.headroom_after}")

    try:
        asyncio.run(_correct(get_settings(), reason, by, tell))
    except (PyMongoError, Unavailable, ValidationError) as error:
        print(f"correct-positions could not read the database: {error}", file=sys.stderr)
        raise typer.Exit(_COULD_NOT_LOOK) from error
    except FloorsNotAppliedError as error:
        print(f"correct-positions could not correct everything: {error}", file=sys.stderr)
        raise typer.Exit(_COULD_NOT_LOOK) from error
    if not made:
        print("Nothing to correct: portions and books agree.")


async def _correct(settings: Settings, reason: str, by: str, tell: Callable[[Correction], None]) -> None:
    databases = connect(settings.mongo_url.get_secret_value(), settings, silence_s=None)
    try:
        await bind_documents(databases)
        await correct_positions(databases.client, reason, by, tell)
    finally:
        await databases.close()


if __name__ == "__main__":
    typer.run(main)
