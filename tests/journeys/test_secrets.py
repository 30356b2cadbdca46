"""Whatever is secret or an account at the bank: looked for afterwards in every log line, Redis value and document."""

import asyncio
import json
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import uuid4

import httpx
import pymongo
import pyotp
import pytest
import redis
from bson import encode

from scripts.service_stack import API, WORKER, Stack
from service.domain.clock import utc_now
from tests.person import Person
from tests.stack_fixtures import mail_to

_POINTS_COST = 1


class Canaries:
    """What must not turn up; what was answered meanwhile is kept to be looked through."""

    def __init__(self) -> None:
        self.secrets: dict[str, str] = {}
        self.accounts: dict[str, str] = {}
        self.answers: list[str] = []

    def account(self, name: str, ending: str) -> str:
        # What is in front of the last four has to stay hidden as well: it is what the search is for.
        self.accounts[name] = f"Acct{uuid4().hex[:20]}"
        return f"{self.accounts[name]}-{ending}"

    def secret(self, name: str, text: str | None = None) -> str:
        self.secrets[name] = text or f"canary-{uuid4().hex}"
        return self.secrets[name]

    def found_in(self, where: str, content: bytes) -> list[str]:
        spelled = {**self.secrets, **self.accounts}
        return [f"{name} in {where}" for name, text in spelled.items() if text.encode() in content]


