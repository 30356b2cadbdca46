"""Requests that are broken as such: methods, media types, encodings, sizes, depths and paths, on every route."""

import gzip
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Final

import orjson

from tests.security.findings import Finding, weigh
from tests.security.routes import Route, put
from tests.security.target import Target, share
from tests.security.watch import Watch
from tests.security.world import SIGNED, Person, send

_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT", "PROPFIND")
_MEDIA_TYPES: Final = (
    "", "text/plain", "text/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
    "application/xml", "application/json-patch+json", "application/jsonx", "*/*", "application/json, text/plain",
)  # fmt: skip
_DEPTH: Final = 100_000
# More than any route takes.
_HUGE: Final = 4 * 1024 * 1024 + 1
_SMALL_LIMIT: Final = 64 * 1024 + 1
_PLACE: Final = "@@a text@@"
# As they stand in a string of JSON.
_BAD_TEXTS: Final = (
    rb"\u0000", b"\0", rb"\ud800", rb"\udfff\ud800", b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\n",
    b"\x1b[2J",
)  # fmt: skip
# Without `.` and `..`, which the client itself would take out; wire.py sends them.
_BAD_IDS: Final = (
    "..%2f..%2f..%2fetc%2fpasswd", "%2e%2e%2f%2e%2e", "..%252f..%252fadmin", "%252e%252e", "..%5c..%5c", "%00",
    "wal_%00", "%0d%0aSet-Cookie:x", "%0a", "%ff%fe", "%c0%ae%c0%ae", "%F0%9F%92%B0", "%7b%22$gt%22:%22%22%7d",
    "$where", "[$ne]", "%24ne", "'%20OR%201=1--", "*", "null", "undefined", "%3Cscript%3E", "a" * 65, "a" * 5_000,
    "%e2%80%ae", "%", "%zz", "%u0061", "...", ";", "%3b", "%3f", "%23", "0", "-1", "1e400",
)  # fmt: skip


async def attack(target: Target) -> list[Finding]:
    await target.world.prepare(target.routes, "attacker")
    # A key keeps what was refused under it.
    watch = await Watch.begin(target.world, ignored={"audit_events", "idempotency_keys", "used_tickets"})
    findings = await _undeclared_methods(target)
    for route in target.routes:
        person = await target.world.someone(target.world.lowest_role(route), "attacker")
        if route.body is not None and str(route) not in SIGNED:
            findings += await _media_types(target, route, person)
            findings += await _bodies(target, route, person)
        if route.path_parameters:
            findings += await _paths(target, route, person)
    return findings + await watch.end("broken requests")


async def _undeclared_methods(target: Target) -> list[Finding]:
    declared = defaultdict(set)
    for route in target.world.routes:
        declared[route.path].add(route.method)
    findings = []
    admin = target.world.admin
    for route in target.routes:
        url = route.url(dict.fromkeys(route.path_parameters, "1"))
        for method in _METHODS:
            if method not in declared[route.path]:
                answer = await target.api.request(method, url, headers=admin.headers)
                # 404: what stands at the end of the path is an id to another route.
                findings += weigh(answer, route, f"method {method}", allowed={404, 405})
        declared[route.path].update(_METHODS)
    return findings


async def _media_types(target: Target, route: Route, person: Person) -> list[Finding]:
    findings = []
    ids, query = await person.ids_for(route), await person.query_for(route)
    content = orjson.dumps(await person.body_for(route))
    for media_type in share(_MEDIA_TYPES, route, "media type", 3):
        sent = {"Content-Type": media_type}
        answer = await send(target.api, route, person.headers, ids=ids, query=query, content=content, more_headers=sent)
        findings += weigh(answer, route, f"Content-Type {media_type!r}", allowed={415})
    packed, said = gzip.compress(content), {"Content-Encoding": "gzip"}
    answer = await send(target.api, route, person.headers, ids=ids, query=query, content=packed, more_headers=said)
    return findings + weigh(answer, route, "a packed body", allowed={400, 415, 422})


async def _bodies(target: Target, route: Route, person: Person) -> list[Finding]:
    findings = []
    ids, query = await person.ids_for(route), await person.query_for(route)
    body = await person.body_for(route)
    for name, content, allowed in share(list(_broken_bodies(route, body)), route, "body", 7):
        answer = await send(target.api, route, person.headers, ids=ids, query=query, content=content)
        findings += weigh(answer, route, name, allowed=allowed)
    for field in route.texts:
        template = orjson.dumps(put(body, field.path, _PLACE))
        for text in share(_BAD_TEXTS, route, field, 2):
            content = template.replace(_PLACE.encode(), text)
            answer = await send(target.api, route, person.headers, ids=ids, query=query, content=content)
            findings += weigh(answer, route, f"{text!r} in {field}")
    return findings


def _broken_bodies(route: Route, body: Any) -> Iterator[tuple[str, bytes, set[int]]]:
    whole = orjson.dumps(body)
    unreadable = {400, 422}
    for name, content in {
        "no body": b"",
        "half a body": whole[:-1],
        "two bodies": whole + whole,
        "something behind it": whole + b"x",
        "a comment": b"/* */" + whole,
        "single quotes": whole.replace(b'"', b"'"),
        "a comma too many": whole[:-1] + b",}",
        "UTF-16": whole.decode().encode("utf-16"),
        "UTF-32": whole.decode().encode("utf-32"),
        "a byte order mark": b"\xef\xbb\xbf" + whole,
        "a NUL before it": b"\0" + whole,
        "a NUL behind it": whole + b"\0",
        "null": b"null",
        "a list": b"[" + whole + b"]",
        "a text": orjson.dumps(whole.decode()),
        "a number": b"1",
        "a form": b"amount=1&currency=INR",
        "deep lists": b"[" * _DEPTH,
        "deep lists that end": b"[" * 2_000 + b"]" * 2_000,
        "deep objects": b'{"a":' * 9_000,
        "a deep member": b'{"amount":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    }.items():
        if content == whole:
            continue
        too_large = {413} if len(content) >= _SMALL_LIMIT else set()
        yield name, content, unreadable | too_large
    yield "a huge body", b'{"a":"' + b"x" * (_HUGE if route.has_large_body else _SMALL_LIMIT) + b'"}', {413}
    members = b"{" + b",".join(b'"k%d":1' % number for number in range(5_000)) + b"}"
    yield "thousands of members", members, unreadable


async def _paths(target: Target, route: Route, person: Person) -> list[Finding]:
    findings = []
    ids, query, body = await person.ids_for(route), await person.query_for(route), await person.body_for(route)
    for parameter in route.path_parameters:
        for bad in share(_BAD_IDS, route, parameter, 8):
            url = route.url({**ids, parameter: "@@"}).replace("%40%40", bad)
            moved = route._replace(path=url, path_parameters=())
            answer = await send(target.api, moved, person.headers, ids={}, query=query, body=body)
            # 405: without the part that the path has lost, it is another route's.
            findings += weigh(answer, route, f"{bad[:40]} for {parameter}", allowed={400, 404, 405, 422})
    return findings
