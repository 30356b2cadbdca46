"""Points and vouchers over HTTP: who keeps the catalogue, who redeems, who sees which code."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from service.controllers.rewards import RewardView
from service.controllers.schemas import PageView
from service.controllers.vouchers import KeptVoucherView, RedemptionReceipt, RedemptionView, VoucherView
from service.database import Databases
from service.domain.clock import to_rfc3339, utc_now
from service.settings import Settings
from tests.factories import Account, bearer, make_account, make_saver, make_user, make_voucher

_DAY = timedelta(days=1)
_COFFEE: dict[str, Any] = {"title": "A cup of coffee", "cost": 100, "stock": 5}


class Client:
    """The API with somebody's token."""

    def __init__(self, api: httpx.AsyncClient, headers: dict[str, str]) -> None:
        self.api, self.headers = api, headers

    async def get(self, path: str, **query: Any) -> httpx.Response:
        return await self.api.get(f"/api/v1{path}", params=query, headers=self.headers)

    async def post(self, path: str, key: str | None = None, **body: Any) -> httpx.Response:
        headers = self.headers | ({} if key is None else {"Idempotency-Key": key})
        return await self.api.post(f"/api/v1{path}", json=body, headers=headers)

    async def patch(self, path: str, key: str | None = None, **body: Any) -> httpx.Response:
        headers = self.headers | ({} if key is None else {"Idempotency-Key": key})
        return await self.api.patch(f"/api/v1{path}", json=body, headers=headers)

    async def redeem(self, voucher_id: str, key: str | None = None) -> httpx.Response:
        headers = {**self.headers, "Idempotency-Key": key or uuid4().hex}
        return await self.api.post(f"/api/v1/vouchers/{voucher_id}/redeem", headers=headers)


@pytest.fixture
async def keeper(api: httpx.AsyncClient, databases: Databases, settings: Settings) -> Client:
    return Client(api, bearer(await make_user(databases, roles=["user", "admin"]), settings))


@pytest.fixture
async def saver(databases: Databases) -> Account:
    return await make_saver(databases, 250)


@pytest.fixture
def client(api: httpx.AsyncClient, saver: Account, settings: Settings) -> Client:
    return Client(api, bearer(saver.user, settings))


def _error(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]


