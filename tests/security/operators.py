"""MongoDB's operators, other types and members that nobody asked for, in every field and every parameter."""

import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

import httpx

from tests.security.findings import Finding, weigh
from tests.security.routes import Field, Route, put
from tests.security.target import Target, share
from tests.security.watch import Watch
from tests.security.world import SIGNED, Person, send

_OPERATORS: Final[tuple[Any, ...]] = (
    {"$gt": ""},
    {"$ne": None},
    {"$where": "sleep(1000)"},
    {"$regex": ".*"},
    {"__proto__": {"roles": ["admin"]}},
    [],
    [{"$gt": ""}],
    ["user", "admin"],
)
_LISTS: Final[tuple[Any, ...]] = ([], ["user", "admin"])
# What else is of the wrong type, by what a field takes.
_OTHER_TYPES: Final[dict[str, tuple[Any, ...]]] = {
    "string": (True, 1, 1.5),
    "integer": ("1", True, 1.5),
    "number": ("1", True),
    "boolean": ("true", 1, 0, "yes"),
    "array": ("x", 1, {"0": "x"}),
    "object": ("x", 1, True),
}
_UNASKED: Final[dict[str, Any]] = {
    "user_id": "usr_0198c0ffee0070008000000000000001",
    "owner_id": "usr_0198c0ffee0070008000000000000001",
    "requested_by": "usr_0198c0ffee0070008000000000000001",
    "roles": ["admin"],
    "role": "admin",
    "permissions": ["*"],
    "is_active": True,
    "is_admin": True,
    "balance": 10**9,
    "available": 10**9,
    "held": 0,
    "status": "success",
    "version": 99,
    "token_version": 99,
    "seq": 1,
    "id": "wal_0198c0ffee0070008000000000000001",
    "_id": "wal_0198c0ffee0070008000000000000001",
    "created_at": "2020-01-01T00:00:00Z",
    "__proto__": {"is_admin": True},
    "constructor": {"prototype": {"is_admin": True}},
    "__class__": "x",
    "$set": {"roles": ["admin"]},
    "$where": "1",
    "user.roles": ["admin"],
    "amount.$gt": 0,
    "model_config": {"extra": "allow"},
}
_QUERY_OPERATORS: Final = ("{}[$gt]", "{}[$ne]", "{}[]", "{}.$gt", "{}[$where]", "{}[0]", "__proto__[{}]")
_UNASKED_QUERY: Final = ("user_id", "owner_id", "role", "is_admin", "$where", "filter[$where]", "_id", "__proto__[x]")
_QUERY_VALUES: Final = ('{"$gt": ""}', '{"$where": "sleep(1000)"}', "[$ne]", "$where", "';return true;//")
# What is another one each time, whatever is asked.
_TIME: Final = re.compile(r'\d{4}-\d\d-\d\dT[\d:.]+Z|"last_seen_age_s":[\d.]+')
_FIGURES: Final = "/metrics"
_Ask = Callable[[Any], Awaitable[httpx.Response]]
# Texts that a filter may take as they are: then they have to find nothing.
_TAKES_TEXT = 200


async def attack(target: Target) -> list[Finding]:
    await target.world.prepare(target.routes, "attacker")
    watch = await Watch.begin(target.world)
    findings = []
    for route in target.routes:
        person = await target.world.someone(target.world.lowest_role(route), "attacker")
        if route.body is not None and str(route) not in SIGNED:
            findings += await _in_fields(target, route, person)
            findings += await _as_members(target, route, person)
        if route.method == "GET" or route.query:
            findings += await _in_query(target, route, person)
    return findings + await watch.end("operators and members nobody asked for")


async def _in_fields(target: Target, route: Route, person: Person) -> list[Finding]:
    findings = []
    body = await person.body_for(route)
    for field in route.fields:
        for value in share(_wrong_values(field), route, field, 5):
            answer = await _send(target, route, person, put(body, field.path, value))
            findings += weigh(answer, route, f"{value!r} as {field}", allowed={400, 422})
    return findings


