"""Bad input to the money routes: the right 4xx as a problem document, nothing written, never a 500."""

import gzip
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from service.database import Databases
from tests.person import Person

_GOOD = {"amount": 100, "currency": "INR", "destination": "bank-account-0001"}
_COLLECTIONS = ("deposits", "withdrawals", "transaction_logs", "idempotency_keys", "outbox")


@pytest.fixture(scope="module")
async def api(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Without the prefix: these tests name whole paths."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://wallet.example") as client:
        yield client


@pytest.fixture(scope="module")
async def person(api: httpx.AsyncClient) -> Person:
    return await Person.register(api)


async def _count(databases: Databases) -> dict[str, int]:
    return {name: await databases.wallet[name].count_documents({}) for name in _COLLECTIONS}


async def _send(person: Person, body: bytes, **headers: str) -> httpx.Response:
    sent = {**person.headers, "Idempotency-Key": uuid4().hex, "Content-Type": "application/json", **headers}
    return await person.http.post("/api/v1/withdrawals", content=body, headers=sent)


def _assert_problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["status"] == status
    assert problem["error"] == code
    assert problem["request_id"] == response.headers["X-Request-ID"]
    assert {"type", "title", "detail", "message"} <= problem.keys()
    return problem


class TestAmounts:
    @pytest.mark.parametrize(
        "amount",
        ["0", "-1", "1.0", "1.5", "1e2", "1E400", '"100"', "true", "null", "[]", "{}", '{"$gt": 0}', "9007199254740992",
         "9223372036854775808", "1" * 400, '"१००"', "-0"],
    )  # fmt: skip
    async def test_anything_but_a_positive_integer_in_range_is_refused_with_what_to_send(
        self, person: Person, databases: Databases, amount: str
    ) -> None:
        before = await _count(databases)
        body = json.dumps(_GOOD).replace("100", amount, 1)
        problem = _assert_problem(await _send(person, body.encode()), 422, "invalid_fields")
        (error,) = problem["errors"]
        assert error["pointer"] == "/amount"
        assert "minor units" in error["message"]
        assert await _count(databases) == before

    @pytest.mark.parametrize("amount", ["NaN", "Infinity", "-Infinity", "1" * 5000, "0x10", "01", "+1", "1_000"])
    async def test_what_is_no_json_number_is_malformed(self, person: Person, amount: str) -> None:
        body = json.dumps(_GOOD).replace("100", amount, 1)
        _assert_problem(await _send(person, body.encode()), 400, "malformed_request")


