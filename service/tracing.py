"""Traces: one payment as one tree of spans, from its request to the commit that ends it, wherever its parts happen.

What ties them together is the text of a W3C `traceparent` (Trace Context, Level 1): held here for whoever is running,
kept with what is done later (outbox, inbox), and sent to the bank. It is carried where a client sent one, whether
anything is traced or not. OpenTelemetry itself is imported where tracing is on, and nowhere else.

Spans hold ids, words of ours and statuses: no amount, no name, no account, no text of anybody's.
"""

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar, Token
from typing import Any, Literal, Self

import structlog

log = structlog.get_logger()

Kind = Literal["internal", "server", "client", "consumer"]
Attributes = Mapping[str, str | int]

# Later versions may add fields behind these, never change them.
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-((?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2})(?:-.*)?")
_OURS_LENGTH = len("00-") + 32 + 1 + 16 + 1 + 2
_TRACE_ID = slice(3, 35)
# What has not been sent by then is lost: a process that ends must not wait for a collector.
_FLUSH_ENDS_S = 3.0
_SERVER_ERROR = 500

_current: ContextVar[str | None] = ContextVar("traceparent", default=None)
_tracer: Any = None


# Of whatever is running: the span that what it causes belongs under. None outside of any trace.
current_traceparent = _current.get


def parse_traceparent(sent: str) -> str | None:
    """As we pass it on; None where it is none, which starts a new trace (Trace Context, section 3.2.2.5)."""
    match = _TRACEPARENT.fullmatch(sent)
    if match is None or (sent.startswith("00") and len(sent) != _OURS_LENGTH):
        return None
    return f"00-{match[1]}"


def is_on() -> bool:
    return _tracer is not None


class _Nothing:
    """Where nothing is traced."""

    def note(self, attributes: Attributes) -> None: ...
    def call(self, name: str) -> None: ...
    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...


class _Carried(_Nothing):
    """Somebody else's trace, which is passed on."""

    def __init__(self, traceparent: str) -> None:
        self._traceparent = traceparent
        self._token: Token[str | None] | None = None

    def __enter__(self) -> Self:
        self._token = _current.set(self._traceparent)
        structlog.contextvars.bind_contextvars(trace_id=self._traceparent[_TRACE_ID])
        return self

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            _current.reset(self._token)


class _Running(_Nothing):
    def __init__(self, name: str, kind: Kind, attributes: Attributes | None, parent: str | None) -> None:
        from opentelemetry.trace import SpanKind  # noqa: PLC0415 only where tracing is on

        self._span = _tracer.start_span(name, _context_of(parent), SpanKind[kind.upper()], attributes)
        self._token: Token[str | None] | None = None

    def note(self, attributes: Attributes) -> None:
        self._span.set_attributes(attributes)

    def call(self, name: str) -> None:
        self._span.update_name(name)

    def __enter__(self) -> Self:
        known = self._span.get_span_context()
        traceparent = f"00-{known.trace_id:032x}-{known.span_id:016x}-{known.trace_flags:02x}"
        self._token = _current.set(traceparent)
        structlog.contextvars.bind_contextvars(trace_id=traceparent[_TRACE_ID])
        return self

    def __exit__(self, *raised: object) -> None:
        error = raised[1]
        if error is not None:
            # Its class and no more: what it says may be about somebody.
            self._span.set_attribute("error.type", type(error).__name__)
            if getattr(error, "http_status", _SERVER_ERROR) >= _SERVER_ERROR:
                from opentelemetry.trace import StatusCode  # noqa: PLC0415 only where tracing is on

                self._span.set_status(StatusCode.ERROR)
        self._span.end()
        if self._token is not None:
            _current.reset(self._token)


Span = _Nothing
_NOTHING = _Nothing()


def span(name: str, attributes: Attributes | None = None, kind: Kind = "internal") -> Span:
    """A part of the trace that is running; nothing outside of one."""
    if _tracer is None or (parent := _current.get()) is None:
        return _NOTHING
    return _Running(name, kind, attributes, parent)


def continued(traceparent: str | None, name: str, kind: Kind, attributes: Attributes | None = None) -> Span:
    """A part of the trace that this belongs to, or the beginning of one."""
    if _tracer is not None:
        return _Running(name, kind, attributes, traceparent)
    return _NOTHING if traceparent is None else _Carried(traceparent)


def _context_of(traceparent: str | None) -> Any:  # noqa: ANN401 OpenTelemetry's own
    from opentelemetry.context import Context  # noqa: PLC0415 only where tracing is on
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context  # noqa: PLC0415

    # Never whatever some library has made current.
    nowhere = Context()
    if traceparent is None:
        return nowhere
    _, trace_id, span_id, flags = traceparent.split("-")
    known = SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))
    return set_span_in_context(NonRecordingSpan(known), nowhere)


@asynccontextmanager
async def tracing(
    service_name: str,
    *,
    endpoint: str | None,
    sample_ratio: float,
    processor: Any = None,  # noqa: ANN401 OpenTelemetry's own
) -> AsyncIterator[None]:
    """On for as long as the block lasts, where there is somewhere to send to: OTLP over HTTP, or the processor given.

    A trace that a caller has begun is sampled as they decided; of our own, `sample_ratio`.
    """
    global _tracer  # noqa: PLW0603 one process, one tracer
    if endpoint is None and processor is None:
        yield
        return
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 4 MB, which nobody pays for where it is off
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio  # noqa: PLC0415

    provider = TracerProvider(
        sampler=ParentBasedTraceIdRatio(sample_ratio),
        resource=Resource.create({"service.name": service_name}),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(processor or _exporting_to(f"{endpoint}".rstrip("/")))
    before, _tracer = _tracer, provider.get_tracer("wallet-service")
    try:
        yield
    finally:
        _tracer = before
        await _shut_down(provider)


async def _shut_down(provider: Any) -> None:  # noqa: ANN401 OpenTelemetry's own
    """In a thread of its own, which nothing waits for that ends with the process."""
    loop, is_done = asyncio.get_running_loop(), asyncio.Event()

    def shut_down() -> None:
        provider.shutdown()
        # The loop may have ended first.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(is_done.set)

    threading.Thread(target=shut_down, name="tracing-end", daemon=True).start()
    try:
        await asyncio.wait_for(is_done.wait(), _FLUSH_ENDS_S)
    except TimeoutError:
        log.warning("tracing.spans_lost")


def _exporting_to(endpoint: str) -> Any:  # noqa: ANN401 OpenTelemetry's own
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    return BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{endpoint}/v1/traces"))
