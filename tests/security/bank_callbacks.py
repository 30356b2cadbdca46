"""Forged callbacks of the bank: what is not signed, fresh and whole does not get in; what is gets in once."""

import base64
import hashlib
import hmac
import time
from typing import Any, Final, NamedTuple
from uuid import uuid4

import httpx
import orjson

from service.settings import Settings
from tests.security.findings import Finding, code_of, weigh
from tests.security.target import Target

PATH: Final = "/webhooks/bank-callback"
# Standard Webhooks 1.0.0: five minutes either way.
_WINDOW_S: Final = 300
_OTHER_SECRET: Final = "whsec_" + base64.b64encode(b"not-the-secret-of-this-bank-0123").decode()
_INBOX: Final = "bank_callbacks"


class Callback(NamedTuple):
    body: bytes
    callback_id: str
    timestamp: str
    signature: str

    @property
    def headers(self) -> dict[str, str]:
        return {
            "Content-Type": "application/json",
            "webhook-id": self.callback_id,
            "webhook-timestamp": self.timestamp,
            "webhook-signature": self.signature,
        }


def sign(settings: Settings, callback_id: str, timestamp: str, body: bytes, secret: str | None = None) -> str:
    """By hand, so that the library that verifies does not vouch for itself."""
    encoded = (secret or settings.bank_webhook_secret.get_secret_value()).removeprefix("whsec_")
    signed = b".".join([callback_id.encode(), timestamp.encode(), body])
    return "v1," + base64.b64encode(hmac.digest(base64.b64decode(encoded), signed, hashlib.sha256)).decode()


def genuine(settings: Settings, *, age_s: int = 0, **change: Any) -> Callback:
    payload = {
        "type": "payment.settled",
        "reference": f"wdr_{uuid4().hex}",
        "status": "success",
        "amount": 1_000,
        "currency": "INR",
        "bank_reference": "bnk_test",
    }
    body = orjson.dumps(payload | change)
    callback_id, timestamp = f"msg_{uuid4().hex}", str(int(time.time()) - age_s)
    return Callback(body, callback_id, timestamp, sign(settings, callback_id, timestamp, body))


async def attack(target: Target) -> list[Finding]:
    settings = target.world.settings
    inbox = target.world.databases.wallet[_INBOX]
    before = await inbox.estimated_document_count()
    findings = []
    callback = genuine(settings)
    for name, headers, body in [
        *_flipped(callback),
        *_wrong_headers(callback, settings),
        *_wrong_times(settings),
        *_wrong_bodies(callback, settings),
    ]:
        answer = await target.api.post(PATH, content=body, headers=headers)
        # 422: too long to be looked at.
        found = weigh(answer, PATH, name, allowed={401, 422})
        if not found and code_of(answer) not in {"invalid_signature", "invalid_fields"}:
            found.append(Finding(PATH, name, f"refused as {code_of(answer)}"))
        findings += found
    kept = await inbox.estimated_document_count()
    if kept != before:
        findings.append(Finding(PATH, "forged callbacks", f"{kept - before} were kept"))
    return findings + await _signed_nonsense(target) + await _replayed(target)


def _flipped(callback: Callback) -> list[tuple[str, dict[str, str] | list[tuple[bytes, bytes]], bytes]]:
    """Each byte of the body and of each header that counts, once."""
    attempts: list[tuple[str, Any, bytes]] = []
    for position, byte in enumerate(callback.body):
        body = callback.body[:position] + bytes([byte ^ 1]) + callback.body[position + 1 :]
        attempts.append((f"byte {position} of the body flipped", callback.headers, body))
    for name in ("webhook-id", "webhook-timestamp", "webhook-signature"):
        value = callback.headers[name].encode()
        # The last character of base64 has bits that nobody reads, and `=` is padding: flipping these changes nothing.
        ignored = 2 if name == "webhook-signature" else 0
        for position in range(len(value) - ignored):
            flipped = value[:position] + bytes([value[position] ^ 1]) + value[position + 1 :]
            headers = [
                (key.encode(), flipped if key == name else one.encode()) for key, one in callback.headers.items()
            ]
            attempts.append((f"byte {position} of {name} flipped", headers, callback.body))
    return attempts


def _wrong_headers(callback: Callback, settings: Settings) -> list[tuple[str, Any, bytes]]:
    headers, body = callback.headers, callback.body
    bare = callback.signature.removeprefix("v1,")
    attempts: list[tuple[str, Any, bytes]] = []
    for name in ("webhook-id", "webhook-timestamp", "webhook-signature"):
        attempts.append((f"without {name}", {one: value for one, value in headers.items() if one != name}, body))
        attempts.append((f"{name} is empty", {**headers, name: ""}, body))
    attempts += [
        (f"version {prefix!r}", {**headers, "webhook-signature": prefix + bare}, body)
        for prefix in ("v0,", "v2,", "v1a,", "V1,", "", ",", "v1", "v1;", "sha256=", "v1,v1,")
    ]
    for name, signature in {
        "a signature of nothing": "v1,",
        "half of it": callback.signature[:20],
        "in hex": "v1," + base64.b64decode(bare).hex(),
        "a signature by another secret": sign(settings, callback.callback_id, callback.timestamp, body, _OTHER_SECRET),
        "a signature over another id": sign(settings, "msg_other", callback.timestamp, body),
        "a signature over another time": sign(settings, callback.callback_id, str(int(callback.timestamp) - 1), body),
        "a signature of the body alone": "v1,"
        + base64.b64encode(
            hmac.digest(
                base64.b64decode(settings.bank_webhook_secret.get_secret_value().removeprefix("whsec_")),
                body,
                "sha256",
            )
        ).decode(),
        "many that are wrong": " ".join(["v1,AAAA"] * 200),
    }.items():
        attempts.append((name, {**headers, "webhook-signature": signature}, body))
    attempts.append(("no header at all", {"Content-Type": "application/json"}, body))
    moved = callback.callback_id + "." + callback.timestamp
    attempts.append(("a dot moved from the time to the id", {**headers, "webhook-id": moved}, body))
    return attempts


