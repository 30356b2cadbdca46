"""What a process counts for Prometheus, and how it is told. Every metric is defined here, and nowhere else.

Labels are words of ours with few values, never ids, amounts, paths or anything a client can choose. Processes that
share a port (WALLET_API_PROCESSES) count in files of one folder, which PROMETHEUS_MULTIPROC_DIR names, so that
whichever of them is asked answers for all.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

# The client library reads it as soon as it is imported, and expects the folder to be there.
_shared_folder: Final = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
if _shared_folder:
    Path(_shared_folder).mkdir(mode=0o700, parents=True, exist_ok=True)
IS_SHARED: Final = bool(_shared_folder)

REGISTRY: Final = CollectorRegistry()
# One more line for each of a histogram's, which nothing here asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the library's own lack
if not IS_SHARED:
    # Its own memory and processor time: of several, whichever answers could tell of itself only.
    ProcessCollector(registry=REGISTRY)

# --- HTTP
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# Refused before anybody looked for a route, or there is none.
NO_ROUTE: Final = "none"
_requests: Final = Counter(
    "wallet_http_requests_total", "Requests that were answered", ["method", "route", "status"], registry=REGISTRY
)
_request_duration: Final = Histogram(
    "wallet_http_request_duration_seconds",
    "From the request's arrival to the beginning of its answer",
    ["method", "route"],
    registry=REGISTRY,
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)
_rate_limited: Final = Counter(
    "wallet_rate_limited_total", "Requests that a rate limit refused", ["limit"], registry=REGISTRY
)

# --- The ledger
_batch_size: Final = Histogram(
    "wallet_ledger_batch_size",
    "Commands that shared a transaction",
    registry=REGISTRY,
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
)
_commit_duration: Final = Histogram(
    "wallet_ledger_commit_duration_seconds",
    "A batch's last and successful try: reading, deciding, writing, committing",
    registry=REGISTRY,
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 5),
)
_conflicts: Final = Counter(
    "wallet_ledger_conflicts_total", "Tries that were lost to others or to an outage, and made again", registry=REGISTRY
)
_commands: Final = Counter(
    "wallet_ledger_commands_total", "Commands that were decided, by what became of them", ["outcome"], registry=REGISTRY
)
_house_refusals: Final = Counter(
    "wallet_house_refusals_total",
    "Commands that were refused because the house has not enough of a currency",
    ["currency"],
    registry=REGISTRY,
)
_queue_depth: Final = Gauge(
    "wallet_ledger_queue_depth",
    "Commands that wait for a transaction",
    registry=REGISTRY,
    multiprocess_mode="livesum",
)
_queue_limit: Final = Gauge(
    "wallet_ledger_queue_limit",
    "How many may wait before others are told to come back",
    registry=REGISTRY,
    multiprocess_mode="livesum",
)

# --- The clock
_clock_difference: Final = Gauge(
    "wallet_clock_difference_seconds",
    "How far the machine's clock is from MongoDB's, either way; of several processes the furthest",
    registry=REGISTRY,
    multiprocess_mode="livemax",
)
_clock_off: Final = Gauge(
    "wallet_clock_off",
    "1 while a process takes neither commands nor rows for its clock",
    registry=REGISTRY,
    multiprocess_mode="livemax",
)

# --- The bank
_bank_calls: Final = Counter(
    "wallet_bank_calls_total", "Calls of the bank, by how they ended", ["call", "outcome"], registry=REGISTRY
)
_bank_call_duration: Final = Histogram(
    "wallet_bank_call_duration_seconds",
    "Calls of the bank, whatever came of them",
    ["call"],
    registry=REGISTRY,
    buckets=(0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)

# --- The workers
_jobs: Final = Counter(
    "wallet_jobs_total", "Rows of a queue that were worked on: done, failed, put back", ["queue", "outcome"],
    registry=REGISTRY,
)  # fmt: skip
_rows_in_hand: Final = Gauge(
    "wallet_rows_in_hand",
    "Rows of a queue that are being worked on",
    ["queue"],
    registry=REGISTRY,
    multiprocess_mode="livesum",
)

# --- What is sent out
_event_streams: Final = Gauge(
    "wallet_event_streams", "Clients that listen, by how", ["kind"], registry=REGISTRY, multiprocess_mode="livesum"
)
_mails: Final = Counter(
    "wallet_mails_total", "Tries to hand a mail to the mail server, by how they ended", ["outcome"], registry=REGISTRY
)
_webhook_deliveries: Final = Counter(
    "wallet_webhook_deliveries_total", "Attempts to deliver an event, by outcome", ["outcome"], registry=REGISTRY
)


class Figure(NamedTuple):
    """Something that is not counted here but read when somebody asks, since it stands in MongoDB or Redis."""

    name: str
    meaning: str
    labels: tuple[str, ...] = ()


QUEUE_ROWS: Final = Figure("wallet_queue_rows", "Rows of a queue that are due", ("queue",))
QUEUE_OLDEST_AGE: Final = Figure(
    "wallet_queue_oldest_age_seconds", "How long the oldest row of a queue has been due, 0 where none is", ("queue",)
)
DEAD_LETTERS: Final = Figure("wallet_dead_letters", "Rows that were given up and wait for a person", ("queue",))
RECONCILIATION_BREAKS: Final = Figure(
    "wallet_reconciliation_breaks", "Breaks that are open: the bank and we disagree, or the books with themselves",
    ("kind",),
)  # fmt: skip
RECONCILIATION_DAY_AGE: Final = Figure(
    "wallet_reconciliation_day_age_seconds",
    "Since a day was last compared with the bank's statement, or since it should have been",
    ("days_ago",),
)
RECONCILIATION_DAYS_OVERDUE: Final = Figure(
    "wallet_reconciliation_overdue", "Days that should have been compared with the bank's statements and were not"
)
RECONCILIATION_LINES_SET_ASIDE: Final = Figure(
    "wallet_reconciliation_lines_set_aside", "Lines of the bank's statements that cannot be read"
)
INTEGRITY_AGE: Final = Figure(
    "wallet_integrity_last_round_age_seconds", "Since all wallets were last held against their logs"
)
CHECKPOINT_AGE: Final = Figure(
    "wallet_checkpoint_age_seconds", "Since all wallets' heads were last sealed; below 0 where that is a time to come"
)
CHECKPOINTS_REFUSED: Final = Figure(
    "wallet_checkpoints_refused", "Checkpoints in the database that the signing key has not signed"
)
INCIDENTS_OPEN: Final = Figure("wallet_incidents_open", "Incidents that nobody has closed")
BANK_ORDERS_OVERDUE: Final = Figure(
    "wallet_bank_orders_overdue", "Orders that the bank has accepted and should have carried out by now"
)
BANK_ORDER_OVERDUE_AGE: Final = Figure(
    "wallet_bank_order_overdue_age_seconds", "How long ago the oldest of them was expected, 0 where there is none"
)
BLOCKED_WITHDRAWALS: Final = Figure(
    "wallet_withdrawals_blocked", "Withdrawals that an admin has to release or cancel before the bank gets them"
)
HOUSE_HEADROOM: Final = Figure(
    "wallet_house_headroom",
    "What an account can still give above its floor, in minor units, and below 0 what it lacks",
    ("account", "currency"),
)
BREAKER_STATE: Final = Figure(
    "wallet_bank_breaker_state", "1 for the state that the breaker before the bank is in, else 0", ("state",)
)
FIGURES: Final = (
    QUEUE_ROWS,
    QUEUE_OLDEST_AGE,
    DEAD_LETTERS,
    RECONCILIATION_BREAKS,
    RECONCILIATION_DAY_AGE,
    RECONCILIATION_DAYS_OVERDUE,
    RECONCILIATION_LINES_SET_ASIDE,
    INTEGRITY_AGE,
    CHECKPOINT_AGE,
    CHECKPOINTS_REFUSED,
    INCIDENTS_OPEN,
    BANK_ORDERS_OVERDUE,
    BANK_ORDER_OVERDUE_AGE,
    BLOCKED_WITHDRAWALS,
    HOUSE_HEADROOM,
    BREAKER_STATE,
)
# By the values of the figure's labels, in their order.
Values = Mapping[tuple[str, ...], float]


class _Figures(Collector):
    """What was read last. What could not be read is absent: nobody must take an old figure for today's."""

    def __init__(self) -> None:
        self.values: Mapping[Figure, Values] = {}

    def describe(self) -> Iterable[Metric]:
        return [_family(figure, {}) for figure in FIGURES]

    def collect(self) -> Iterable[Metric]:
        known = self.values
        return [_family(figure, known[figure]) for figure in FIGURES if figure in known]


