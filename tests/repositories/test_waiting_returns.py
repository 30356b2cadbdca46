"""Before a wallet is unfrozen, the ledger asks whether a return waits to take from it: it reads one at most."""

from collections.abc import Iterator

import pytest

from service.database import Databases
from service.domain.identifiers import Prefix, new_id
from service.domain.returns import Return, ReturnStatus, ReturnType
from service.repositories import records as record_repository
from service.settings import Settings
from tests.records import build_return
from tests.repositories.test_figures import profiled
from tests.servers import Admin

_OTHERS = 50


@pytest.fixture
def wallet_id(settings: Settings, admin: Admin) -> Iterator[str]:
    """Of a wallet that is nothing but a name."""
    name = new_id(Prefix.WALLET)
    yield name
    admin[settings.database]["returns"].delete_many({"wallet_id": name})


async def _find(databases: Databases, wallet_id: str, *but: str) -> Return | None:
    async with databases.client.start_session() as session:
        return await record_repository.find_return_that_waits(wallet_id, but=but, session=session)


@pytest.mark.parametrize("kind", [ReturnType.DEPOSIT, ReturnType.POINTS])
async def test_a_return_that_waits_is_found_without_reading_others(
    databases: Databases, settings: Settings, admin: Admin, wallet_id: str, kind: ReturnType
) -> None:
    def made(kind: ReturnType, status: ReturnStatus) -> Return:
        name = new_id(Prefix.RETURN)
        return build_return(id=name, type=kind, status=status, operation_id=name, wallet_id=wallet_id)

    ended = [made(kind, ReturnStatus.SUCCESS) for _ in range(_OTHERS)]
    coming = [made(ReturnType.WITHDRAWAL, ReturnStatus.REQUIRES_REVIEW) for _ in range(_OTHERS)]
    waiting = made(kind, ReturnStatus.REQUIRES_REVIEW)
    async with databases.client.start_session() as session:
        await record_repository.insert_many([*ended, *coming, waiting], session=session)
    with profiled(admin, settings.database) as seen:
        assert await _find(databases, wallet_id, wallet_id, ended[0].id) == waiting
        assert await _find(databases, wallet_id, waiting.id) is None
    reads = [one for one in seen if one["ns"].endswith(".returns")]
    assert [one["docsExamined"] for one in reads] == [1, 1]
