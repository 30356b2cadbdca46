"""Checkpoints over HTTP."""

from typing import Any

import httpx
import pytest

from scripts.verify_proof import check_checkpoints
from service.controllers.checkpoints import CheckpointView, KeysView
from service.controllers.schemas import PageView
from service.database import Databases
from service.domain.checkpoints import checkpoint_view, key_id_of
from service.services.checkpoints import signing_key, take_checkpoint
from service.settings import Settings
from tests.factories import bearer, make_account

CHECKPOINTS = "/api/v1/checkpoints"


@pytest.fixture
async def headers(databases: Databases, settings: Settings) -> dict[str, str]:
    return bearer((await make_account(databases, balance=10)).user, settings)


class TestTheSeries:
    async def test_is_listed_newest_first_page_by_page_and_holds(
        self, api: httpx.AsyncClient, databases: Databases, settings: Settings, headers: dict[str, str]
    ) -> None:
        taken = [await take_checkpoint(databases.client, settings) for _ in range(3)]
        pages: list[dict[str, Any]] = []
        query = {"limit": "2"}
        while not pages or pages[-1]["has_more"]:
            answer = await api.get(CHECKPOINTS, params=query, headers=headers)
            assert answer.status_code == 200, answer.text
            pages.append(answer.json())
            query = {"limit": "2", "cursor": pages[-1]["next_cursor"]}
        listed = [checkpoint for page in pages for checkpoint in page["data"]]
        newest = taken[-1]
        assert newest is not None
        assert listed[0] == checkpoint_view(newest)
        assert [one["number"] for one in listed] == list(range(newest.number, 0, -1))
        assert PageView[CheckpointView](**pages[0]).model_dump(mode="json") == pages[0]
        key = signing_key(settings).public_key()
        assert f"checkpoints 1 to {newest.number} are signed" in check_checkpoints(pages, {key_id_of(key): key})

    async def test_gives_one_by_its_number(
        self, api: httpx.AsyncClient, databases: Databases, settings: Settings, headers: dict[str, str]
    ) -> None:
        taken = await take_checkpoint(databases.client, settings)
        assert taken is not None
        answer = await api.get(f"{CHECKPOINTS}/{taken.number}", headers=headers)
        assert (answer.status_code, answer.json()) == (200, checkpoint_view(taken))
        missing = await api.get(f"{CHECKPOINTS}/{2**53 - 1}", headers=headers)
        assert (missing.status_code, missing.json()["error"]) == (404, "not_found")

    @pytest.mark.parametrize("number", ["0", "-1", "1.5", "one", str(2**53), "9" * 400])
    async def test_knows_no_other_numbers(self, api: httpx.AsyncClient, headers: dict[str, str], number: str) -> None:
        answer = await api.get(f"{CHECKPOINTS}/{number}", headers=headers)
        assert (answer.status_code, answer.json()["error"]) == (422, "invalid_fields")

    @pytest.mark.parametrize("path", ["", "/1"])
    async def test_needs_a_token(self, api: httpx.AsyncClient, path: str) -> None:
        answer = await api.get(CHECKPOINTS + path)
        assert (answer.status_code, answer.json()["error"]) == (401, "unauthenticated")


class TestTheKey:
    async def test_is_there_for_everybody(self, api: httpx.AsyncClient, settings: Settings) -> None:
        answer = await api.get(f"{CHECKPOINTS}/keys")
        assert answer.status_code == 200
        (key,) = answer.json()["keys"]
        assert key["key_id"] == key_id_of(signing_key(settings).public_key())
        assert KeysView(**answer.json()).model_dump(mode="json") == answer.json()

    async def test_does_not_tell_the_secret(self, api: httpx.AsyncClient, settings: Settings) -> None:
        answer = await api.get(f"{CHECKPOINTS}/keys")
        assert settings.checkpoint_signing_key.get_secret_value() not in answer.text
