"""Bytes that no client would send, against a real server: two lengths, broken chunks, other targets, other versions.

One request goes in, with a second one hidden in it. A server that disagrees with the proxy in front of it about where a
request ends would answer both; ours answers one, with a refusal, or breaks the connection off.
"""

import asyncio
import re
from pathlib import Path
from typing import Final, NamedTuple

import orjson

from tests.security.findings import Finding

_TIMEOUT_S: Final = 5.0
_STATUS: Final = re.compile(rb"HTTP/1\.[01] (\d{3}) [^\r\n]*\r\n")
_LONG: Final = 200_000


class Server(NamedTuple):
    host: str
    port: int
    log: Path


class Attempt(NamedTuple):
    name: str
    content: bytes
    # What may come back; nothing at all may in any case.
    allowed: frozenset[int]
    # How many answers at most.
    answers: int = 1


async def attack(server: Server, headers: dict[str, str]) -> list[Finding]:
    """`headers` are of somebody who may ask for themselves at /api/v1/me."""
    findings = []
    for attempt in [*_ambiguous_ends(headers), *_broken_heads(headers), *_targets(headers), *_sizes(headers)]:
        statuses = await _exchange(server, attempt.content)
        if len(statuses) > attempt.answers or any(status not in attempt.allowed for status in statuses):
            wanted = f"expected at most {attempt.answers} of {sorted(attempt.allowed)}"
            findings.append(Finding("(the server)", attempt.name, f"answered with {statuses}, {wanted}"))
        if await _exchange(server, _request("GET", "/livez", {"Connection": "close"})) != [200]:
            findings.append(Finding("(the server)", attempt.name, "after it the server answers no more"))
            break
    return findings


async def _exchange(server: Server, content: bytes) -> list[int]:
    """The statuses of all that comes back until the server hangs up or says no more."""
    reader, writer = await asyncio.open_connection(server.host, server.port)
    received = b""
    try:
        writer.write(content)
        await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
        async with asyncio.timeout(_TIMEOUT_S):
            while part := await reader.read(65_536):
                received += part
    except (OSError, TimeoutError):
        pass
    finally:
        writer.close()
    return [int(status) for status in _STATUS.findall(received)]


def _request(method: str, path: str, headers: dict[str, str], body: bytes = b"", *, version: str = "1.1") -> bytes:
    named = {"Host": "wallet.example", **headers}
    lines = [f"{method} {path} HTTP/{version}", *(f"{name}: {value}" for name, value in named.items())]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


_REFUSED: Final = frozenset({400, 401, 404, 405, 408, 411, 413, 414, 415, 422, 431, 501, 505})


def _ambiguous_ends(headers: dict[str, str]) -> list[Attempt]:
    """Where the request ends can be read in two ways; behind the one end there is another request."""
    json = {**headers, "Content-Type": "application/json"}
    hidden = _request("GET", "/api/v1/me", headers)
    order = orjson.dumps({"currency": "XXX"})
    length = str(len(order))
    end = b"\r\n0\r\n\r\n"
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(order), order)

    def post(name: str, body: bytes, **more: str) -> Attempt:
        named = {key.replace("_", "-"): value for key, value in more.items()}
        return Attempt(name, _request("POST", "/api/v1/wallets", {**json, **named}, body), _REFUSED)

    def raw(name: str, lines: list[str], body: bytes) -> Attempt:
        head = _request("POST", "/api/v1/wallets", json)[:-2] + "\r\n".join([*lines, "", ""]).encode()
        return Attempt(name, head + body, _REFUSED)

    return [
        post("a length and chunks (CL.TE)", b"0\r\n\r\n" + hidden, Content_Length="5", Transfer_Encoding="chunked"),
        post("chunks and a length (TE.CL)", chunks + hidden, Transfer_Encoding="chunked", Content_Length="4"),
        raw("two lengths", [f"Content-Length: {length}", "Content-Length: 0"], order + hidden),
        raw("two lengths in one", [f"Content-Length: {length}, {length}"], order + hidden),
        raw("chunks in capitals beside identity", ["Transfer-Encoding: CHUNKED, identity"], chunks + hidden),
        raw("chunks that are not the last coding", ["Transfer-Encoding: chunked, gzip"], chunks + hidden),
        raw(
            "two codings in two lines", ["Transfer-Encoding: identity", "Transfer-Encoding: xchunked"], chunks + hidden
        ),
        raw("a space before the colon", ["Transfer-Encoding : chunked"], chunks + hidden),
        raw("a tab before the value's end", ["Transfer-Encoding: chunked\x0b"], chunks + hidden),
        raw("a folded line", ["Transfer-Encoding:", " chunked"], chunks + hidden),
        raw("a line feed alone in a header", ["X-A: b\nTransfer-Encoding: chunked"], b"0\r\n\r\n" + hidden),
        raw("a carriage return alone in a header", ["X-A: b\rContent-Length: 0"], order + hidden),
        *(
            raw(f"a length of {value!r}", [f"Content-Length: {value}"], order + hidden)
            for value in ("-1", "+5", "0x5", "1e1", "5.0", "five", "", "9" * 30, "18446744073709551616", "5 5", "00x")
        ),
        *(
            raw(
                f"a chunk of {size!r}",
                ["Transfer-Encoding: chunked"],
                size + b"\r\n" + order + end + hidden,
            )
            for size in (b"-1", b"0x12", b"zz", b"f" * 20, b"12 12", b"", b"+12")
        ),
        raw("a chunk that is longer than it says", ["Transfer-Encoding: chunked"], b"2\r\n" + order + end),
    ]