def _wrong_times(settings: Settings) -> list[tuple[str, Any, bytes]]:
    """Each signed as it stands: it is the time alone that is wrong."""
    now = int(time.time())
    times = {
        "too old": str(now - _WINDOW_S - 5),
        "a day old": str(now - 86_400),
        "too new": str(now + _WINDOW_S + 60),
        "negative": "-1",
        "nothing": "0",
        "in milliseconds": str(now * 1000),
        "words": "now",
        "not a number": "nan",
        "infinite": "inf",
        "without end": "9" * 400,
        "RFC 3339": "2026-02-24T12:34:56Z",
    }
    attempts: list[tuple[str, Any, bytes]] = []
    for name, timestamp in times.items():
        callback = genuine(settings)
        signature = sign(settings, callback.callback_id, timestamp, callback.body)
        headers = {**callback.headers, "webhook-timestamp": timestamp, "webhook-signature": signature}
        attempts.append((f"a time that is {name}", headers, callback.body))
    return attempts


def _wrong_bodies(callback: Callback, settings: Settings) -> list[tuple[str, Any, bytes]]:
    payload = orjson.loads(callback.body)
    other = genuine(settings)
    return [
        ("the same, written anew", callback.headers, orjson.dumps(payload, option=orjson.OPT_INDENT_2)),
        ("the same in another order", callback.headers, orjson.dumps(dict(reversed(payload.items())))),
        ("a space behind it", callback.headers, callback.body + b" "),
        ("another amount", callback.headers, orjson.dumps({**payload, "amount": 999_999})),
        ("another callback's body", callback.headers, other.body),
        ("no body", callback.headers, b""),
        ("not UTF-8", callback.headers, b"\xff" + callback.body),
    ]


async def _signed_nonsense(target: Target) -> list[Finding]:
    """The signature holds; what it signs is not what a bank says."""
    findings = []
    settings = target.world.settings
    for change in (
        {"amount": 0}, {"amount": -1}, {"amount": 1.5}, {"amount": "1000"}, {"amount": True}, {"amount": 2**53},
        {"status": {"$ne": ""}}, {"status": "maybe"}, {"reference": {"$gt": ""}}, {"reference": ""},
        {"reference": "x" * 65}, {"currency": ["INR"]}, {"type": None}, {"failure_message": "x" * 300},
    ):  # fmt: skip
        callback = genuine(settings, **change)
        answer = await target.api.post(PATH, content=callback.body, headers=callback.headers)
        findings += weigh(answer, PATH, f"signed, with {change}", allowed={422})
    for body in (b"{", b"[]", b'"x"', b'{"amount": 1, "amount": 2}', b"[" * 50_000, b"\xff\xfe", b"x" * 100_000):
        callback_id, timestamp = f"msg_{uuid4().hex}", str(int(time.time()))
        headers = Callback(body, callback_id, timestamp, sign(settings, callback_id, timestamp, body)).headers
        answer = await target.api.post(PATH, content=body, headers=headers)
        findings += weigh(answer, PATH, f"signed, with the body {body[:20]!r}", allowed={400, 401, 413, 422})
    return findings


async def _replayed(target: Target) -> list[Finding]:
    """What is genuine is taken, once; within the window again without a second effect, and past it not at all."""
    findings = []
    inbox = target.world.databases.wallet[_INBOX]
    settings = target.world.settings
    callback = genuine(settings)
    two = {**callback.headers, "webhook-signature": f"v1,AAAA {callback.signature} v2,AAAA"}
    for headers in (callback.headers, callback.headers, two):
        answer = await target.api.post(PATH, content=callback.body, headers=headers)
        if answer.status_code != httpx.codes.OK:
            findings.append(Finding(PATH, "a genuine callback", f"refused: {answer.status_code} {answer.text}"))
    kept = await inbox.find({"_id": callback.callback_id}).to_list()
    if len(kept) != 1 or kept[0]["payload"]["reference"] != orjson.loads(callback.body)["reference"]:
        findings.append(Finding(PATH, "a replay", f"kept as {kept}"))
    other = genuine(settings, amount=2_000)
    signature = sign(settings, callback.callback_id, callback.timestamp, other.body)
    headers = {**callback.headers, "webhook-signature": signature}
    await target.api.post(PATH, content=other.body, headers=headers)
    (row,) = await inbox.find({"_id": callback.callback_id}).to_list()
    if row["payload"]["amount"] != orjson.loads(callback.body)["amount"]:
        findings.append(Finding(PATH, "another body under an id that was kept", "it replaced the first"))
    old = genuine(settings, age_s=_WINDOW_S + 5)
    answer = await target.api.post(PATH, content=old.body, headers=old.headers)
    findings += weigh(answer, PATH, "a replay past the window", allowed={401})
    return findings
