"""Amounts that are no whole number of minor units, on every field that takes an integer."""

from typing import Any, Final

import orjson

from tests.security.findings import Finding, weigh
from tests.security.routes import Field, Route, put
from tests.security.target import Target, share
from tests.security.watch import Watch
from tests.security.world import SIGNED, Person, send

# A text that no body has, to be replaced by what orjson would never write.
_PLACE: Final = "@@the amount@@"
_DIGITS = 5_000

# JSON that two readers could read differently, or that is no integer at all.
_NEVER: Final[tuple[str, ...]] = (
    "1.0", "1.5", "100.00", "1e2", "1E2", "1e400", "-1e400", "1e-2", '"100"', '""', '" 100"', '"1e2"', '"NaN"',
    "true", "false", "[1]", "[]", "{}", '{"$gt": 0}', '{"$numberLong": "100"}', '"\\u0967\\u0966\\u0966"',
    '"\uff11\uff10\uff10"',
    "9223372036854775807", "9223372036854775808", "18446744073709551616", "-9223372036854775809", "1" + "0" * 400,
    "NaN", "Infinity", "-Infinity", "nan", "00", "007", "-01", "0x10", "0b1", "0o7", "1_000", "+1", ".5", "5.", "1,000",
    "\u0967\u0966\u0966", "\uff11\uff10\uff10", "1" * _DIGITS, "-" + "1" * _DIGITS, "0.1e1", "undefined", "1n", "",
)  # fmt: skip
# Those that depend on the field's bounds.
_SOMETIMES: Final[tuple[int, ...]] = (0, -1, 2**53 - 1, 2**53, 2**53 + 1, 2**31, -(2**31) - 1, -(2**53))
_NEVER_IN_QUERY: Final = (
    "1.5", "1e2", "NaN", "Infinity", "0x10", "1,000", "\u0967\u0966\u0966x",
    "true", "[1]", "-1", "9" * 30, "1" * _DIGITS, "\0", "",
)  # fmt: skip


async def attack(target: Target) -> list[Finding]:
    await target.world.prepare(target.routes, "attacker")
    watch = await Watch.begin(target.world)
    findings = []
    for route in target.routes:
        person = await target.world.someone(target.world.lowest_role(route), "attacker")
        if str(route) not in SIGNED:
            for field in route.integers:
                findings += await _in_field(target, route, field, person)
        for field in route.query:
            if field.types - {"null"} == {"integer"}:
                findings += await _in_query(target, route, field, person)
    return findings + await watch.end("amounts")


async def _in_field(target: Target, route: Route, field: Field, person: Person) -> list[Finding]:
    findings = []
    ids, query = await person.ids_for(route), await person.query_for(route)
    body = orjson.dumps(put(await person.body_for(route), field.path, _PLACE)).decode()
    least, most = field.bounds
    refused = [*_NEVER, *(str(value) for value in _SOMETIMES if not least <= value <= most)]
    if least > 0:
        refused.append("-0")
    if not field.is_nullable:
        refused.append("null")
    # An amount is what all this is about: each of them gets all.
    for raw in refused if field.name == "amount" else share(refused, route, field, 12):
        content = body.replace(f'"{_PLACE}"', raw).encode()
        answer = await send(target.api, route, person.headers, ids=ids, query=query, content=content)
        findings += weigh(answer, route, f"{raw[:30]} as {field}", allowed={400, 422})
    for first, second in (("1", "9999"), ("9999", "1"), ("1", "1")):
        twice = f'{first}, "{field.name}": {second}'
        content = body.replace(f'"{_PLACE}"', twice).encode()
        answer = await send(target.api, route, person.headers, ids=ids, query=query, content=content)
        findings += weigh(answer, route, f"{field} twice", allowed={400})
    return findings


async def _in_query(target: Target, route: Route, field: Field, person: Person) -> list[Finding]:
    findings = []
    ids, query = await person.ids_for(route), await person.query_for(route)
    for raw in share(_NEVER_IN_QUERY, route, field, 3):
        given: dict[str, Any] = {**query, field.name: raw}
        answer = await send(target.api, route, person.headers, ids=ids, query=given)
        findings += weigh(answer, route, f"?{field.name}={raw[:30]}", allowed={400, 422})
    return findings