def _family(figure: Figure, values: Values) -> GaugeMetricFamily:
    family = GaugeMetricFamily(figure.name, figure.meaning, labels=figure.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


_figures: Final = _Figures()
REGISTRY.register(_figures)


def show(values: Mapping[Figure, Values]) -> None:
    """From here on these are the figures, and all others are absent."""
    _figures.values = values


def shown_method(method: str) -> str:
    """Anybody can make up others."""
    return method if method in _METHODS else "_OTHER"


# Finding a child by its labels takes thrice as long as counting. There are as many as routes have answers.
_answers: Final[dict[tuple[str, str, int], tuple[Callable[[], None], Callable[[float], None]]]] = {}


def request_answered(method: str, route: str, status: int, duration_s: float) -> None:
    try:
        count, observe = _answers[method, route, status]
    except KeyError:
        shown = shown_method(method)
        count = _requests.labels(shown, route, str(status)).inc
        observe = _request_duration.labels(shown, route).observe
        if shown == method:
            _answers[method, route, status] = count, observe
    count()
    observe(duration_s)


def rate_limited(limit: str) -> None:
    _rate_limited.labels(limit).inc()


def batch_committed(commands: int, refused: int, conflicts: int, duration_s: float) -> None:
    _batch_size.observe(commands)
    _commit_duration.observe(duration_s)
    _accepted.inc(commands - refused)
    _refused.inc(refused)
    _conflicts.inc(conflicts)


_accepted: Final = _commands.labels("accepted")
_refused: Final = _commands.labels("refused")


def house_refused(currency: str) -> None:
    _house_refusals.labels(currency).inc()


def ledger_queue(depth: int, limit: int) -> None:
    _queue_depth.set(depth)
    _queue_limit.set(limit)


def clock(difference_s: float | None, *, is_off: bool) -> None:
    if difference_s is not None:
        _clock_difference.set(abs(difference_s))
    _clock_off.set(is_off)


def bank_called(call: str, outcome: str, duration_s: float) -> None:
    _bank_calls.labels(call, outcome).inc()
    _bank_call_duration.labels(call).observe(duration_s)


def rows_taken(queue: str, rows: int) -> None:
    _rows_in_hand.labels(queue).inc(rows)


def rows_done(queue: str, outcome: str, rows: int = 1) -> None:
    _rows_in_hand.labels(queue).dec(rows)
    _jobs.labels(queue, outcome).inc(rows)


def event_streams(kind: str, open_streams: int) -> None:
    _event_streams.labels(kind).set(open_streams)


def mail_ended(outcome: str) -> None:
    _mails.labels(outcome).inc()


def delivery_attempted(outcome: str) -> None:
    _webhook_deliveries.labels(outcome).inc()


def render(accept: str) -> tuple[bytes, str]:
    """The body and its media type: OpenMetrics for who asks for it, else Prometheus' text, which everybody reads."""
    registry = REGISTRY if _shared_folder is None else _registry_of_all(Path(_shared_folder))
    if "application/openmetrics-text" in accept:
        body, media_type = openmetrics.generate_latest(registry), openmetrics.CONTENT_TYPE_LATEST  # type: ignore[no-untyped-call]  # the library's own lack
    else:
        body, media_type = generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4
    return body, media_type


def _registry_of_all(folder: Path) -> CollectorRegistry:
    # Needed where processes share a port, and nowhere else.
    from prometheus_client.multiprocess import MultiProcessCollector  # noqa: PLC0415 see above

    _forget_the_dead(folder)
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))  # type: ignore[no-untyped-call]  # the library's own lack
    registry.register(_figures)
    return registry


def _forget_the_dead(folder: Path) -> None:
    """What a process that has ended counted stays counted; what it had in hand it has no more."""
    for path in folder.glob("gauge_live*_*.db"):
        pid = int(path.stem.rpartition("_")[2])
        if not _is_alive(pid):
            path.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    with suppress(PermissionError):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
    return True
