"""Sets the database up: collections, indexes, validators, roles and the service's own user. Can be repeated."""

import asyncio
import sys

from service.database import OldData, bind_documents, connect, set_up
from service.services.email_proofs import mark_addresses_proven_before
from service.services.house_positions import apply_floors
from service.settings import Settings, get_settings
from service.startup import policy_of


def main() -> None:
    try:
        lines = asyncio.run(_migrate(get_settings()))
    except OldData as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    for line in lines:
        print(line)


async def _migrate(settings: Settings) -> list[str]:
    """The stated floors too, so that whatever runs next, the seed say, finds them."""
    lines = await set_up(settings)
    databases = connect(settings.mongo_url.get_secret_value(), settings, silence_s=None)
    try:
        await bind_documents(databases)
        await apply_floors(databases.client, policy_of(settings).house_floors)
        proven = await mark_addresses_proven_before()
    finally:
        await databases.close()
    lines.append("floors of the house's accounts: applied")
    if proven:
        lines.append(f"addresses that were proven by a reset before: {proven}")
    return lines


if __name__ == "__main__":
    main()
