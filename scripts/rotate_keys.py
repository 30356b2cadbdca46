"""Seals everything anew under the current encryption key: `python -m scripts.rotate_keys`.

Runs beside the service, in bounded batches, each document by compare-and-set; a run that was stopped is simply begun
again. Ends with 0 where the previous key can be dropped, 1 where something still needs it, 2 where it could not look.
"""

import asyncio
import secrets
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, Any, Final, NamedTuple

import typer
from pydantic import ValidationError
from pymongo import UpdateOne
from pymongo.errors import PyMongoError
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from service.database import Database, Databases, connect
from service.domain.clock import to_rfc3339
from service.domain.sealed import NONCE_BYTES, Keyring, Sealed, SealedField, Unreadable
from service.services.sealing import keyring_of
from service.settings import Settings, get_settings

_STILL_NEEDED: Final = 1
_COULD_NOT_LOOK: Final = 2
# A round trip for each, and the service's own writes get in between.
_BATCH: Final = 500
_SHOWN_UNREADABLE: Final = 20

console = Console()


class Place(NamedTuple):
    """Where sealed fields are; `name` within the document, null or absent where there is nothing to seal."""

    collection: str
    name: str
    field: SealedField


PLACES: Final = (
    Place("deposits", "account_sealed", SealedField.ACCOUNT),
    Place("withdrawals", "account_sealed", SealedField.ACCOUNT),
    Place("redemptions", "code_sealed", SealedField.VOUCHER_CODE),
    Place("totp_enrolments", "sealed_secret", SealedField.TOTP_SECRET),
    Place("webhook_endpoints", "secret_sealed", SealedField.WEBHOOK_SECRET),
    Place("webhook_endpoints", "previous_secret_sealed", SealedField.WEBHOOK_SECRET),
)


class Resealed(NamedTuple):
    """What became of those that were sealed under another key. `overtaken`: changed by somebody else meanwhile."""

    done: int
    overtaken: int
    unreadable: list[str]


class Census(NamedTuple):
    """How many fields are sealed under which key, and which answers' fingerprints hang on an earlier one."""

    sealed: dict[Place, Counter[str]]
    answers: int
    answers_until: datetime | None

    def needs_another_than(self, key_id: str) -> bool:
        return self.answers > 0 or any(set(counts) - {key_id} for counts in self.sealed.values())


async def reseal(
    database: Database, keyring: Keyring, place: Place, *, dry_run: bool, on_progress: Callable[[int], object]
) -> Resealed:
    """Seals what another key than the current one has sealed; with `dry_run` only tries to open it."""
    collection = database[place.collection]
    done = overtaken = 0
    unreadable: list[str] = []
    last_id = ""
    while True:
        condition = {"_id": {"$gt": last_id}, f"{place.name}.key_id": {"$exists": True, "$ne": keyring.key_id}}
        rows = await collection.find(condition, {place.name: 1}, sort=[("_id", 1)], limit=_BATCH).to_list()
        if not rows:
            return Resealed(done, overtaken, unreadable)
        updates = []
        for row in rows:
            kept = Sealed(**row[place.name])
            try:
                text = keyring.open(kept, place.field, row["_id"])
            except Unreadable:
                unreadable.append(row["_id"])
                continue
            fresh = keyring.seal(text, place.field, row["_id"], secrets.token_bytes(NONCE_BYTES))
            unchanged = {"_id": row["_id"], f"{place.name}.key_id": kept.key_id, f"{place.name}.box": kept.box}
            updates.append(UpdateOne(unchanged, {"$set": {place.name: fresh._asdict()}}))
        if updates and not dry_run:
            result = await collection.bulk_write(updates, ordered=False)
            overtaken += len(updates) - result.matched_count
            done += result.matched_count
        else:
            done += len(updates)
        on_progress(len(rows))
        last_id = rows[-1]["_id"]