class TestBodies:
    @pytest.mark.parametrize(
        "body",
        [
            b"{",
            b"",
            b"\xff\xfe",
            b'{"amount": 1, "amount": 2, "currency": "INR", "destination": "bank-account-0001"}',
            b'{"amount": 1, "currency": "INR", "destination": "bank-account-0001", "description": "\\ud800"}',
            b"[" * 50_000,
            b"[" * 33 + b"]" * 33,
            b'{"a":' * 33 + b"1" + b"}" * 33,
        ],
        ids=["broken", "empty", "not UTF-8", "duplicate key", "lone surrogate", "deep", "33 lists", "33 objects"],
    )
    async def test_what_cannot_be_read_in_one_way_is_refused(
        self, person: Person, databases: Databases, body: bytes
    ) -> None:
        before = await _count(databases)
        response = await _send(person, body)
        assert response.status_code in (400, 422)
        assert response.json()["error"] in ("malformed_request", "invalid_fields")
        assert await _count(databases) == before

    @pytest.mark.parametrize(
        "change",
        [
            {"user_id": "usr_somebody"},
            {"status": "success"},
            {"currency": "XYZ"},
            {"currency": "inr"},
            {"currency": {"$ne": ""}},
            {"destination": {"$gt": ""}},
            {"destination": ""},
            {"destination": "x" * 65},
            {"destination": "bank\naccount"},
            {"description": "line\nforged"},
            {"description": "x" * 257},
            {"category": ["a"]},
            {"metadata": {"a": 1}},
            {"metadata": {"a": {"$gt": 0}}},
            {"metadata": {"$ref": "x", "$id": "y"}},
            {"metadata": {str(n): "x" for n in range(21)}},
            {"$where": "1"},
        ],
        ids=str,
    )
    async def test_unknown_fields_and_wrong_values_are_refused(
        self, person: Person, databases: Databases, change: dict[str, Any]
    ) -> None:
        before = await _count(databases)
        response = await _send(person, json.dumps(_GOOD | change).encode())
        _assert_problem(response, 422, "invalid_fields")
        assert await _count(databases) == before

    async def test_what_is_not_quite_too_deep_is_looked_at(self, person: Person) -> None:
        body = b'{"metadata":' + b"[" * 31 + b"]" * 31 + b"}"
        _assert_problem(await _send(person, body), 422, "invalid_fields")
        beside = json.dumps({**_GOOD, "metadata": {str(n): [[]] for n in range(20)}}).encode()
        _assert_problem(await _send(person, beside), 422, "invalid_fields")

    @pytest.mark.parametrize(
        "body",
        [
            b"[" + b",".join([b"{}"] * 4097) + b"]",
            b"[" + b",".join([b"[]"] * 4097) + b"]",
            b"{" + b",".join(b'"%d":0' % n for n in range(65)) + b"}",
        ],
        ids=["objects", "lists", "members"],
    )
    async def test_what_has_more_parts_than_anything_of_ours_is_not_looked_at(
        self, person: Person, body: bytes
    ) -> None:
        """Some megabytes of them would keep everybody else waiting for seconds."""
        _assert_problem(await _send(person, body), 400, "malformed_request")

    async def test_who_sends_nothing_but_mistakes_is_told_of_a_hundred(self, person: Person) -> None:
        batch: dict[str, Any] = {"mode": "best_effort", "transfers": [{str(n): 0 for n in range(60)}] * 500}
        response = await person.post("/transfers/batch", **batch)
        assert len(_assert_problem(response, 422, "invalid_fields")["errors"]) == 100

    async def test_a_large_body_of_nobody_is_refused_unread(self, api: httpx.AsyncClient) -> None:
        async def unread() -> Any:
            yield b" "
            raise AssertionError("somebody wants to read more of it")

        headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
        response = await api.post("/api/v1/transfers/batch", content=unread(), headers=headers)
        _assert_problem(response, 401, "unauthenticated")

    @pytest.mark.parametrize("body", [b"[]", b"1", b'"x"', b"null"])
    async def test_a_body_that_is_no_object_is_refused(self, person: Person, body: bytes) -> None:
        _assert_problem(await _send(person, body), 422, "invalid_fields")

    async def test_a_body_over_64_kib_is_refused_before_it_is_read(self, person: Person) -> None:
        body = json.dumps({**_GOOD, "description": "x" * 70_000}).encode()
        _assert_problem(await _send(person, body), 413, "body_too_large")

    async def test_a_body_without_a_length_is_refused_at_the_limit(self, person: Person) -> None:
        async def endless() -> Any:
            for _ in range(100):
                yield b" " * 1024

        response = await person.http.post(
            "/api/v1/withdrawals",
            content=endless(),
            headers={**person.headers, "Idempotency-Key": "k", "Content-Type": "application/json"},
        )
        _assert_problem(response, 413, "body_too_large")

    @pytest.mark.parametrize(
        "media_type",
        [
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/jsonp",
            "",
            "application/json; charset=latin-1",
            "application/json;x=1;charset=utf-16",
        ],
    )
    async def test_another_media_type_is_refused(self, person: Person, media_type: str) -> None:
        response = await _send(person, json.dumps(_GOOD).encode(), **{"Content-Type": media_type})
        _assert_problem(response, 415, "unsupported_media_type")

    @pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip", "x"])
    async def test_a_packed_body_is_refused(self, person: Person, encoding: str) -> None:
        response = await _send(person, gzip.compress(json.dumps(_GOOD).encode()), **{"Content-Encoding": encoding})
        _assert_problem(response, 415, "unsupported_media_type")

    @pytest.mark.parametrize("media_type", ["application/json;charset=UTF-8", 'Application/JSON ; charset="utf-8"'])
    async def test_utf_8_may_be_named(self, person: Person, media_type: str) -> None:
        response = await _send(person, b"[]", **{"Content-Type": media_type})
        _assert_problem(response, 422, "invalid_fields")

    async def test_a_currency_without_a_wallet_is_refused(self, person: Person) -> None:
        response = await _send(person, json.dumps(_GOOD | {"currency": "JPY"}).encode())
        _assert_problem(response, 422, "no_wallet_in_currency")