class TestKeepingTheCatalogue:
    async def test_a_voucher_is_made_shown_and_changed(self, keeper: Client) -> None:
        end = "2031-04-01T00:00:00.123Z"
        made = await keeper.post("/admin/vouchers", **_COFFEE, valid_until=end, per_user_limit=1)
        assert made.status_code == 201, made.text
        voucher = made.json()
        assert voucher == KeptVoucherView.model_validate(voucher).model_dump()
        assert (voucher["stock"], voucher["stocked_total"], voucher["is_active"]) == (5, 5, True)
        assert voucher["valid_until"] == end
        changed = await keeper.patch(
            f"/admin/vouchers/{voucher['id']}", add_stock=3, title="Tea", valid_until=None, per_user_limit=None
        )
        assert changed.status_code == 200, changed.text
        expected = {"stock": 8, "stocked_total": 8, "title": "Tea", "valid_until": None, "per_user_limit": None}
        assert changed.json() == voucher | expected | {"updated_at": changed.json()["updated_at"]}
        everything = (await keeper.get("/admin/vouchers", limit=1)).json()
        assert everything["data"] == [changed.json()]

    async def test_is_for_admins_only(self, client: Client, databases: Databases) -> None:
        voucher = await make_voucher(databases)
        for answer in (
            await client.post("/admin/vouchers", **_COFFEE),
            await client.patch(f"/admin/vouchers/{voucher.id}", add_stock=1),
            await client.get("/admin/vouchers"),
        ):
            assert _error(answer) == (403, "forbidden")

    async def test_an_admin_who_was_deactivated_makes_none(
        self, api: httpx.AsyncClient, databases: Databases, settings: Settings
    ) -> None:
        user = await make_user(databases, roles=["admin"], is_active=False)
        assert _error(await Client(api, bearer(user, settings)).post("/admin/vouchers", **_COFFEE)) == (
            403,
            "account_deactivated",
        )

    async def test_with_a_key_happens_once(self, keeper: Client) -> None:
        key = uuid4().hex
        first = await keeper.post("/admin/vouchers", key, **_COFFEE)
        again = await keeper.post("/admin/vouchers", key, **_COFFEE)
        assert again.content == first.content
        path = f"/admin/vouchers/{first.json()['id']}"
        key = uuid4().hex
        assert [(await keeper.patch(path, key, add_stock=2)).json()["stock"] for _ in range(2)] == [7, 7]
        assert [(await keeper.patch(path, add_stock=2)).json()["stock"] for _ in range(2)] == [9, 11]
        assert _error(await keeper.patch(path, key, add_stock=3)) == (422, "idempotency_key_reused")

    async def test_no_stock_goes_below_nothing(self, keeper: Client, databases: Databases) -> None:
        voucher = await make_voucher(databases, stock=2)
        answer = await keeper.patch(f"/admin/vouchers/{voucher.id}", add_stock=-3)
        assert _error(answer) == (422, "voucher_stock_too_low")
        assert answer.json()["stock"] == 2

    async def test_of_one_that_is_not_there_is_not_found(self, keeper: Client) -> None:
        assert _error(await keeper.patch("/admin/vouchers/vch_x", add_stock=1)) == (404, "not_found")

    @pytest.mark.parametrize(
        ("body", "pointer"),
        [
            ({"cost": 0}, "/cost"),
            ({"cost": 1.5}, "/cost"),
            ({"stock": -1}, "/stock"),
            ({"stock": True}, "/stock"),
            ({"title": ""}, "/title"),
            ({"title": "a\nb"}, "/title"),
            ({"per_user_limit": 0}, "/per_user_limit"),
            ({"valid_from": 1_900_000_000}, "/valid_from"),
            ({"valid_until": "2031-04-01"}, "/valid_until"),
            ({"valid_from": "2031-04-01T00:00:00Z", "valid_until": "2031-04-01T00:00:00Z"}, "/valid_until"),
            ({"stocked_total": 7}, "/stocked_total"),
        ],
        ids=str,
    )
    async def test_what_makes_no_sense_is_refused(self, keeper: Client, body: dict[str, Any], pointer: str) -> None:
        answer = await keeper.post("/admin/vouchers", **(_COFFEE | body))
        assert answer.status_code == 422, answer.text
        assert [field["pointer"] for field in answer.json()["errors"]] == [pointer]

    @pytest.mark.parametrize(
        "body", [{"title": None}, {"is_active": None}, {"cost": 5}, {"stock": 5}, {"add_stock": None}], ids=str
    )
    async def test_no_change_takes_away_what_every_voucher_has(
        self, keeper: Client, databases: Databases, body: dict[str, Any]
    ) -> None:
        voucher = await make_voucher(databases)
        assert _error(await keeper.patch(f"/admin/vouchers/{voucher.id}", **body)) == (422, "invalid_fields")

    async def test_one_end_is_held_against_the_other_that_is_there(self, keeper: Client, databases: Databases) -> None:
        voucher = await make_voucher(databases, valid_from=datetime(2031, 4, 1, tzinfo=UTC))
        answer = await keeper.patch(f"/admin/vouchers/{voucher.id}", valid_until="2031-03-01T00:00:00Z")
        assert answer.json()["errors"][0]["pointer"] == "/valid_until"


