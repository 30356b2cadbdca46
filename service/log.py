"""Structured logs: one line per event, with the request's or the job's id on each."""

import json
import logging
import logging.config
import re
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any, TextIO, cast

import orjson
import structlog

from service.settings import Settings

# Substrings of field names whose values never reach a log, whatever somebody passes by mistake.
_SECRET_FIELDS = re.compile(
    r"password|secret|encryption_key|token|authorization|signature|destination|source", re.IGNORECASE
)
_HIDDEN = "[hidden]"


def _hide_secrets(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for field in event:
        if _SECRET_FIELDS.search(field):
            event[field] = _HIDDEN
    return event


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
        _hide_secrets,
    ]
    if settings.logs_as_json:
        finish: list[structlog.typing.Processor] = [
            structlog.processors.format_exc_info,
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
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
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
