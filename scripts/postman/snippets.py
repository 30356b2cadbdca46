"""The JavaScript of the collection, in the words of Postman's sandbox."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from scripts.postman.steps import WAIT_LIMIT, WAIT_S, Wait

_VARIABLE: Final = re.compile(r"^\{\{(\w+)\}\}$")
_REQUEST_ID: Final = r"/^[\x21-\x7e]{1,128}$/"


def literal(value: Any) -> str:  # noqa: ANN401 any JSON value
    """The value in JavaScript; a string that is one variable stands for what is in it."""
    if isinstance(value, str) and (variable := _VARIABLE.match(value)):
        return f'pm.environment.get("{variable[1]}")'
    return json.dumps(value, ensure_ascii=False)


def member(path: str) -> str:
    """`data.0.id` as `body.data[0].id`."""
    return "body" + "".join(f"[{part}]" if part.isdecimal() else f".{part}" for part in path.split("."))


def test(title: str, *statements: str) -> list[str]:
    return [f"pm.test({literal_text(title)}, () => {{", *(f"    {statement}" for statement in statements), "});"]


def literal_text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def has_status(statuses: Sequence[int]) -> list[str]:
    """Where it is another one, the answer tells why."""
    wanted = " or ".join(map(str, statuses))
    expected = f"eql({statuses[0]})" if len(statuses) == 1 else f"be.oneOf({list(statuses)})"
    return test(f"answers {wanted}", f"pm.expect(pm.response.code, pm.response.text().slice(0, 300)).to.{expected};")


def has_media_type(media_type: str) -> list[str]:
    return test(
        f"is {media_type}",
        f'pm.expect(pm.response.headers.get("Content-Type").split(";")[0]).to.eql({literal_text(media_type)});',
    )


def has_request_id() -> list[str]:
    return test("has an X-Request-ID", f'pm.expect(pm.response.headers.get("X-Request-ID")).to.match({_REQUEST_ID});')


def has_rate_limits() -> list[str]:
    """Where they are not turned off."""
    return test(
        "has the headers of its rate limit",
        'const [limit, remaining, reset] = ["Limit", "Remaining", "Reset"].map((name) =>',
        "    pm.response.headers.get(`X-RateLimit-${name}`));",
        "if (limit) {",
        "    pm.expect(Number(remaining)).to.be.within(0, Number(limit));",
        "    pm.expect(Number(reset)).to.be.above(1e9);",
        "}",
    )


def has_shape(name: str, shape: Mapping[str, Any]) -> list[str]:
    schema = json.dumps(shape, ensure_ascii=False, separators=(",", ":"))
    return test(f"has the shape of {name}", f"pm.expect(body).to.have.jsonSchema({schema});")


def is_problem(code: str) -> list[str]:
    """RFC 9457, and this code."""
    return test(
        f"is the problem {code}",
        f"pm.expect(body.error).to.eql({literal_text(code)});",
        "pm.expect(body.status).to.eql(pm.response.code);",
        'pm.expect(body).to.include.all.keys("type", "title", "status", "detail", "error", "message", "request_id");',
        'pm.expect(body.request_id).to.eql(pm.response.headers.get("X-Request-ID"));',
    )


def has_members(expects: Mapping[str, Any]) -> list[str]:
    return [
        line
        for path, value in expects.items()
        for line in test(
            f"{path} is {value if isinstance(value, str) else json.dumps(value)}",
            f"pm.expect({member(path)}).to.eql({literal(value)});",
        )
    ]


def keeps(kept: Mapping[str, str]) -> list[str]:
    if not kept:
        return []
    values = [f"pm.expect({member(path)}).to.exist;" for path in dict.fromkeys(kept.values())]
    return [
        *test(f"gives {', '.join(kept)}", *values),
        *(f'pm.environment.set("{name}", {member(path)});' for name, path in kept.items()),
    ]


def is_over(wait: Wait) -> list[str]:
    """Sends the same request again while there is something to wait for; else tests that there is not."""
    waiting = json.dumps(wait.while_it_is)
    is_waiting = f"{waiting}.includes({member(wait.member)})"
    return [
        'const tries = 1 + Number(pm.environment.get("tries") || 0);',
        f"const isWaiting = pm.response.code < 300 && {is_waiting} && tries < {WAIT_LIMIT};",
        "if (isWaiting) {",
        '    pm.environment.set("tries", tries);',
        "    pm.execution.setNextRequest(pm.info.requestId);",
        f"    setTimeout(() => {{}}, {WAIT_S * 1000});",
        "} else {",
        '    pm.environment.unset("tries");',
        *(
            f"    {line}"
            for line in test(f"is over within {WAIT_LIMIT} tries", f"pm.expect({is_waiting}).to.be.false;")
        ),
    ]


# RFC 6238 with what Postman's sandbox has. A code is good once, and one step early or late is taken: so each takes the
# step after the one before, and waits where that is more than one step ahead.
TOTP_CODE: Final = """\
const cryptoJs = require("crypto-js");
const stepS = 30;
const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const letters = [...pm.environment.get("totp_secret")];
const bits = letters.map((letter) => alphabet.indexOf(letter).toString(2).padStart(5, "0")).join("");
const bytes = bits.match(/.{8}/g).map((byte) => parseInt(byte, 2).toString(16).padStart(2, "0"));
const secret = cryptoJs.enc.Hex.parse(bytes.join(""));

function codeOf(step) {
    const counter = cryptoJs.enc.Hex.parse(step.toString(16).padStart(16, "0"));
    const mac = cryptoJs.HmacSHA1(counter, secret).toString();
    const offset = 2 * parseInt(mac.slice(-1), 16);
    const number = parseInt(mac.slice(offset, offset + 8), 16) & 0x7fffffff;
    return String(number % 1000000).padStart(6, "0");
}

const now = Date.now() / 1000 / stepS;
const step = Math.max(Math.floor(now), 1 + Number(pm.environment.get("totp_step") || 0));
pm.environment.set("totp_step", step);
pm.environment.set("totp_code", codeOf(step));
setTimeout(() => {}, Math.max(0, step - 1 - now) * stepS * 1000 + 100);"""

# Standard Webhooks 1.0.0.
WEBHOOK_SIGNATURE: Final = """\
const cryptoJs = require("crypto-js");
// Any other secret will do where the bank's is not known: then it is a forgery, and refused as one.
const secret = pm.environment.get("bank_webhook_secret") || "whsec_bm90IHRoZSBzZWNyZXQgb2YgYW55IGJhbms=";
const id = "msg_" + pm.variables.replaceIn("{{$guid}}");
const time = String(Math.floor(Date.now() / 1000));
const body = pm.variables.replaceIn(pm.request.body.raw);
const key = cryptoJs.enc.Base64.parse(secret.replace(/^whsec_/, ""));
const mac = cryptoJs.HmacSHA256(`${id}.${time}.${body}`, key).toString(cryptoJs.enc.Base64);
pm.environment.set("webhook_id", id);
pm.environment.set("webhook_timestamp", time);
pm.environment.set("webhook_signature", "v1," + mac);"""