class TestTheCatalogue:
    async def test_shows_what_can_be_redeemed_now(self, client: Client, databases: Databases) -> None:
        now = utc_now()
        shown = [
            await make_voucher(databases),
            await make_voucher(databases, valid_from=now - _DAY, valid_until=now + _DAY),
        ]
        hidden = [
            await make_voucher(databases, **fields)
            for fields in ({"stock": 0}, {"is_active": False}, {"valid_from": now + _DAY}, {"valid_until": now - _DAY})
        ]
        page = (await client.get("/vouchers", limit=100)).json()
        listed = [voucher["id"] for voucher in page["data"]]
        assert set(listed) >= {voucher.id for voucher in shown}
        assert not set(listed) & {voucher.id for voucher in hidden}
        assert page == PageView[VoucherView].model_validate(page).model_dump()
        for voucher in (*shown, *hidden):
            answer = await client.get(f"/vouchers/{voucher.id}")
            assert (answer.status_code, answer.json()["id"]) == (200, voucher.id)

    async def test_is_read_page_by_page_newest_first(self, client: Client, databases: Databases) -> None:
        made = [(await make_voucher(databases)).id for _ in range(5)]
        seen: list[str] = []
        cursor: dict[str, str] = {}
        while len(seen) < len(made):
            page = (await client.get("/vouchers", limit=2, **cursor)).json()
            seen += [voucher["id"] for voucher in page["data"]]
            cursor = {"cursor": page["next_cursor"]}
        assert seen[:5] == made[::-1]

    async def test_needs_a_token(self, api: httpx.AsyncClient) -> None:
        for path in ("/vouchers", "/vouchers/vch_x", "/rewards", "/redemptions", "/redemptions/rdm_x"):
            assert (await api.get(f"/api/v1{path}")).status_code == 401

    async def test_what_is_not_there_is_not_found(self, client: Client, saver: Account) -> None:
        for wrong in ("vch_x", saver.wallet.id, saver.user.id):
            assert _error(await client.get(f"/vouchers/{wrong}")) == (404, "not_found")


class TestRedeeming:
    async def test_answers_with_the_code_and_what_is_left(
        self, client: Client, saver: Account, databases: Databases
    ) -> None:
        voucher = await make_voucher(databases)
        answer = await client.redeem(voucher.id)
        assert answer.status_code == 201, answer.text
        receipt = answer.json()
        assert receipt == RedemptionReceipt.model_validate(receipt).model_dump()
        assert (receipt["voucher_id"], receipt["title"], receipt["cost"]) == (voucher.id, voucher.title, 100)
        assert receipt["balance"] == {
            "wallet_id": saver.wallet.id,
            "currency": "PTS",
            "available": 150,
            "held": 0,
            "balance": 150,
            "owed": 0,
        }
        assert len(receipt["code"].replace("-", "")) == 26
        assert answer.headers["Cache-Control"] == "no-store"
        kept = receipt.copy()
        del kept["balance"]
        one = await client.get(f"/redemptions/{receipt['id']}")
        assert one.json() == kept == RedemptionView.model_validate(kept).model_dump()
        assert (await client.get("/redemptions")).json()["data"] == [kept]
        assert one.headers["Cache-Control"] == "no-store"

    async def test_needs_a_key_and_with_the_same_one_gives_the_same_code(
        self, client: Client, databases: Databases
    ) -> None:
        voucher = await make_voucher(databases)
        assert _error(await client.post(f"/vouchers/{voucher.id}/redeem")) == (400, "idempotency_key_missing")
        key = uuid4().hex
        first, again = await client.redeem(voucher.id, key), await client.redeem(voucher.id, key)
        assert (again.status_code, again.content) == (201, first.content)
        assert again.headers["Idempotent-Replayed"] == "true"
        other = await make_voucher(databases)
        assert _error(await client.redeem(other.id, key)) == (422, "idempotency_key_reused")

    async def test_that_is_refused_says_why(self, client: Client, databases: Databases) -> None:
        limited, sold_out, over = (
            await make_voucher(databases, per_user_limit=1),
            await make_voucher(databases, stock=0),
            await make_voucher(databases, valid_until=utc_now() - _DAY),
        )
        dear = await make_voucher(databases, cost=1_000)
        assert (await client.redeem(limited.id)).status_code == 201
        assert _error(await client.redeem(limited.id)) == (422, "voucher_limit_reached")
        assert _error(await client.redeem(sold_out.id)) == (422, "voucher_sold_out")
        assert _error(await client.redeem(over.id)) == (422, "voucher_not_valid")
        assert _error(await client.redeem(dear.id)) == (422, "insufficient_funds")
        assert _error(await client.redeem("vch_x")) == (404, "not_found")

    async def test_without_a_wallet_for_points_is_refused(
        self, api: httpx.AsyncClient, databases: Databases, settings: Settings
    ) -> None:
        voucher = await make_voucher(databases)
        poor = Client(api, bearer((await make_account(databases)).user, settings))
        assert _error(await poor.redeem(voucher.id)) == (422, "no_wallet_in_currency")

    async def test_gives_every_one_a_code_of_their_own(self, client: Client, databases: Databases) -> None:
        voucher = await make_voucher(databases, cost=1)
        answers = await asyncio.gather(*(client.redeem(voucher.id) for _ in range(8)))
        assert len({answer.json()["code"] for answer in answers}) == 8

    async def test_shows_the_code_to_nobody_else_not_even_an_admin(
        self, client: Client, keeper: Client, databases: Databases
    ) -> None:
        redemption = (await client.redeem((await make_voucher(databases)).id)).json()
        assert _error(await keeper.get(f"/redemptions/{redemption['id']}")) == (404, "not_found")
        assert (await keeper.get("/redemptions")).json()["data"] == []


