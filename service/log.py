"""Structured logs: one line per event, with the request's or the job's id on each, and no secret in any.

Nobody is meant to log one. These are the nets below: by a field's name, by what a text calls it, and by its looks.
"""

import json
import logging
import logging.config
import re
import sys
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from functools import lru_cache
from itertools import islice
from typing import Any, TextIO, cast

import orjson
import structlog

from service.settings import Settings

# Parts of names whose values never reach a log, whatever somebody passes by mistake.
_SECRET_NAMES = (
    "password|secret|encryption_key|api_?key|token|authorization|cookie|signature|nonce|destination|source|account|iban"  # noqa: S105 names
)
# What says which one, and not what it is.
_SECRET_FIELDS = re.compile(rf"(?!.*_(?:ids?|version|masked|prefix)$).*(?:{_SECRET_NAMES})", re.IGNORECASE)
# The same within texts, of exceptions above all. Every repetition is bounded: whatever a text is made of, to look
# through it takes a time in proportion to its length.
_SECRET_TEXTS = re.compile(
    rf"""
    # A name and its value, as in JSON, in what Python prints and in pydantic's errors.
    (?P<name>(?i:{_SECRET_NAMES}|input_value)\w{{0,20}}["']?\s?[=:]\s?(?:(?i:bearer|basic)\s)?)
        (?:b?"[^"\n]{{0,4096}}"|b?'[^'\n]{{0,4096}}'|[^\s"',;)}}\]]{{1,4096}})
    # The password in a server's address.
    | (?P<address>://[^\s/@:]{{0,256}}:)[^\s/@]{{1,512}}(?=@)
    | (?P<scheme>\b(?i:bearer|basic)\s)[\w.~+/=-]{{8,4096}}
    # JWTs (RFC 7519), whose header always begins like this; our own keys and tokens; argon2's hashes.
    | (?<![\w-])eyJ[\w-]{{5,4096}}\.[\w.-]{{5,4096}}
    | \b(?:wsk|wrt|wpr|whsec)_[\w+/=-]{{16,512}}
    | \$argon2[^\s"']{{8,512}}
    # Voucher codes, recovery codes, cards.
    | (?<![\w-])[0-9A-Z]{{5}}(?:-[0-9A-Z]{{5}}){{3}}-[0-9A-Z]{{6}}(?![\w-])
    | (?<![\w-])[A-Z2-7]{{4}}(?:-[A-Z2-7]{{4}}){{3}}(?![\w-])
    | (?<![\w-])[0-9]{{4}}(?:[ -][0-9]{{4}}){{2,4}}(?![\w-])
    # Numbers of accounts, in one piece, and IBANs (ISO 13616).
    | (?<![\w-])(?<![0-9]\.)[0-9]{{9,34}}(?![\w-]|\.[0-9])
    | \b[A-Z]{{2}}[0-9]{{2}}(?:\s?[0-9A-Z]{{4}}){{2,7}}(?:\s?[0-9A-Z]{{1,3}})?\b
    """,
    re.VERBOSE,
)
# Nearly all that is logged is one of these: names of ours, ids and paths. To see that takes a fiftieth of the time.
_PLAIN_TEXTS = re.compile(
    r"[A-Za-z_.]{0,64}|[a-z]{2,5}_[0-9a-f]{32}|(?:/(?:[a-z][a-z_-]{0,31}|v1|[a-z]{2,5}_[0-9a-f]{32})){1,8}"
)
_HIDDEN = "[hidden]"
# Whatever else they say, these are ours or were looked at already.
_PLAIN_FIELDS = frozenset({"level", "timestamp", "request_id", "trace_id", "job_id", "_record", "_from_structlog"})
# Half from each end: a traceback says where it began and how it ended there.
_TEXT_LIMIT = 8 * 1024
_DEEPEST = 4
_MOST_ITEMS = 100


