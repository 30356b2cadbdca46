"""What several tests of services share."""

from collections.abc import AsyncIterator, Iterator
from datetime import date, timedelta
from itertools import count

import pytest

from service.startup import Resources
from tests.books_of_their_own import OwnBooks, own_books
from tests.factories import make_funded_wallet
from tests.servers import Servers
from tests.services.statement_desk import Desk


@pytest.fixture(scope="module")
async def desk_books(servers: Servers, resources: Resources) -> AsyncIterator[OwnBooks]:
    async with own_books(servers, resources) as own:
        yield own


@pytest.fixture(scope="module")
def desk_days() -> Iterator[date]:
    return (date(2025, 1, 1) + timedelta(days=10 * number) for number in count())


@pytest.fixture
async def desk(desk_books: OwnBooks, desk_days: Iterator[date]) -> Desk:
    return Desk(desk_books, await make_funded_wallet(desk_books.databases, 100_000), next(desk_days))
