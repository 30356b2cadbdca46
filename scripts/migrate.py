"""Sets the database up: collections, indexes, validators, roles and the service's own user. Can be repeated."""

import asyncio
import sys

from service.database import OldData, set_up
from service.settings import get_settings


def main() -> None:
    try:
        lines = asyncio.run(set_up(get_settings()))
    except OldData as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    for line in lines:
        print(line)


if __name__ == "__main__":
    main()
