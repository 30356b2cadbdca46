"""docs/observability/: every query parses, and asks for nothing that the registry does not have."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml  # type: ignore[import-untyped] # PyYAML has no types

from service import metrics
from tests.observability.queries import parse, unknown_in
from tests.observability.registry import askable, definitions

_ROOT = Path(metrics.__file__).parent.parent
_FOLDER = _ROOT / "docs" / "observability"
DASHBOARD: dict[str, Any] = json.loads((_FOLDER / "dashboard.json").read_text())
ALERTS: dict[str, Any] = yaml.safe_load((_FOLDER / "alerts.yml").read_text())


class Query(NamedTuple):
    where: str
    text: str


def _panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def _rules() -> list[dict[str, Any]]:
    return [rule for group in ALERTS["groups"] for rule in group["rules"]]


def _queries() -> Iterator[Query]:
    for panel in _panels():
        for target in panel["targets"]:
            yield Query(f"{panel['title']} {target['refId']}", target["expr"])
    for rule in _rules():
        yield Query(rule["alert"], rule["expr"])


QUERIES = list(_queries())


class TestQueries:
    @pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.where)
    def test_parse_and_name_what_there_is(self, query: Query) -> None:
        assert unknown_in(query.text, askable()) == []

    @pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.where)
    def test_would_be_found_out_with_a_metric_misspelt(self, query: Query) -> None:
        misspelt = re.sub(r"\b(wallet_[a-z_]+|process_[a-z_]+|up)(?=[{)\[\s]|$)", r"\1s", query.text, count=1)
        assert misspelt != query.text
        assert unknown_in(misspelt, askable())

    @pytest.mark.parametrize(
        ("query", "unknown"),
        [
            ("sum(wallet_nothing)", ["wallet_nothing"]),
            ("wallet_queue_rows{queues='outbox'}", ["wallet_queue_rows{queues}"]),
            ("sum by (kind) (wallet_queue_rows)", ["wallet_queue_rows{kind}"]),
            ("wallet_ledger_batch_size", ["wallet_ledger_batch_size"]),
            ("wallet_jobs", ["wallet_jobs"]),
            ("rate(wallet_queue_rows_total[5m])", ["wallet_queue_rows_total"]),
            ("max(1 - wallet_a / on (x) wallet_b)", ["wallet_a", "wallet_b"]),
            ("max_over_time(sum(wallet_a)[1h:5m])", ["wallet_a"]),
        ],
    )
    def test_that_name_something_else_are_found_out(self, query: str, unknown: list[str]) -> None:
        assert unknown_in(query, askable()) == unknown

    @pytest.mark.parametrize(
        "query",
        [
            "sum(",
            "rate(wallet_jobs_total)",
            "sum by (queue) (sum(wallet_queue_rows))",
            "histogram_quantile(0.9, sum(rate(wallet_ledger_batch_size_bucket[5m])))",
            "wallet_queue_rows{queue='$queue'}",
        ],
    )
    def test_that_make_no_sense_are_found_out(self, query: str) -> None:
        with pytest.raises(ValueError):  # noqa: PT011 the parser's own, and ours
            unknown_in(query, askable())


class TestTheDashboard:
    def test_shows_every_metric_of_ours(self) -> None:
        shown = " ".join(query.text for query in QUERIES)
        ours = [metric for metric in definitions() if metric.name.startswith("wallet_")]
        assert [metric.name for metric in ours if not any(name in shown for name in metric.samples)] == []

    def test_has_panels_that_lie_beside_each_other(self) -> None:
        places = [
            (x, y)
            for panel in DASHBOARD["panels"]
            for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
            for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
        ]
        assert len(places) == len(set(places))
        assert max(x for x, _ in places) == 23
        ids = [panel["id"] for panel in DASHBOARD["panels"]]
        assert len(ids) == len(set(ids))

    def test_labels_lines_by_what_its_queries_leave(self) -> None:
        for panel in _panels():
            for target in panel["targets"]:
                for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
                    grouped = re.search(r"by \(([^)]*)\)", target["expr"])
                    left = set(re.split(r",\s*", grouped[1])) if grouped else {"job", "instance"}
                    assert label in left, (panel["title"], label)


class TestTheAlerts:
    @pytest.mark.parametrize("rule", _rules(), ids=lambda rule: rule["alert"])
    def test_each_compares_and_says_who_is_woken_and_what_to_do(self, rule: dict[str, Any]) -> None:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert re.search(r"[<>]|==|absent\(", rule["expr"])
        assert rule["annotations"]["summary"]
        anchor = rule["annotations"]["runbook"].removeprefix("docs/observability/README.md#")
        assert anchor == rule["alert"].lower()
        assert f"### {rule['alert']}\n" in (_FOLDER / "README.md").read_text()
        parse(rule["expr"])

    def test_name_labels_that_their_queries_leave(self) -> None:
        for rule in _rules():
            for label in re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]):
                assert re.search(rf"by \([^)]*\b{label}\b[^)]*\)", rule["expr"]), rule["alert"]


class TestCompose:
    """There is no engine to try it on: what can be told from the files alone."""

    compose: dict[str, Any] = yaml.safe_load((_ROOT / "docker-compose.yml").read_text())
    prometheus: dict[str, Any] = yaml.safe_load((_FOLDER / "prometheus.yml").read_text())

    def test_starts_prometheus_and_grafana_only_where_they_are_asked_for(self) -> None:
        asked = {name for name, service in self.compose["services"].items() if service.get("profiles")}
        assert asked == {"prometheus", "grafana"}

    def test_mounts_files_that_are_there(self) -> None:
        for name in ("prometheus", "grafana"):
            for volume in self.compose["services"][name]["volumes"]:
                if volume.startswith("./"):
                    assert (_ROOT / volume.split(":")[0]).is_file(), volume

    def test_lets_prometheus_ask_where_they_answer(self) -> None:
        jobs = {job["job_name"]: job for job in self.prometheus["scrape_configs"]}
        assert set(jobs) == {"wallet-api", "wallet-worker"}
        services = self.compose["services"]
        assert jobs["wallet-api"]["static_configs"][0]["targets"] == ["api:8000"]
        worker = jobs["wallet-worker"]["dns_sd_configs"][0]
        assert worker["names"] == ["worker"]
        assert str(worker["port"]) == services["worker"]["environment"]["WALLET_WORKER_METRICS_PORT"]
        for job in jobs.values():
            assert job["authorization"]["credentials_file"] == "/run/secrets/metrics_token"
        assert self.compose["secrets"]["metrics_token"] == {"environment": "WALLET_METRICS_TOKEN"}
        for name in ("api", "worker"):
            assert "WALLET_METRICS_TOKEN" in services[name]["environment"]
            assert set(services[name]["networks"]) & set(services["prometheus"]["networks"])

    def test_asks_for_metrics_by_the_names_that_the_alerts_go_by(self) -> None:
        jobs = {job["job_name"] for job in self.prometheus["scrape_configs"]}
        named = {job for query in QUERIES for job in re.findall(r'job="([^"]+)"', query.text)}
        assert named <= jobs