def _hide_secrets(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for field, value in event.items():
        if field not in _PLAIN_FIELDS:
            event[field] = _HIDDEN if _is_secret_field(field) else _without_secrets(value, _DEEPEST)
    return event


# A few dozen names, unless somebody logs what clients call things.
@lru_cache(maxsize=1024)
def _is_secret_field(name: str) -> bool:
    return _SECRET_FIELDS.match(name) is not None


def _without_secrets(value: Any, levels: int) -> Any:  # noqa: ANN401 whatever is logged
    if isinstance(value, str):
        return hide_in_text(value)
    if value is None or isinstance(value, int | float):
        return value
    if levels and isinstance(value, tuple) and hasattr(value, "_asdict"):
        value = value._asdict()
    if levels and isinstance(value, Mapping):
        return {
            str(name): _HIDDEN if _is_secret_field(str(name)) else _without_secrets(inner, levels - 1)
            for name, inner in islice(value.items(), _MOST_ITEMS)
        }
    if levels and isinstance(value, list | tuple | set | frozenset):
        return [_without_secrets(inner, levels - 1) for inner in islice(value, _MOST_ITEMS)]
    return hide_in_text(str(value))


def hide_in_text(text: str) -> str:
    """What is left of a text, whatever put it together."""
    if _PLAIN_TEXTS.fullmatch(text) is not None:
        return text
    if len(text) > _TEXT_LIMIT:
        text = f"{text[: _TEXT_LIMIT // 2]} [cut] {text[-_TEXT_LIMIT // 2 :]}"
    return _SECRET_TEXTS.sub(_hide_match, text)


def _hide_match(match: re.Match[str]) -> str:
    return (match["name"] or match["address"] or match["scheme"] or "") + _HIDDEN


class _Unfailing:
    """A stream whose full disk or closed pipe costs log lines, never the work that they tell of."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


def set_up_logging(settings: Settings) -> None:
    """Readable lines in a terminal, JSON in production; the libraries' own logs take the same shape."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        # As text, or the next one could not look into it. Local variables are not in it.
        structlog.processors.format_exc_info,
        _hide_secrets,
    ]
    if settings.logs_as_json:
        finish: list[structlog.typing.Processor] = [
            structlog.processors.JSONRenderer(serializer=_dumps_text),
        ]
    else:
        finish = [
            _show_what_is_invisible,
            structlog.dev.ConsoleRenderer(
                colors=sys.stdout.isatty(),
                sort_keys=False,
                # The richer formatters show local variables: passwords and account numbers among them.
                exception_formatter=structlog.dev.plain_traceback,
            ),
        ]
    structlog.configure(
        processors=[*shared, *finish],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG if settings.log_debug else logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, _Unfailing(sys.stdout))),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *finish],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    # uvicorn.access stays as uvicorn was told: RequestLog writes a better line.
    for name in ("uvicorn", "uvicorn.error", "arq"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    # Each request of an HTTP client and each discarded correlation id would be a line of its own.
    # arq tells of each job's beginning and end; ours tell what they did.
    for name in ("httpx", "httpcore", "pymongo", "asgi_correlation_id", "arq.worker", "arq.jobs"):
        logging.getLogger(name).setLevel(logging.WARNING)


# Control and format characters and separators: a viewer may take them for a new line, a terminal for a command, and
# some turn text around. Line ends are the renderers' own business.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u0600-\u0605\u061c\u06dd\u070f\u08e2\u180e\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\ufeff\ufff9-\ufffb\U000110bd\U000110cd\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0001-\U000e007f]"
)


def _escape(match: re.Match[str]) -> str:
    return json.dumps(match[0])[1:-1]


def _show_what_is_invisible(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """For a terminal; the renderer itself looks after what it takes for white space, and after all that is no text."""
    for field, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[field] = _INVISIBLE.sub(_escape, value)
    return event


def _dumps_text(event: MutableMapping[str, Any], **_options: Any) -> str:  # noqa: ANN401 structlog's own signature
    line = orjson.dumps(event, default=str).decode()
    # Nearly all lines are plain ASCII, where JSON itself has escaped what there was but one.
    if line.isascii() and "\x7f" not in line:
        return line
    return _INVISIBLE.sub(_escape, line)
