"""What a process opens it closes again, whatever goes wrong on the way."""

from collections.abc import AsyncIterator

import pytest
from pymongo.errors import InvalidOperation

from service import startup
from service.database import Databases, bind_documents
from service.database import connect as really_connect
from service.services.ended_tokens import EndedTokens
from service.settings import Settings
from service.startup import Resources, open_resources


@pytest.fixture
async def opened(monkeypatch: pytest.MonkeyPatch, resources: Resources) -> AsyncIterator[list[Databases]]:
    """What has been connected to. Beanie goes back to the other tests' database afterwards."""
    connected: list[Databases] = []

    def connect(url: str, settings: Settings) -> Databases:
        connected.append(really_connect(url, settings))
        return connected[-1]

    monkeypatch.setattr(startup, "connect", connect)
    yield connected
    await bind_documents(resources.databases)


async def is_closed(databases: Databases) -> bool:
    try:
        await databases.client.admin.command("ping")
    except InvalidOperation:
        return True
    return False


class TestOpenResources:
    async def test_leaves_nothing_open_where_a_setting_is_refused_half_way(
        self, settings: Settings, opened: list[Databases]
    ) -> None:
        wrong = settings.model_copy(update={"bank_rates": {"sulky": 0.1}})
        with pytest.raises(ValueError, match="WALLET_BANK_RATES"):
            async with open_resources(wrong):
                pass
        assert [await is_closed(one) for one in opened] == [True]

    async def test_closes_the_rest_where_one_thing_does_not_close(
        self, settings: Settings, opened: list[Databases], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def fail(_tokens: EndedTokens) -> None:
            raise OSError("it does not close")

        monkeypatch.setattr(EndedTokens, "close", fail)
        with pytest.raises(OSError, match="it does not close"):
            async with open_resources(settings) as resources:
                assert resources.ledger.is_running()
        assert not resources.ledger.is_running()
        assert [await is_closed(one) for one in opened] == [True]