def _broken_heads(headers: dict[str, str]) -> list[Attempt]:
    plain = _request("GET", "/api/v1/me", headers)[:-2]
    line, _, rest = plain.partition(b"\r\n")

    def head(name: str, content: bytes, allowed: frozenset[int] = _REFUSED) -> Attempt:
        return Attempt(name, content, allowed)

    return [
        head("a NUL in a header", plain + b"X-A: a\0b\r\n\r\n"),
        head("a header without a colon", plain + b"no colon here\r\n\r\n"),
        head("a header without a name", plain + b": x\r\n\r\n"),
        head("a space in a header's name", plain + b"X A: b\r\n\r\n"),
        head("an answer in a header", plain + b"X-A: b\n\nHTTP/1.1 200 OK\r\n\r\n"),
        head("version 0.9", b"GET /api/v1/me\r\n\r\n"),
        head("version 9.9", line[:-3] + b"9.9\r\n" + rest + b"\r\n"),
        head("a version of another protocol", line[:-8] + b"ICY/1.1\r\n" + rest + b"\r\n"),
        head("HTTP/2's beginning", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        head("a TLS handshake", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 64),
        head("no method", b" /api/v1/me HTTP/1.1\r\n" + rest + b"\r\n"),
        head("a method of a thousand letters", b"G" * 1_000 + b" /api/v1/me HTTP/1.1\r\n" + rest + b"\r\n"),
        head("nothing but line ends", b"\r\n" * 100),
        head("noise", bytes(range(256)) * 4),
    ]


def _targets(headers: dict[str, str]) -> list[Attempt]:
    """Other ways to write the address of what needs a token: without one, and none of them leads past it."""
    paths = [
        "/api/v1/../v1/me", "/api/v1/%2e%2e/v1/me", "/./api/v1/me", "//api/v1/me", "/api//v1/me", "/api/v1/me/",
        "/api/v1/me%00", "/api/v1/me%2f", "/api/v1/me;x", "/api/v1/me%3f", "/API/V1/ME", "/api/v1/..;/v1/me",
        "/api\\v1\\me", "/api/v1/me%20", "/api/v1/%6de", "/livez/../api/v1/me", "/health%2f..%2fapi%2fv1%2fme",
        "/openapi.json/../api/v1/me", "/docs/..%2f..%2f..%2f..%2fetc%2fpasswd", "/..%c0%af..%c0%afetc/passwd",
        "/static/../../../../etc/passwd", "/.env", "/.git/config", "/metrics/../.env", "http://127.0.0.1/api/v1/me",
        "http://evil.example/api/v1/me", "*", "api/v1/me", "evil.example:443", "/api/v1/me#x", "/api/v1/\xff",
    ]  # fmt: skip
    attempts = [
        Attempt(f"{method} {path}", _request(method, path, {"Connection": "close"}), _REFUSED)
        for path in paths
        for method in ("GET", "POST")
    ]
    override = {**headers, "X-HTTP-Method-Override": "DELETE", "X-Original-URL": "/livez", "X-Rewrite-URL": "/livez"}
    attempts.append(
        Attempt("a method in a header", _request("POST", "/api/v1/me", {**override, "Content-Length": "0"}), _REFUSED)
    )
    return attempts


def _sizes(headers: dict[str, str]) -> list[Attempt]:
    json = {**headers, "Content-Type": "application/json", "Connection": "close"}
    chunks = (b"10000\r\n" + b"x" * 65_536 + b"\r\n") * 4 + b"0\r\n\r\n"
    chunked = {**json, "Transfer-Encoding": "chunked"}
    return [
        Attempt("a long path", _request("GET", "/api/v1/" + "a" * _LONG, headers), _REFUSED),
        Attempt("a long query", _request("GET", "/api/v1/wallets?cursor=" + "a" * _LONG, headers), _REFUSED),
        Attempt("a long header", _request("GET", "/api/v1/me", {**headers, "X-A": "a" * _LONG}), _REFUSED),
        Attempt("a long token", _request("GET", "/api/v1/me", {"Authorization": "Bearer " + "a" * _LONG}), _REFUSED),
        Attempt("a huge body in chunks", _request("POST", "/api/v1/wallets", chunked, chunks), _REFUSED),
        Attempt(
            "a huge length and no body",
            _request("POST", "/api/v1/wallets", {**json, "Content-Length": str(2**40)}),
            _REFUSED,
        ),
    ]
