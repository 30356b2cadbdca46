"""The names of all metrics, by the rules of promtool's linter (`promtool check metrics`) and Prometheus' own advice.

https://prometheus.io/docs/practices/naming/ and the packages promlint/validations of client_golang.
"""

import re

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge

from scripts.service_stack import Stack
from service.controllers.problems import _PATHS
from service.domain.accounts import SystemAccount
from service.domain.breaks import BreakKind
from service.domain.money import EXPONENTS
from service.services.event_feed import StreamKind
from tests.observability.registry import TARGET_LABELS, Definition, definitions
from tests.person import Person
from tests.samples import samples_in

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_TYPES = frozenset({"counter", "gauge", "histogram", "summary", "untyped", "info"})
_HISTOGRAMS_OWN = ("_bucket", "_count", "_sum")
_RESERVED_LABELS = frozenset({"le", "quantile"}) | TARGET_LABELS
# Of other sizes than Prometheus' own, and words cut short.
_OTHER_UNITS = frozenset(
    {
        *("milliseconds", "microseconds", "nanoseconds", "minutes", "hours", "days", "weeks"),
        *(
            "kilobytes",
            "megabytes",
            "gigabytes",
            "kibibytes",
            "mebibytes",
            "bits",
            "percent",
            "celsius",
            "ms",
            "us",
            "ns",
        ),
        *("s", "sec", "secs", "min", "mins", "hr", "kb", "mb", "gb", "pct", "num", "msec"),
    }
)
# What is measured in something says so at its end.
_MEASURES = {"duration": "seconds", "age": "seconds"}

# How many different values each label may have; the routes are those of the API.
_VALUES = {
    "call": {"submit", "find", "statement"},
    "outcome": {
        *("accepted", "refused", "done", "failed"),
        *("answered", "rejected", "unknown", "not_asked", "given_up"),
        *("delivered", "retry", "gone"),
        *("sent", "unavailable"),
    },
    "queue": {"outbox", "callbacks", "events", "deliveries", "bank"},
    "account": {*SystemAccount},
    "state": {"closed", "open", "half_open"},
    "method": {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "_OTHER"},
    "limit": {"everybody", "anonymous", "caller", "address", "login", "balance", "transactions"},
}


def problems_of(metric: Definition) -> list[str]:
    words = metric.name.split("_")
    found = []
    if _NAME.fullmatch(metric.name) is None:
        found.append("is no snake_case")
    if words[0] not in ("wallet", "process"):
        found.append("does not begin with what it belongs to")
    if not metric.meaning:
        found.append("says nothing of what it is")
    if metric.kind != "counter" and words[-1] == "total":
        found.append("ends like a counter and is none")
    if metric.name.endswith(_HISTOGRAMS_OWN):
        found.append("ends like a part of a histogram")
    found += [f"has its type in its name: {word}" for word in words if word in _TYPES]
    found += [f"is in another unit than the base one: {word}" for word in words if word in _OTHER_UNITS]
    found += [f"has a label in its name: {label}" for label in metric.labels if f"by_{label}" in metric.name]
    found += [
        f"measures {measure} and does not end in {unit}"
        for measure, unit in _MEASURES.items()
        if measure in words and words[-1] != unit
    ]
    for label in sorted(metric.labels):
        if _NAME.fullmatch(label) is None or label.startswith("__"):
            found.append(f"has a label that is no snake_case: {label}")
        if label in _RESERVED_LABELS:
            found.append(f"has a label that is not its to have: {label}")
    return found


@pytest.mark.parametrize("metric", definitions(), ids=lambda metric: metric.name)
def test_is_named_as_metrics_are(metric: Definition) -> None:
    assert problems_of(metric) == []


def test_all_that_were_agreed_are_there() -> None:
    names = {name for metric in definitions() for name in metric.samples}
    assert names >= {
        "wallet_http_requests_total", "wallet_http_request_duration_seconds_bucket", "wallet_ledger_batch_size_bucket",
        "wallet_ledger_commit_duration_seconds_bucket", "wallet_ledger_conflicts_total", "wallet_ledger_queue_depth",
        "wallet_bank_calls_total", "wallet_bank_call_duration_seconds_bucket", "wallet_bank_breaker_state",
        "wallet_jobs_total", "wallet_rows_in_hand", "wallet_queue_rows", "wallet_queue_oldest_age_seconds",
        "wallet_dead_letters", "wallet_reconciliation_breaks", "wallet_integrity_last_round_age_seconds",
        "wallet_house_headroom", "wallet_house_refusals_total",
        "wallet_incidents_open", "wallet_rate_limited_total", "wallet_event_streams", "wallet_webhook_deliveries_total",
        "wallet_mails_total",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "kind", "labels", "problem"),
    [
        ("wallet_requests_total", "gauge", (), "ends like a counter"),
        ("wallet_request_count", "gauge", (), "part of a histogram"),
        ("wallet_commit_duration_milliseconds", "histogram", (), "another unit"),
        ("wallet_commit_duration", "histogram", (), "does not end in seconds"),
        ("wallet_queue_gauge", "gauge", (), "type in its name"),
        ("walletQueue", "gauge", (), "no snake_case"),
        ("queue_rows", "gauge", (), "what it belongs to"),
        ("wallet_rows_by_queue", "gauge", ("queue",), "label in its name"),
        ("wallet_rows", "gauge", ("le",), "not its to have"),
        ("wallet_rows", "gauge", ("queueName",), "label that is no snake_case"),
    ],
)
def test_the_linter_finds(name: str, kind: str, labels: tuple[str, ...], problem: str) -> None:
    found = problems_of(Definition(name, kind, "Anything", frozenset(labels)))
    assert any(problem in one for one in found), found


def test_counters_end_in_total_whatever_they_are_called() -> None:
    """By the client library, which tells counters without it from those with it by nothing."""
    registry = CollectorRegistry()
    Counter("wallet_things", "Anything", registry=registry).inc()
    Gauge("wallet_rows", "Anything", registry=registry)
    assert [sample.name for one in registry.collect() for sample in one.samples] == [
        "wallet_things_total",
        "wallet_rows",
    ]


class TestLabels:
    async def test_have_few_values_all_of_them_ours(
        self, payment_stack: Stack, payment_http: httpx.AsyncClient
    ) -> None:
        person = await Person.register(payment_http)
        # By then the worker has started.
        await person.fund(10_000)
        for path in ("/made/up", f"/api/v1/wallets/{person.wallet_id}", "/api/v1/wallets/wal_x"):
            await payment_http.request("BREW", path)
            await payment_http.get(path)
        routes = {"none", *_PATHS.values()}
        assert payment_stack.worker_metrics_url is not None
        for url in ("/metrics", payment_stack.worker_metrics_url):
            found = samples_in((await payment_http.get(url)).text)
            assert len(found.values) < 3_000
            for name, labels in found.values:
                for label, value in labels:
                    allowed = _VALUES | {"route": routes}
                    if label == "status":
                        assert re.fullmatch(r"[1-5][0-9]{2}", value), (name, value)
                    elif label in allowed:
                        assert value in allowed[label], (name, label, value)
                    elif label == "kind":
                        assert value in {*BreakKind, *StreamKind}, (name, value)
                    elif label == "currency":
                        assert value in EXPONENTS, (name, value)
                    elif label == "days_ago":
                        assert value in {*map(str, range(1, 32)), "older"}, (name, value)
                    else:
                        assert label == "le", (name, label)