def _wrong_values(field: Field) -> list[Any]:
    """Operators, and other types than the field's. A field that takes lists or objects gets none of its own type."""
    kinds = field.types - {"null"}
    wrong = [one for one in _OPERATORS if not ("array" in kinds and one in _LISTS)]
    if "object" in kinds:
        wrong = [{"a": {"$gt": 0}}, {"$where": "1"}, {"a": ["x"]}, {"": "x"}, []]
    others = [_OTHER_TYPES.get(kind, ()) for kind in kinds]
    # Wrong is what is wrong for each of the types.
    wrong += [one for one in (others[0] if others else ()) if all(any(one is each for each in of) for of in others)]
    return wrong


async def _as_members(target: Target, route: Route, person: Person) -> list[Finding]:
    findings = []
    body = await person.body_for(route)
    known = {field.path for field in route.fields}
    for at in route.objects:
        if at and not _is_there(body, at):
            continue
        for name, value in share(list(_UNASKED.items()), route, at, 9):
            if (*at, name) not in known:
                answer = await _send(target, route, person, put(body, (*at, name), value))
                place = "/".join(map(str, (*at, name)))
                findings += weigh(answer, route, f"a member `{place}` that nobody asked for", allowed={400, 422})
    return findings


def _is_there(body: Any, path: tuple[str | int, ...]) -> bool:
    for step in path:
        try:
            body = body[step]
        except (KeyError, IndexError, TypeError):
            return False
    return True


async def _in_query(target: Target, route: Route, person: Person) -> list[Finding]:
    findings = []
    usual = await person.query_for(route)
    ids = await person.ids_for(route)

    async def ask(query: Any) -> httpx.Response:
        return await send(target.api, route, person.headers, ids=ids, query=query)

    for field in route.query:
        for pattern in share(_QUERY_OPERATORS, route, field, 2):
            answer = await ask({**usual, pattern.format(field.name): "x"})
            findings += weigh(answer, route, f"?{pattern.format(field.name)}=x", allowed={400, 422})
        if "array" not in field.types:
            given = str(await _some_value(route, field, person))
            answer = await ask([*usual.items(), (field.name, given), (field.name, given + "0")])
            findings += weigh(answer, route, f"?{field.name}= twice", allowed={400, 422})
    if route.method == "GET":
        findings += await _in_filters(route, usual, ask)
        findings += await _unasked_filters(route, usual, ask, target.world.third.user.id)
    return findings


async def _in_filters(route: Route, usual: dict[str, str], ask: _Ask) -> list[Finding]:
    """Operators as values."""
    findings = []
    for field in route.query:
        for value in share(_QUERY_VALUES, route, field, 2):
            answer = await ask({**usual, field.name: value})
            attack = f"?{field.name}={value}"
            if not (answer.status_code == _TAKES_TEXT and "string" in field.types):
                findings += weigh(answer, route, attack, allowed={400, 422})
            elif answer.json().get("data"):
                findings.append(Finding(str(route), attack, f"it found {answer.text[:200]}"))
    return findings


async def _unasked_filters(route: Route, usual: dict[str, str], ask: _Ask, value: str) -> list[Finding]:
    """Refused, or without any effect."""
    findings = []
    plain = _TIME.sub("", (await ask(usual)).text)
    declared = {field.name for field in route.query}
    for name in share([name for name in _UNASKED_QUERY if name not in declared], route, "query", 3):
        answer = await ask({**usual, name: value})
        if not answer.is_success:
            findings += weigh(answer, route, f"?{name}=", allowed={400, 422})
        elif route.path != _FIGURES and _TIME.sub("", answer.text) != plain:
            findings.append(Finding(str(route), f"?{name}=", f"it has changed the answer: {answer.text[:200]}"))
    return findings


async def _some_value(route: Route, field: Field, person: Person) -> Any:
    try:
        return await person.value_of(route, field)
    except LookupError:
        return "1"


async def _send(target: Target, route: Route, person: Person, body: Any) -> httpx.Response:
    return await send(
        target.api,
        route,
        person.headers,
        ids=await person.ids_for(route),
        query=await person.query_for(route),
        body=body,
    )