class TestRewards:
    async def test_are_ones_own_newest_first(self, client: Client, keeper: Client, saver: Account) -> None:
        page = (await client.get("/rewards")).json()
        assert page == PageView[RewardView].model_validate(page).model_dump(mode="json")
        (reward,) = page["data"]
        assert (reward["points"], reward["rules"], reward["status"]) == (250, {"tests": 250}, "success")
        assert (reward["wallet_id"], reward["operation_id"][:4]) == (saver.wallet.id, "dep_")
        assert (await keeper.get("/rewards")).json()["data"] == []


class TestPointsAreNoMoney:
    async def test_their_wallet_can_be_opened_and_its_history_read(
        self, api: httpx.AsyncClient, databases: Databases, settings: Settings
    ) -> None:
        account = await make_account(databases)
        client = Client(api, bearer(account.user, settings))
        opened = await client.post("/wallets", currency="PTS")
        assert (opened.status_code, opened.json()["currency"]) == (201, "PTS")
        assert _error(await client.post("/wallets", currency="PTS")) == (409, "wallet_exists")
        balances = (await client.get(f"/users/{account.user.id}/balance")).json()["balances"]
        assert [balance["currency"] for balance in balances] == ["INR", "PTS"]

    async def test_nothing_pays_them_in_or_out(self, client: Client) -> None:
        order = {"amount": 1, "currency": "PTS"}
        for path, body in (
            ("/deposits", {"source": "bank-account-0001"}),
            ("/withdrawals", {"destination": "bank-account-0001"}),
        ):
            answer = await client.post(path, uuid4().hex, **order, **body)
            assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/currency")

    async def test_none_go_from_one_person_to_another_under_any_name(
        self, client: Client, saver: Account, databases: Databases
    ) -> None:
        friend = await make_saver(databases)
        order = {"from_wallet_id": saver.wallet.id, "to_wallet_id": friend.wallet.id, "amount": 1}
        as_points = await client.post("/transfers", uuid4().hex, **order, currency="PTS")
        assert (as_points.status_code, as_points.json()["errors"][0]["pointer"]) == (422, "/currency")
        assert _error(await client.post("/transfers", uuid4().hex, **order, currency="INR")) == (
            422,
            "currency_mismatch",
        )
        money = (await client.get("/wallets")).json()["data"]
        (rupees,) = [wallet["id"] for wallet in money if wallet["currency"] == "INR"]
        into_points = await client.post(
            "/transfers", uuid4().hex, **(order | {"from_wallet_id": rupees}), currency="INR"
        )
        assert _error(into_points) == (422, "currency_mismatch")

    async def test_their_entries_can_be_picked_out(self, client: Client, saver: Account) -> None:
        entries = (await client.get(f"/users/{saver.user.id}/transactions", currency="PTS")).json()["data"]
        assert [(entry["type"], entry["amount"]) for entry in entries] == [("POINTS_EARNED", 250)]
        assert to_rfc3339(saver.wallet.updated_at) == entries[0]["created_at"]
