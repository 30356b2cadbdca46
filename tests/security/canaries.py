"""Secrets that are sent to each route, well and badly, and must turn up nowhere: log, answers, Redis, MongoDB.

tests/journeys/test_secrets.py follows those that the service itself gives out, through worker and bank.
"""

import re
from collections.abc import Iterator
from typing import Any, Final
from uuid import uuid4

import orjson
from redis.asyncio import Redis

from tests.security.findings import Finding
from tests.security.log_capture import captured_log
from tests.security.routes import Field, Route, put
from tests.security.target import Target
from tests.security.world import COLLECTIONS, SIGNED, Person, send

# Fields that carry what nobody else may learn. A new one is recognised by its name, as in the log.
_SECRET_FIELD: Final = re.compile(r".*(password|token|secret)|code|pin|destination|source|iban|account")
_SETTINGS: Final = ("jwt_secret", "bank_webhook_secret", "encryption_key", "checkpoint_signing_key")


class Canaries:
    """Each is unlike all else there is, so that to find it is to have found where it came from."""

    def __init__(self) -> None:
        self.sent: dict[str, str] = {}

    def hatch(self, where: str) -> str:
        canary = f"canary{uuid4().hex}"
        self.sent[canary] = where
        return canary

    def found_in(self, place: str, content: bytes) -> list[Finding]:
        # One search for the word before one for each of them.
        seen = {match.decode() for match in re.findall(rb"canary[0-9a-f]{32}", content)}
        return [Finding(where, "canary", f"found in {place}") for one, where in self.sent.items() if one in seen]


async def attack(target: Target) -> list[Finding]:
    canaries = Canaries()
    answers: list[bytes] = []
    # The other form gets the same events, with the same secrets taken out.
    with captured_log(target.world.settings, as_json=True) as written:
        for route in target.routes:
            if str(route) not in SIGNED:
                person = await target.world.caller(target.world.lowest_role(route), "careless")
                sent = _carelessly(target, route, person, canaries)
                answers += [one.content + repr(one.headers).encode() async for one in sent]
    log = written.getvalue().encode()
    findings = canaries.found_in("the log", log) + _settings_in(target, "the log", log)
    findings += canaries.found_in("an answer", b"\n".join(answers)) + _settings_in(target, "answers", b"".join(answers))
    findings += canaries.found_in("Redis", await _redis(target))
    for name in COLLECTIONS:
        findings += canaries.found_in(f"the collection {name}", await _collection(target, name))
    if not canaries.sent:
        findings.append(Finding("(all routes)", "canary", "none was sent"))
    return findings


def secret_fields(route: Route) -> list[Field]:
    return [field for field in route.texts if _SECRET_FIELD.fullmatch(field.name)]


async def _carelessly(target: Target, route: Route, person: Person, canaries: Canaries) -> Any:
    """Yields answers."""
    ids, query = await person.ids_for(route), await person.query_for(route)
    body = await person.body_for(route)
    for field in secret_fields(route):
        for content in _spellings(route, field, body, canaries):
            yield await send(target.api, route, person.headers, ids=ids, query=query, content=content)
    for name in ("Authorization", "X-API-Key", "Cookie", "Proxy-Authorization"):
        canary = canaries.hatch(f"{name} of {route}")
        value = f"Bearer {canary}" if name == "Authorization" else canary
        yield await send(target.api, route, {name: value}, ids=ids, query=query, body=body)
    canary = canaries.hatch(f"a parameter of {route}")
    yield await send(target.api, route, person.headers, ids=ids, query={**query, "access_token": canary}, body=body)


def _spellings(route: Route, field: Field, body: Any, canaries: Canaries) -> Iterator[bytes]:
    """As it should be, of other types and lengths, beside what is wrong, and in what is no JSON."""

    def hatch(how: str) -> str:
        return canaries.hatch(f"{field} of {route}, {how}")

    yield orjson.dumps(put(body, field.path, hatch("as it should be")))
    yield orjson.dumps(put(body, field.path, hatch("too long") * 20))
    yield orjson.dumps(put(body, field.path, [hatch("in a list")]))
    yield orjson.dumps(put(body, field.path, {"$eq": hatch("in an object")}))
    yield orjson.dumps(put({**body, "unknown": True}, field.path, hatch("beside a wrong one")))
    yield orjson.dumps(put(body, field.path, hatch("in half a body")))[:-1]
    yield orjson.dumps(hatch("alone"))


def _settings_in(target: Target, place: str, content: bytes) -> list[Finding]:
    settings = target.world.settings
    secrets = {name: getattr(settings, name).get_secret_value() for name in _SETTINGS}
    secrets["the database's password"] = settings.mongo_url.get_secret_value().partition("@")[0].rpartition(":")[2]
    return [Finding(name, "canary", f"found in {place}") for name, text in secrets.items() if text.encode() in content]


async def _redis(target: Target) -> bytes:
    """All keys, and all that they hold."""
    async with Redis.from_url(target.world.settings.redis_url.get_secret_value()) as server:
        readers = {
            b"string": server.get,
            b"hash": server.hgetall,
            b"list": lambda key: server.lrange(key, 0, -1),
            b"set": server.smembers,
            b"zset": lambda key: server.zrange(key, 0, -1),
            b"stream": server.xrange,
        }
        keys = [key async for key in server.scan_iter()]
        kept = [(key, await readers[kind](key)) for key in keys if (kind := await server.type(key)) in readers]
    return repr(kept).encode()


async def _collection(target: Target, name: str) -> bytes:
    """As BSON has it: texts as they are."""
    batches = target.world.databases.wallet[name].find_raw_batches()
    return b"".join([batch async for batch in batches])
