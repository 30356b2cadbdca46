"""Cursors: what they lead to, and that only ours do, and only where they were given out."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

import httpx
import orjson
import pytest
from pydantic import SecretStr

from service.controllers.pagination import Page, PageQuery, open_page, page_of
from service.database import Databases
from service.errors import InvalidCursor
from service.settings import Settings
from tests.factories import bearer, fund_wallet, make_account, make_wallet

_SETTINGS = Settings(_env_file=None)


class FilteredQuery(PageQuery):
    status: str | None = None


def opened(
    cursor: str | None = None,
    *,
    name: str = "things",
    owner: str = "usr_1",
    settings: Settings = _SETTINGS,
    **query: Any,
) -> Page[int]:
    return open_page(FilteredQuery(cursor=cursor, **query), settings, name, owner, int)


def answered(rows: list[int], page: Page[int]) -> dict[str, Any]:
    body: dict[str, Any] = orjson.loads(page_of(rows, page, lambda row: row, lambda row: {"n": row}).body)
    return body


def cursor_of(**query: Any) -> str:
    cursor: str = answered([9, 8, 7], opened(limit=2, **query))["next_cursor"]
    return cursor


class TestPages:
    def test_the_first_one_starts_at_the_top(self) -> None:
        page = opened(limit=2)
        assert (page.position, page.limit_and_one) == (None, 3)

    def test_the_next_one_starts_after_the_last_row_shown(self) -> None:
        assert opened(cursor_of()).position == 8

    def test_a_row_more_than_asked_for_is_not_shown_and_tells_that_there_is_more(self) -> None:
        answer = answered([9, 8, 7], opened(limit=2))
        assert (answer["data"], answer["has_more"]) == ([{"n": 9}, {"n": 8}], True)

    @pytest.mark.parametrize("rows", [[], [9], [9, 8]])
    def test_the_last_one_has_no_cursor(self, rows: list[int]) -> None:
        answer = answered(rows, opened(limit=2))
        assert (len(answer["data"]), answer["has_more"], answer["next_cursor"]) == (len(rows), False, None)

    def test_the_limit_may_change_on_the_way(self) -> None:
        assert opened(cursor_of(), limit=50).position == 8

    def test_a_position_may_be_text(self) -> None:
        page = open_page(PageQuery(limit=1), _SETTINGS, "things", "usr_1", str)
        body = orjson.loads(page_of(["wal_2", "wal_1"], page, lambda row: row, lambda row: {"id": row}).body)
        query = PageQuery(cursor=body["next_cursor"])
        assert open_page(query, _SETTINGS, "things", "usr_1", str).position == "wal_2"


class TestCursors:
    @pytest.mark.parametrize(
        "elsewhere",
        [
            {"name": "other_things"},
            {"owner": "usr_2"},
            {"status": "failed"},
            {"settings": _SETTINGS.model_copy(update={"jwt_secret": SecretStr("another-secret-" * 3)})},
        ],
        ids=["another list", "another owner", "another filter", "another secret"],
    )
    def test_lead_nowhere_in(self, elsewhere: dict[str, Any]) -> None:
        cursor = cursor_of()
        assert opened(cursor).position == 8
        with pytest.raises(InvalidCursor):
            opened(cursor, **elsewhere)

    def test_lead_on_while_the_signing_key_is_rotated_and_no_longer(self) -> None:
        cursor, new = cursor_of(), SecretStr("another-secret-" * 3)
        during = _SETTINGS.model_copy(update={"jwt_secret": new, "jwt_secret_previous": _SETTINGS.jwt_secret})
        after = _SETTINGS.model_copy(update={"jwt_secret": new})
        assert opened(cursor, settings=during).position == 8
        assert opened(cursor_of(settings=during), settings=after).position == 8
        with pytest.raises(InvalidCursor):
            opened(cursor, settings=after)

    def test_lead_on_under_the_same_filter(self) -> None:
        assert opened(cursor_of(status="failed"), status="failed").position == 8

    @pytest.mark.parametrize("cursor", ["", "x", "8", "%00", "ключ", "\ud800", "=", "====", "a" * 22, "A" * 255, "%%"])
    def test_made_up_ones_are_refused(self, cursor: str) -> None:
        with pytest.raises(InvalidCursor):
            open_page(PageQuery.model_construct(limit=20, cursor=cursor), _SETTINGS, "things", "usr_1", int)

    def test_every_changed_bit_is_noticed(self) -> None:
        cursor = cursor_of()
        whole = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        for position in range(len(whole) * 8):
            changed = bytearray(whole)
            changed[position // 8] ^= 1 << position % 8
            with pytest.raises(InvalidCursor):
                opened(urlsafe_b64encode(changed).rstrip(b"=").decode())


class TestOverHttp:
    async def test_a_cursor_of_another_wallet_or_filter_is_a_400(
        self, api: httpx.AsyncClient, databases: Databases, settings: Settings
    ) -> None:
        user, rupees = await make_account(databases)
        dollars = await make_wallet(databases, user, currency="USD")
        for wallet in (rupees, dollars):
            for _ in range(2):
                await fund_wallet(databases, wallet, 1)
        path, headers = "/api/v1/wallets/{}/transactions", bearer(user, settings)
        first = (await api.get(path.format(rupees.id), params={"limit": 1}, headers=headers)).json()
        cursor = {"cursor": first["next_cursor"]}
        for other_path, query in (
            (path.format(dollars.id), cursor),
            (path.format(rupees.id), cursor | {"type": "DEPOSIT"}),
            (f"/api/v1/users/{user.id}/transactions", cursor),
            (path.format(rupees.id), {"cursor": first["next_cursor"][:-1]}),
            (path.format(rupees.id), {"cursor": ""}),
        ):
            answer = await api.get(other_path, params=query, headers=headers)
            assert (answer.status_code, answer.json()["error"]) == (400, "invalid_cursor")
        followed = await api.get(path.format(rupees.id), params=cursor, headers=headers)
        assert [row["seq"] for row in followed.json()["data"]] == [1]