class Actor:
    def __init__(self, http: httpx.AsyncClient, canaries: Canaries) -> None:
        self.http, self.canaries, self.headers = http, canaries, dict[str, str]()

    async def send(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        gives_secret: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        sent = {"Idempotency-Key": uuid4().hex, **self.headers, **(headers or {})}
        content = body if isinstance(body, bytes) else None
        answer = await self.http.request(
            method, f"/api/v1{path}", content=content, json=None if content is not None else body, headers=sent
        )
        if not gives_secret:
            self.canaries.answers.append(answer.text + str(answer.headers))
        return answer

    async def log_in(self, email: str, password: str) -> dict[str, Any]:
        answer = await self.send("POST", "/auth/login", body={"email": email, "password": password}, gives_secret=True)
        assert answer.status_code == 200, answer.text
        tokens: dict[str, Any] = answer.json()
        self.headers = {"Authorization": f"Bearer {tokens['access_token']}"}
        self.canaries.secret(f"access token {len(self.canaries.secrets)}", tokens["access_token"])
        self.canaries.secret(f"refresh token {len(self.canaries.secrets)}", tokens["refresh_token"])
        return tokens


@pytest.fixture
def mongo(stack: Stack) -> Iterator[pymongo.MongoClient[dict[str, Any]]]:
    with pymongo.MongoClient[dict[str, Any]](stack.settings["WALLET_MONGO_ADMIN_URL"]) as client:
        yield client


class TestSecrets:
    async def test_turn_up_nowhere(
        self, stack: Stack, http: httpx.AsyncClient, mongo: pymongo.MongoClient[dict[str, Any]]
    ) -> None:
        canaries = Canaries()
        actor, email = await _live(stack, http, canaries)
        reference = await _pay(actor, http, canaries)
        await _redeem(stack, http, mongo, actor, canaries)
        await _make_mistakes(actor, email, canaries)

        database = stack.settings.get("WALLET_DATABASE", "wallet")
        in_wallet, in_bank = _documents(mongo, database), _documents(mongo, f"{database}_bank")
        logs = {name: stack.log_path(name).read_bytes() for name in (API, WORKER)}
        # Whoever looks in the wrong place finds nothing either.
        assert reference.encode() in logs[API]
        assert reference.encode() in logs[WORKER]
        assert "•••• cess".encode() in in_wallet
        assert canaries.accounts["withdrawal"].encode() in in_bank

        found = [one for name, content in logs.items() for one in canaries.found_in(f"the log of the {name}", content)]
        found += canaries.found_in("MongoDB", in_wallet)
        found += canaries.found_in("Redis", _redis_content(stack))
        found += canaries.found_in("answers", "\n".join(canaries.answers).encode())
        assert found == []


async def _live(stack: Stack, http: httpx.AsyncClient, canaries: Canaries) -> tuple[Actor, str]:
    """Registers, changes the password, enrols an app."""
    actor, email = Actor(http, canaries), f"{uuid4().hex}@example.com"
    password, second = canaries.secret("password"), canaries.secret("second password")
    person = {"first_name": "Ada", "last_name": "Byron", "email": email, "password": password}
    assert (await actor.send("POST", "/auth/register", body=person)).status_code == 201
    wrong = {"email": email, "password": canaries.secret("wrong password")}
    assert (await actor.send("POST", "/auth/login", body=wrong)).status_code == 401
    await actor.log_in(email, password)
    change = {"current_password": password, "new_password": second}
    changed = await actor.send("POST", "/me/password", body=change, gives_secret=True)
    assert changed.status_code == 200, changed.text
    tokens = await actor.log_in(email, second)
    renewed = await actor.send(
        "POST", "/auth/refresh", body={"refresh_token": tokens["refresh_token"]}, gives_secret=True
    )
    canaries.secret("renewed refresh token", renewed.json()["refresh_token"])

    begun = await actor.send("POST", "/me/totp", body={"password": second}, gives_secret=True)
    secret = canaries.secret("app's secret", begun.json()["secret"])
    code = pyotp.TOTP(secret).at(utc_now())
    mailed = (await mail_to(stack, email, "Confirm your authenticator app")).split()[3]
    body = {"code": code, "mailed_code": mailed}
    codes = await actor.send("POST", "/me/totp/confirm", body=body, gives_secret=True)
    for number, recovery in enumerate(codes.json()["recovery_codes"]):
        canaries.secret(f"recovery code {number}", recovery)
    renewal = {"code": canaries.secrets["recovery code 0"]}
    renewed_codes = await actor.send("POST", "/me/totp/recovery-codes", body=renewal, gives_secret=True)
    assert renewed_codes.status_code == 200, renewed_codes.text
    return actor, email


async def _pay(actor: Actor, http: httpx.AsyncClient, canaries: Canaries) -> str:
    """In, out, declined, refused and unknown; an id to look for in the logs."""
    person = Person.__new__(Person)
    person.http, person.headers = http, actor.headers

    async def ask(kind: str, name: str, ending: str, amount: int, **more: Any) -> httpx.Response:
        account = {"source" if kind == "deposit" else "destination": canaries.account(name, ending)}
        return await actor.send("POST", f"/{kind}s", body={"amount": amount, "currency": "INR", **account, **more})

    for kind, name, ending, amount, status in (
        ("deposit", "deposit", "success", 50_000, "success"),
        ("withdrawal", "withdrawal", "success", 1_000, "success"),
        ("withdrawal", "declined withdrawal", "decline", 1_000, "failed"),
        ("withdrawal", "unknown account", "invalid-account", 1_000, "failed"),
    ):
        accepted = await ask(kind, name, ending, amount, category="saving")
        assert accepted.status_code == 202, accepted.text
        ended = await person.ended(accepted.json())
        assert ended["status"] == status
        reference: str = ended["id"]
        if name == "withdrawal":
            logged = reference
    assert (await ask("withdrawal", "refused withdrawal", "success", 10**12)).status_code == 422
    for path in ("/deposits", "/withdrawals", "/wallets"):
        await actor.send("GET", path)
    return logged


async def _redeem(
    stack: Stack,
    http: httpx.AsyncClient,
    mongo: pymongo.MongoClient[dict[str, Any]],
    actor: Actor,
    canaries: Canaries,
) -> None:
    """An admin keeps vouchers and hands out an API key; points are spent on one."""
    admin, email, password = Actor(http, canaries), f"{uuid4().hex}@example.com", canaries.secret("admin's password")
    person = {"first_name": "Grace", "last_name": "Hopper", "email": email, "password": password}
    registered = await admin.send("POST", "/auth/register", body=person)
    users = mongo[stack.settings.get("WALLET_DATABASE", "wallet")]["users"]
    users.update_one({"email": email}, {"$set": {"roles": ["user", "admin", "service"]}})
    await admin.log_in(email, password)
    voucher = {"title": "Tea", "cost": _POINTS_COST, "stock": 5}
    created = await admin.send("POST", "/admin/vouchers", body=voucher)
    assert created.status_code == 201, created.text

    async with asyncio.timeout(30):
        while True:
            path = f"/vouchers/{created.json()['id']}/redeem"
            key = uuid4().hex
            redeemed = await actor.send("POST", path, gives_secret=True, headers={"Idempotency-Key": key})
            if redeemed.status_code == 201:
                break
            await asyncio.sleep(0.1)
    again = await actor.send("POST", path, gives_secret=True, headers={"Idempotency-Key": key})
    assert again.content == redeemed.content
    assert again.headers["Idempotent-Replayed"] == "true"
    canaries.secret("voucher code", redeemed.json()["code"])
    shown = await actor.send("GET", f"/redemptions/{redeemed.json()['id']}", gives_secret=True)
    assert shown.json()["code"] == redeemed.json()["code"]

    order = {"user_id": registered.json()["user"]["id"], "name": "till", "permissions": ["holds:read"]}
    issued = await admin.send("POST", "/admin/api-keys", body=order, gives_secret=True)
    assert issued.status_code == 201, issued.text
    api_key = canaries.secret("API key", issued.json()["secret"])
    robot = Actor(http, canaries)
    assert (await robot.send("GET", "/holds", headers={"X-API-Key": api_key})).status_code == 200
    wrong = canaries.secret("wrong API key", api_key[:-4] + "0000")
    assert (await robot.send("GET", "/holds", headers={"X-API-Key": wrong})).status_code == 401
    await admin.send("GET", "/admin/audit-events?limit=100")


async def _make_mistakes(actor: Actor, email: str, canaries: Canaries) -> None:
    """What is refused must not repeat what it refuses."""
    account = canaries.account("account in a bad request", "x" * 60)
    for body in (
        {"amount": 5, "currency": "INR", "destination": account},
        {"amount": 5, "currency": "INR", "destination": "bank-account-0001", "account": account},
        {"amount": account, "currency": account, "destination": "bank-account-0001"},
        b'{"amount": 5, "destination": "' + account.encode(),
        json.dumps({"amount": 5, "destination": account}).encode() + b"}",
    ):
        raw = {"Content-Type": "application/json"} if isinstance(body, bytes) else {}
        assert (await actor.send("POST", "/withdrawals", body=body, headers=raw)).status_code in (400, 422)
    tampered = canaries.secret("tampered token", actor.headers["Authorization"][7:-6] + "AAAAAA")
    assert (await actor.send("GET", "/me", headers={"Authorization": f"Bearer {tampered}"})).status_code == 401
    # Somebody puts it where it does not belong.
    assert (await actor.send("GET", f"/withdrawals/{tampered[:60]}")).status_code == 404
    wrong = {"email": email, "password": canaries.secret("password of a wrong type"), "remember": True}
    assert (await actor.send("POST", "/auth/login", body=wrong)).status_code == 422
    assert (await actor.send("POST", "/auth/password-reset", body={"email": email})).status_code in (200, 202)


def _documents(mongo: pymongo.MongoClient[dict[str, Any]], database: str) -> bytes:
    """All that there is, as BSON has it: texts as they are."""
    names = mongo[database].list_collection_names()
    return b"".join(encode(row) for name in names for row in mongo[database][name].find())


def _redis_content(stack: Stack) -> bytes:
    readers = {
        b"string": lambda server, key: server.get(key),
        b"hash": lambda server, key: server.hgetall(key),
        b"list": lambda server, key: server.lrange(key, 0, -1),
        b"set": lambda server, key: server.smembers(key),
        b"zset": lambda server, key: server.zrange(key, 0, -1),
        b"stream": lambda server, key: server.xrange(key),
    }
    with redis.Redis.from_url(stack.settings["WALLET_REDIS_URL"]) as server:
        keys = list(server.scan_iter())
        kept = [(key, readers[server.type(key)](server, key)) for key in keys if server.exists(key)]
    return repr(kept).encode()