async def take_census(database: Database, keyring: Keyring) -> Census:
    sealed: dict[Place, Counter[str]] = {}
    for place in PLACES:
        by_key: list[dict[str, Any]] = [
            {"$match": {f"{place.name}.key_id": {"$exists": True}}},
            {"$group": {"_id": f"${place.name}.key_id", "count": {"$sum": 1}}},
        ]
        cursor = await database[place.collection].aggregate(by_key)
        sealed[place] = Counter({row["_id"]: row["count"] for row in await cursor.to_list()})
    earlier = "|".join(keyring.earlier_key_ids)
    answers: list[dict[str, Any]] = []
    if earlier:
        under_earlier: list[dict[str, Any]] = [
            {"$match": {"fingerprint": {"$regex": f"^({earlier}):"}}},
            {"$group": {"_id": None, "count": {"$sum": 1}, "until": {"$max": "$expires_at"}}},
        ]
        answers = await (await database["idempotency_keys"].aggregate(under_earlier)).to_list()
    return Census(sealed, answers[0]["count"] if answers else 0, answers[0]["until"] if answers else None)


def main(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Open what would be sealed anew, and change nothing.")] = (
        False
    ),
    check: Annotated[bool, typer.Option("--check", help="Only say whether anything still needs another key.")] = False,
) -> None:
    """Seal everything under WALLET_ENCRYPTION_KEY that WALLET_ENCRYPTION_KEY_PREVIOUS opens."""
    try:
        status = asyncio.run(_check(get_settings()) if check else _rotate(get_settings(), dry_run=dry_run))
    except (PyMongoError, ValidationError) as error:
        print(f"rotate-keys could not look: {error}", file=sys.stderr)
        raise typer.Exit(_COULD_NOT_LOOK) from error
    if status:
        raise typer.Exit(status)


@asynccontextmanager
async def _database(settings: Settings) -> AsyncIterator[Database]:
    """With the set-up's rights: to the service itself, redemptions never change."""
    url = (settings.mongo_admin_url or settings.mongo_url).get_secret_value()
    databases: Databases = connect(url, settings, silence_s=None)
    try:
        yield databases.wallet
    finally:
        await databases.close()


async def _check(settings: Settings) -> int:
    keyring = keyring_of(settings)
    async with _database(settings) as database:
        return _report(await take_census(database, keyring), keyring)


async def _rotate(settings: Settings, *, dry_run: bool) -> int:
    keyring = keyring_of(settings)
    unreadable: list[str] = []
    table = Table("collection", "opened" if dry_run else "sealed anew", "overtaken", "unreadable", box=SIMPLE_HEAD)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    async with _database(settings) as database:
        before = await take_census(database, keyring)
        with Progress(*columns, console=console, transient=True) as progress:
            for place in PLACES:
                total = before.sealed[place].total() - before.sealed[place][keyring.key_id]
                task = progress.add_task(place.collection, total=total)
                one = await reseal(
                    database,
                    keyring,
                    place,
                    dry_run=dry_run,
                    on_progress=lambda rows, task=task: progress.advance(task, rows),  # type: ignore[misc]  # mypy cannot infer a default's type here
                )
                unreadable += [f"{place.collection} {document_id}" for document_id in one.unreadable]
                table.add_row(place.collection, str(one.done), str(one.overtaken), str(len(one.unreadable)))
        console.print(table)
        if unreadable:
            console.print(f"No key here opens {len(unreadable)}, and they stay as they are. The first:")
            for line in unreadable[:_SHOWN_UNREADABLE]:
                console.print(f"  {line}", highlight=False)
        return _report(await take_census(database, keyring), keyring)


def _report(census: Census, keyring: Keyring) -> int:
    table = Table("collection", "key", "fields", box=SIMPLE_HEAD)
    for place, counts in census.sealed.items():
        for key_id, count in sorted(counts.items()):
            table.add_row(place.collection, key_id + (" (current)" if key_id == keyring.key_id else ""), str(count))
    console.print(table)
    if census.answers_until is not None:
        until = to_rfc3339(census.answers_until)
        console.print(
            f"{census.answers} answers are kept under an earlier key, the last until {until}. Dropped before that, "
            "a repetition of such a request is refused instead of answered again.",
            highlight=False,
        )
    if census.needs_another_than(keyring.key_id):
        console.print("Another key than the current one is still needed.")
        return _STILL_NEEDED
    console.print("Nothing needs another key than the current one: WALLET_ENCRYPTION_KEY_PREVIOUS can be dropped.")
    return 0


if __name__ == "__main__":
    typer.run(main)
