"""Corrects stored sums of accounts that differ from the entries: `python -m scripts.correct_sums --reason … --by …`.

Inserts corrections, numbered and with their reason; neither sums nor entries change. Runs beside the service, and again
without harm. Whether the entries are right is check-ledger's to say: run it first. Ends with 0, also where nothing was
wrong; 2 where it could not look.
"""

import asyncio
import sys
from typing import Annotated, Final

import typer
from pydantic import ValidationError
from pymongo.errors import PyMongoError

from service.database import bind_documents, connect
from service.domain.accounts import Correction
from service.domain.clock import to_rfc3339
from service.services.account_sums import correct_sums
from service.settings import Settings, get_settings

_COULD_NOT_LOOK: Final = 2


def _text(text: str) -> str:
    if not text.strip():
        raise typer.BadParameter("say something")
    return text.strip()


def main(
    reason: Annotated[str, typer.Option(callback=_text, help="Why the sums are wrong: an incident, a ticket.")],
    by: Annotated[str, typer.Option("--by", callback=_text, help="Who corrects them.")],
) -> None:
    """Add what the stored sums lack of the entries, hour by hour."""
    try:
        made = asyncio.run(_correct(get_settings(), reason, by))
    except (PyMongoError, ValidationError) as error:
        print(f"correct-sums could not look: {error}", file=sys.stderr)
        raise typer.Exit(_COULD_NOT_LOOK) from error
    for correction in made:
        for one in correction.sums:
            print(
                f"Correction {correction.number}, from the hour that ended at {to_rfc3339(correction.through)} on: "
                f"{one.account} in {one.currency}: debit {one.debit:+d}, credit {one.credit:+d}"
            )
    if not made:
        print("Nothing to correct: the stored sums are those of the entries.")


async def _correct(settings: Settings, reason: str, by: str) -> list[Correction]:
    databases = connect(settings.mongo_url.get_secret_value(), settings, silence_s=None)
    try:
        await bind_documents(databases)
        return await correct_sums(databases.client, reason, by)
    finally:
        await databases.close()


if __name__ == "__main__":
    typer.run(main)
