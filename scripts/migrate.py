"""Sets the database up: collections, indexes, validators, roles and the service's own user. Can be repeated."""

import asyncio

from service.database import set_up
from service.settings import get_settings


def main() -> None:
    for line in asyncio.run(set_up(get_settings())):
        print(line)


if __name__ == "__main__":
    main()
