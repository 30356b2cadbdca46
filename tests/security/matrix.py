"""Another user's resource, by every id that a route takes: it must look like one that does not exist, to the byte."""

import re

import httpx

from tests.security.findings import Finding, code_of, weigh
from tests.security.routes import Route, put
from tests.security.target import Target
from tests.security.world import OWN_IDS_IN_BODIES, PRIVATE, ROLES, Person, bogus_id, send

# Filters by an id: what is somebody else's finds as little as what is nobody's.
_ID_FILTERS = re.compile(r".*_id|reference|counterparty")
# A route that refuses many things as one says so in its own way, and as alike for what is another's and nobody's.
_REFUSED_AS_ONE = {"POST /api/v1/transfers/batch": 422}
# What differs between any two answers.
_OWN_OF_EACH = frozenset({"x-request-id", "content-length", "date"})


async def attack(target: Target) -> list[Finding]:
    findings = []
    world = target.world
    secured = [route for route in target.routes if route.is_secured]
    # All that anybody has is made before it is looked at.
    for name in ("attacker", "victim"):
        await world.prepare(secured, name)
    victims = {role: await world.someone(role, "victim") for role in ROLES}
    before = {role: await victim.state() for role, victim in victims.items()}
    for route in secured:
        role = world.lowest_role(route)
        findings += await _on(target, route, await world.someone(role, "attacker"), victims[role])
    for role, victim in victims.items():
        changed = [name for name, digest in (await victim.state()).items() if digest != before[role][name]]
        findings += [Finding("(all routes)", "another's resource", f"the {role}'s {name} changed") for name in changed]
    return findings


async def _on(target: Target, route: Route, attacker: Person, victim: Person) -> list[Finding]:
    findings = []
    private = PRIVATE[attacker.role]
    for parameter in route.path_parameters:
        if parameter in private:
            findings += await _by_path(target, route, parameter, attacker, victim)
    for field in route.fields:
        if field.name in OWN_IDS_IN_BODIES:
            findings += await _by_body(target, route, field.path, attacker, victim)
    for parameter in (field.name for field in route.query) if private else ():
        if _ID_FILTERS.fullmatch(parameter):
            findings += await _by_filter(target, route, parameter, attacker, victim)
        if parameter == "cursor":
            findings += await _by_cursor(target, route, attacker, victim)
    return findings


async def _by_path(target: Target, route: Route, parameter: str, attacker: Person, victim: Person) -> list[Finding]:
    """In this one place; everything else is the attacker's own."""
    own = await attacker.ids_for(route)
    theirs = await victim.id_of(parameter)
    nobodys = bogus_id(theirs)
    query, body = await attacker.query_for(route), await attacker.body_for(route)
    about_theirs, about_nobodys = [
        await send(target.api, route, attacker.headers, ids={**own, parameter: one}, query=query, body=body)
        for one in (theirs, nobodys)
    ]
    attack = f"another's {parameter} in the path"
    findings = _compare(route, attack, (about_theirs, about_nobodys), theirs, nobodys)
    if len(route.path_parameters) > 1:
        ids = {name: await victim.id_of(name) for name in route.path_parameters}
        answer = await send(target.api, route, attacker.headers, ids=ids, query=query, body=body)
        findings += weigh(answer, route, "only another's ids in the path", allowed={404})
    return findings


async def _by_body(
    target: Target, route: Route, path: tuple[str | int, ...], attacker: Person, victim: Person
) -> list[Finding]:
    ids, query, body = await attacker.ids_for(route), await attacker.query_for(route), await attacker.body_for(route)
    name = str(path[-1])
    theirs = str(await victim.id_of("wallet_id" if name.endswith("wallet_id") else name))
    nobodys = bogus_id(theirs)
    about_theirs, about_nobodys = [
        await send(target.api, route, attacker.headers, ids=ids, query=query, body=put(body, path, one))
        for one in (theirs, nobodys)
    ]
    return _compare(route, f"another's {name} in the body", (about_theirs, about_nobodys), theirs, nobodys)


async def _by_filter(target: Target, route: Route, parameter: str, attacker: Person, victim: Person) -> list[Finding]:
    ids, query = await attacker.ids_for(route), await attacker.query_for(route)
    findings = []
    for theirs in (victim.user.id, victim.wallet.id, await victim.id_of("transfer_id")):
        answers = [
            await send(target.api, route, attacker.headers, ids=ids, query={**query, parameter: one})
            for one in (theirs, bogus_id(theirs))
        ]
        if _normal(answers[0], theirs) != _normal(answers[1], bogus_id(theirs)) and answers[0].is_success:
            found = [row for row in answers[0].json().get("data", []) if row]
            if found != [row for row in answers[1].json().get("data", []) if row]:
                findings.append(Finding(str(route), f"another's id as {parameter}", f"it found {found[:1]}"))
    return findings


async def _by_cursor(target: Target, route: Route, attacker: Person, victim: Person) -> list[Finding]:
    """The place in the victim's list where the attacker would go on reading."""
    page = await send(target.world.api, route, victim.headers, ids=await victim.ids_for(route), query={"limit": "1"})
    cursor = page.json().get("next_cursor") if page.is_success else None
    if cursor is None:
        return []
    answer = await send(
        target.api, route, attacker.headers, ids=await attacker.ids_for(route), query={"cursor": cursor}
    )
    findings = weigh(answer, route, "another's cursor", allowed={400})
    if not findings and code_of(answer) != "invalid_cursor":
        findings.append(Finding(str(route), "another's cursor", f"refused as {code_of(answer)}"))
    return findings


def _compare(
    route: Route, attack: str, answers: tuple[httpx.Response, httpx.Response], theirs: str, nobodys: str
) -> list[Finding]:
    """`answers` are about theirs and about nobody's."""
    findings = weigh(answers[0], route, attack, allowed={_REFUSED_AS_ONE.get(str(route), 404)})
    told, expected = _normal(answers[0], theirs), _normal(answers[1], nobodys)
    if not findings and told != expected:
        findings.append(Finding(str(route), attack, f"it can be told from what does not exist: {told}, {expected}"))
    return findings


def _normal(answer: httpx.Response, asked_for: str) -> tuple[int, str, dict[str, str]]:
    """Without what tells any two answers apart: the request's id, and the id that was asked for."""
    text = answer.text.replace(answer.headers.get("X-Request-ID", "-"), "").replace(asked_for, "")
    headers = {
        name: value
        for name, value in answer.headers.items()
        if name not in _OWN_OF_EACH and not name.startswith("x-ratelimit")
    }
    return answer.status_code, text, headers
