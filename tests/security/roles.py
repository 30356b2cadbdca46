"""Each role on each route, API keys, and nobody at all: exactly what the route declares."""

from collections.abc import Sequence
from typing import Any, Final

import httpx

from service.domain.permissions import KEY_PERMISSIONS, Permission
from tests.security.findings import Finding, code_of, weigh
from tests.security.routes import Route
from tests.security.target import Target
from tests.security.world import ADMIN, ROLES, SERVICE, USER, Person, bogus_id, make_key, send

_KEY_HEADER: Final = "X-API-Key"
_ALL: Final = "all"
_EVERYWHERE: Final = frozenset({"revoked", "another secret", "a token beside it"})


async def attack(target: Target) -> list[Finding]:
    findings = []
    keys = await _make_keys(target)
    for route in target.routes:
        if not route.is_secured:
            continue
        if route.permission not in {*Permission}:
            findings.append(Finding(str(route), "its declaration", f"there is no permission {route.permission}"))
            continue
        findings += await _by_nobody(target, route)
        for role in ROLES:
            person = await target.world.caller(role, "actor")
            if role in target.world.roles_of(route):
                findings += await _by_somebody_entitled(target, route, person.headers, f"as {role}")
            else:
                findings += await _by_somebody_else(target, route, person.headers, f"as {role}")
        findings += await _by_keys(target, route, keys)
    return findings + await _by_bad_keys(target, keys)


async def _valid(target: Target, route: Route, headers: dict[str, str]) -> httpx.Response:
    """Everything is there and right but who asks: about somebody's resource, which staff could reach."""
    someone = await target.world.someone(ADMIN, "victim")
    ids, query, body = await someone.ids_for(route), await someone.query_for(route), await someone.body_for(route)
    return await send(target.api, route, headers, ids=ids, query=query, body=body)


async def _by_nobody(target: Target, route: Route) -> list[Finding]:
    """With all else as it should be, and with nothing as it should be."""
    answer = await _valid(target, route, {})
    findings = weigh(answer, route, "without a token", allowed={401})
    if not findings and "WWW-Authenticate" not in answer.headers:
        findings.append(Finding(str(route), "without a token", "WWW-Authenticate is missing (RFC 9110, 11.6.1)"))
    ids = dict.fromkeys(route.path_parameters, "0")
    empty = await send(target.api, route, {}, ids=ids, content=b"{")
    return findings + weigh(empty, route, "without a token or a body that can be read", allowed={400, 401, 415, 422})


async def _by_somebody_else(target: Target, route: Route, headers: dict[str, str], attack: str) -> list[Finding]:
    answer = await _valid(target, route, headers)
    findings = weigh(answer, route, attack, allowed={403})
    if not findings and code_of(answer) != "forbidden":
        findings.append(Finding(str(route), attack, f"refused as {code_of(answer)}"))
    return findings


async def _by_somebody_entitled(target: Target, route: Route, headers: dict[str, str], attack: str) -> list[Finding]:
    """About what does not exist, so that nothing comes of it: all that counts is that the role is no obstacle."""
    someone = await target.world.someone(ADMIN, "victim")
    ids = {name: bogus_id(await someone.id_of(name)) for name in route.path_parameters}
    answer = await send(target.api, route, headers, ids=ids, query=await someone.query_for(route))
    if answer.status_code == httpx.codes.UNAUTHORIZED or code_of(answer) == "forbidden":
        return [Finding(str(route), attack, f"it is not let in, though it is declared: {answer.text}")]
    return []


async def _make_keys(target: Target) -> dict[str, str]:
    """Secrets of keys of a service: one with all permissions that it may have, one with each, and what routes take."""
    service = await target.world.someone(SERVICE, "with keys")
    wanted: dict[str, Sequence[str]] = {
        _ALL: sorted(KEY_PERMISSIONS),
        **{permission: [permission] for permission in sorted(KEY_PERMISSIONS)},
        **{_name_of(route.key_permissions): route.key_permissions for route in target.routes if route.takes_api_keys},
    }
    return {name: (await _make_key(target, service, permissions))["secret"] for name, permissions in wanted.items()}


def _name_of(permissions: Sequence[str]) -> str:
    return " ".join(permissions)


async def _make_key(target: Target, service: Person, permissions: Sequence[str], **more: Any) -> dict[str, Any]:
    key = {"user_id": service.user.id, "name": "A till", "permissions": permissions, **more}
    return await make_key(target.world, **key)


async def _by_keys(target: Target, route: Route, keys: dict[str, str]) -> list[Finding]:
    if not route.takes_api_keys:
        return await _by_somebody_else(target, route, {_KEY_HEADER: keys[_ALL]}, "with a key of all permissions")
    right = {_KEY_HEADER: keys[_name_of(route.key_permissions)]}
    findings = await _by_somebody_entitled(target, route, right, "with a key of what it takes alone")
    other = next(permission for permission in sorted(KEY_PERMISSIONS) if permission not in route.key_permissions)
    return findings + await _by_somebody_else(target, route, {_KEY_HEADER: keys[other]}, f"with a key of {other}")


async def _by_bad_keys(target: Target, keys: dict[str, str]) -> list[Finding]:
    """Keys that are none, or no more: the likeliest on each route that takes keys, all on some."""
    routes = [route for route in target.routes if route.takes_api_keys]
    findings = []
    for name, headers in (await _bad_keys(target, keys[_ALL])).items():
        for route in routes if name in _EVERYWHERE else routes[:3]:
            answer = await _valid(target, route, headers)
            findings += weigh(answer, route, f"API key: {name}", allowed={401})
    return findings


async def _bad_keys(target: Target, good: str) -> dict[str, dict[str, str]]:
    world = target.world
    service = await world.someone(SERVICE, "with keys")
    permissions = sorted(KEY_PERMISSIONS)
    revoked = await _make_key(target, service, permissions)
    rotated = await _make_key(target, service, permissions)
    again = await world.admin.post(f"/admin/api-keys/{rotated['id']}/rotate", overlap_s=0)
    await world.second_admin.post(f"/admin/proposals/{again['proposal_id']}/approve")
    gone = await world.api.delete(
        f"/api/v1/admin/api-keys/{revoked['id']}", params={"reason": "A test"}, headers=world.admin.headers
    )
    assert gone.is_success, gone.text
    deactivated = await world.someone(SERVICE, "deactivated with keys")
    orphan = await _make_key(target, deactivated, permissions)
    await world.databases.wallet["users"].update_one({"_id": deactivated.user.id}, {"$set": {"is_active": False}})
    prefix, _, secret = good.rpartition("_")
    user = await world.someone(USER, "actor")
    bad = {
        "revoked": revoked["secret"],
        "rotated away": rotated["secret"],
        "of a service that was deactivated": orphan["secret"],
        "another secret": f"{prefix}_{'0' * len(secret)}",
        "another prefix": f"wsk_00000000_{secret}",
        "the prefix alone": prefix,
        "the secret alone": secret,
        "half of it": good[:-1],
        "in capitals": good.upper(),
        "twice": f"{good}, {good}",
        "empty": "",
        "an operator": '{"$ne": ""}',
        "10 kB": "x" * 10_000,
        "an access token": user.headers["Authorization"].partition(" ")[2],
    }
    return {
        **{name: {_KEY_HEADER: key} for name, key in bad.items()},
        "a token beside it": {_KEY_HEADER: good, **user.headers},
        "as a bearer's token": {"Authorization": f"Bearer {good}"},
        "in a cookie": {"Cookie": f"X-API-Key={good}; api_key={good}"},
    }
