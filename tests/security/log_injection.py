"""Text that would forge lines of the log, or move a terminal's cursor, in every field, header and path."""

import re
import unicodedata
from typing import Any, Final
from urllib.parse import quote

import orjson

from tests.security import bank_callbacks
from tests.security.findings import Finding
from tests.security.log_capture import captured_log
from tests.security.routes import Route, put
from tests.security.target import Target, share
from tests.security.world import SIGNED, Person, send

_FORGED: Final = '{"event": "forged.event", "level": "critical"}'
_PAYLOADS: Final = (
    f"x\n{_FORGED}",
    f"x\r\n{_FORGED}\r\n",
    f'x", "event": "forged.event", "y": "{_FORGED}',
    f"x\u2028{_FORGED}",
    f"x\x85{_FORGED}",
    f"x\x0b\x0c\x1c\x1d\x1e{_FORGED}",
    "x\x1b[2J\x1b[1;31mforged.event\x1b]0;title\x07",
    "x\x9b31mforged.event",
    "x\u202eforged.event\u2066",
    "x\u200bforged.event\ufeff",
    "x\x08\x08forged.event\x7f",
    "x\n2026-02-24T12:34:56.789Z [critical ] forged.event",
    "%0a%0dforged.event",
    "${jndi:ldap://127.0.0.1/x}{{7*7}}%s%n{0}",
)
_HEADERS: Final = ("User-Agent", "X-Request-ID", "Idempotency-Key", "Referer", "traceparent", "X-Forwarded-For")
# What begins a readable line: anything else would be a line that somebody has made up.
_READABLE: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z \[(debug|info|warning|error|critical) *\] ")
# Control and format characters, and what separates lines and paragraphs.
_INVISIBLE: Final = frozenset({"Cc", "Cf", "Zl", "Zp"})


async def attack(target: Target) -> list[Finding]:
    findings = []
    for as_json in (True, False):
        with captured_log(target.world.settings, as_json=as_json) as written:
            # The renderers differ, the routes' part in it does not: a third of them is enough for a terminal.
            for route in target.routes if as_json else target.routes[::3]:
                if str(route) in SIGNED:
                    await _in_callbacks(target)
                    continue
                person = await target.world.caller(target.world.lowest_role(route), "writer")
                await _in_body(target, route, person, as_json=as_json)
                await _in_headers(target, route, person)
                await _in_path(target, route, person)
        findings += inspect(written.getvalue(), as_json=as_json)
    return findings


async def _in_body(target: Target, route: Route, person: Person, *, as_json: bool) -> None:
    if route.body is None:
        return
    ids, query, body = await person.ids_for(route), await person.query_for(route), await person.body_for(route)
    for field in route.texts:
        for payload in share(_PAYLOADS, route, (field, as_json), 1):
            sent = orjson.dumps(put(body, field.path, payload))
            await send(target.api, route, person.headers, ids=ids, query=query, content=sent)


async def _in_headers(target: Target, route: Route, person: Person) -> None:
    """In process nothing stands between the header and the app: a server would have refused most of these."""
    ids = dict.fromkeys(route.path_parameters, "0")
    for name in share(_HEADERS, route, "headers", 2):
        for payload in share(_PAYLOADS, route, name, 1):
            headers: Any = [(key.encode(), value.encode()) for key, value in person.headers.items()]
            headers += [(name.encode(), payload.encode()), (b"content-type", b"application/json")]
            await target.api.request(route.method, route.url(ids), headers=headers, content=b"{}")


async def _in_path(target: Target, route: Route, person: Person) -> None:
    for payload in share(_PAYLOADS, route, "path", 1):
        evil = quote(payload, safe="")
        ids = dict.fromkeys(route.path_parameters, payload)
        await target.api.request(route.method, route.url(ids), headers=person.headers)
        await target.api.get(f"/{evil}", headers=person.headers)


async def _in_callbacks(target: Target) -> None:
    """Signed by the bank: nobody is believed that far."""
    for payload in _PAYLOADS:
        for name in ("reference", "bank_reference", "failure_code", "type"):
            said: dict[str, Any] = {name: payload[:64]}
            callback = bank_callbacks.genuine(target.world.settings, **said)
            await target.api.post(bank_callbacks.PATH, content=callback.body, headers=callback.headers)


def inspect(log: str, *, as_json: bool) -> list[Finding]:
    """Each line one event of ours, and nothing in it that does not stand on a screen."""
    form = "JSON" if as_json else "readable"
    findings = []
    if not log:
        findings.append(Finding("(the log)", form, "nothing was written"))
    for line in log.removesuffix("\n").split("\n") if log else ():
        wrong = _wrong_with(line, as_json=as_json)
        if wrong is not None:
            findings.append(Finding("(the log)", form, f"{wrong}: {line[:300]!r}"))
    return findings


def _wrong_with(line: str, *, as_json: bool) -> str | None:
    invisible = {character for character in line if unicodedata.category(character) in _INVISIBLE}
    if invisible:
        return f"it has {sorted(invisible)}"
    if not as_json:
        return None if _READABLE.match(line) and " forged.event" not in line[:60] else "a line that nobody wrote"
    try:
        event = orjson.loads(line)
    except ValueError:
        return "no JSON"
    if not isinstance(event, dict) or not {"event", "level", "timestamp"} <= event.keys():
        return "no event"
    return "a line that nobody wrote" if event["event"] == "forged.event" else None