class TestQueries:
    @pytest.mark.parametrize(
        "digits", ["\uff11\uff12", "+5", "%2B5", "%205", "5%0A", "5.0", "1_000", "0x5", "5e0", "", "9" * 5000]
    )
    async def test_what_is_no_plain_number_is_refused(self, person: Person, digits: str) -> None:
        response = await person.get(f"/deposits?limit={digits}")
        (error,) = _assert_problem(response, 422, "invalid_fields")["errors"]
        assert error["pointer"] == "/query/limit"


class TestHeaders:
    async def test_a_missing_key_is_refused(self, person: Person) -> None:
        response = await person.http.post("/api/v1/withdrawals", json=_GOOD, headers=person.headers)
        _assert_problem(response, 400, "idempotency_key_missing")

    @pytest.mark.parametrize(
        "key",
        [
            "",
            '""',
            "a b",
            "x" * 256,
            "ключ".encode(),
            "tab\there",
            '"open',
            'clo"sed"',
            '"in"side"',
            '"esc\\ape"',
            '"end\\"',
        ],
    )
    async def test_a_malformed_key_is_refused(self, person: Person, key: str | bytes) -> None:
        raw = key if isinstance(key, bytes) else key.encode()
        headers = [(name.encode(), value.encode()) for name, value in person.headers.items()]
        response = await person.http.post(
            "/api/v1/withdrawals", json=_GOOD, headers=[*headers, (b"Idempotency-Key", raw)]
        )
        _assert_problem(response, 400, "idempotency_key_invalid")

    async def test_two_keys_are_refused(self, person: Person) -> None:
        headers = [*person.headers.items(), ("Idempotency-Key", "one"), ("Idempotency-Key", "two")]
        response = await person.http.post("/api/v1/withdrawals", json=_GOOD, headers=headers)
        _assert_problem(response, 400, "idempotency_key_invalid")

    async def test_a_quoted_key_may_have_escapes(self, person: Person) -> None:
        key = uuid4().hex
        first = await person.deposit(1, key=rf'"{key}\"\\"')
        again = await person.deposit(1, key=rf'"{key}\"\\"')
        other = await person.deposit(1, key=rf"{key}\\")
        assert again.headers["Idempotent-Replayed"] == "true"
        assert again.content == first.content != other.content

    async def test_a_quoted_key_is_the_same_as_a_bare_one(self, person: Person) -> None:
        key = uuid4().hex
        first = await person.deposit(1, key=key)
        again = await person.deposit(1, key=f'"{key}"')
        assert again.content == first.content
        assert again.headers["Idempotent-Replayed"] == "true"

    @pytest.mark.parametrize(
        "authorization", [None, "", "Bearer", "Bearer ", "Bearer x.y.z", "Basic YTpi", "bearer e30.e30.e30"]
    )
    async def test_a_missing_or_malformed_token_is_refused(
        self, api: httpx.AsyncClient, databases: Databases, authorization: str | None
    ) -> None:
        before = await _count(databases)
        headers = {"Idempotency-Key": uuid4().hex}
        if authorization is not None:
            headers["Authorization"] = authorization
        response = await api.post("/api/v1/withdrawals", json=_GOOD, headers=headers)
        _assert_problem(response, 401, "unauthenticated")
        assert response.headers["WWW-Authenticate"] == "Bearer"
        assert await _count(databases) == before

    async def test_an_insane_request_id_is_replaced(self, api: httpx.AsyncClient) -> None:
        for sent in ("x", "a" * 200, "forged id with spaces"):
            response = await api.get("/livez", headers={"X-Request-ID": sent})
            assert response.headers["X-Request-ID"] != sent
        response = await api.get("/livez", headers={"X-Request-ID": "sane-request-1"})
        assert response.headers["X-Request-ID"] == "sane-request-1"


