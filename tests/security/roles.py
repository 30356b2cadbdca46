"""Each role on each route, and nobody at all: exactly what the route declares."""

from tests.security.findings import Finding, code_of, weigh
from tests.security.routes import Route
from tests.security.target import Target
from tests.security.world import ROLES, Person, bogus_id, send


async def attack(target: Target) -> list[Finding]:
    findings = []
    for route in target.routes:
        if not route.is_secured:
            continue
        findings += await _by_nobody(target, route)
        for role in ROLES:
            person = await target.world.someone(role, "actor")
            if role in await target.world.roles_of(route):
                findings += await _by_somebody_entitled(target, route, person)
            else:
                findings += await _by_somebody_else(target, route, person)
    return findings


async def _by_nobody(target: Target, route: Route) -> list[Finding]:
    """With all else as it should be, and with nothing as it should be."""
    someone = await target.world.someone(ROLES[-1], "victim")
    ids, query, body = await someone.ids_for(route), await someone.query_for(route), await someone.body_for(route)
    answer = await send(target.api, route, {}, ids=ids, query=query, body=body)
    findings = weigh(answer, route, "without a token", allowed={401})
    if not findings and "WWW-Authenticate" not in answer.headers:
        findings.append(Finding(str(route), "without a token", "WWW-Authenticate is missing (RFC 9110, 11.6.1)"))
    empty = await send(target.api, route, {}, ids=dict.fromkeys(ids, "0"), content=b"{")
    return findings + weigh(empty, route, "without a token or a body that can be read", allowed={400, 401, 415, 422})


async def _by_somebody_else(target: Target, route: Route, person: Person) -> list[Finding]:
    """Everything is there and right but the role: somebody else's resource, which staff could reach."""
    someone = await target.world.someone(ROLES[-1], "victim")
    ids, query, body = await someone.ids_for(route), await someone.query_for(route), await someone.body_for(route)
    answer = await send(target.api, route, person.headers, ids=ids, query=query, body=body)
    attack = f"as {person.role}"
    findings = weigh(answer, route, attack, allowed={403})
    if not findings and code_of(answer) != "forbidden":
        findings.append(Finding(str(route), attack, f"refused as {code_of(answer)}"))
    return findings


async def _by_somebody_entitled(target: Target, route: Route, person: Person) -> list[Finding]:
    """About what does not exist, so that nothing comes of it: all that counts is that the role is no obstacle."""
    ids = {name: bogus_id(await person.id_of(name)) for name in route.path_parameters}
    answer = await send(target.api, route, person.headers, ids=ids, query=await person.query_for(route))
    if answer.status_code == 401 or code_of(answer) == "forbidden":
        return [Finding(str(route), f"as {person.role}", f"it is not let in, though it is declared: {answer.text}")]
    return []