class TestAKeyThatOutlivesTheEncryptionKey:
    async def test_gets_its_first_answer_again(self, app: FastAPI, person: Person) -> None:
        resources = app.state.resources
        first_key, second_key = uuid4().hex, uuid4().hex
        first = await person.deposit(7, key=first_key)
        other = {"encryption_key": SecretStr("A" * 43 + "=")}
        between = other | {"encryption_key_previous": resources.settings.encryption_key}
        try:
            app.state.resources = resources._replace(settings=resources.settings.model_copy(update=between))
            again = await person.deposit(7, key=first_key)
            assert (again.content, again.headers["Idempotent-Replayed"]) == (first.content, "true")
            _assert_problem(await person.deposit(8, key=first_key), 422, "idempotency_key_reused")
            second = await person.deposit(7, key=second_key)
            app.state.resources = resources._replace(settings=resources.settings.model_copy(update=other))
            assert (await person.deposit(7, key=second_key)).content == second.content
            # What was kept under a key that is gone is nobody's any more, and above all not done twice.
            _assert_problem(await person.deposit(7, key=first_key), 422, "idempotency_key_reused")
        finally:
            app.state.resources = resources


class TestOtherPeoples:
    async def test_an_operation_of_somebody_else_is_not_found(self, api: httpx.AsyncClient, person: Person) -> None:
        other = await Person.register(api)
        theirs = (await other.deposit(5)).json()
        response = await person.get(f"/deposits/{theirs['id']}")
        _assert_problem(response, 404, "not_found")
        listed = (await person.get("/deposits?limit=100")).json()["data"]
        assert theirs["id"] not in [one["id"] for one in listed]

    async def test_an_unknown_path_and_method_are_problems_too(self, api: httpx.AsyncClient) -> None:
        _assert_problem(await api.get("/api/v1/nothing"), 404, "not_found")
        _assert_problem(await api.delete("/api/v1/withdrawals"), 405, "method_not_allowed")


class TestRevokedTokens:
    async def test_move_no_money_and_open_no_wallet(self, api: httpx.AsyncClient, databases: Databases) -> None:
        person = await Person.register(api)
        await databases.wallet["users"].update_one({"_id": person.user_id}, {"$inc": {"token_version": 1}})
        key = uuid4().hex
        _assert_problem(await person.deposit(5, key=key), 401, "unauthenticated")
        _assert_problem(await person.withdraw(5), 401, "unauthenticated")
        opened = await api.post("/api/v1/wallets", json={"currency": "USD"}, headers=person.headers)
        _assert_problem(opened, 401, "unauthenticated")
        assert await databases.wallet["idempotency_keys"].find_one({"_id": f"{person.user_id}:{key}"}) is None

    async def test_nor_do_those_of_a_deactivated_user(self, api: httpx.AsyncClient, databases: Databases) -> None:
        person = await Person.register(api)
        await databases.wallet["users"].update_one({"_id": person.user_id}, {"$set": {"is_active": False}})
        _assert_problem(await person.withdraw(5), 403, "account_deactivated")
