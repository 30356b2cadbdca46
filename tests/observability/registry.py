"""Every metric that the service has, as its registry defines it, whether anything was counted yet or not."""

from collections.abc import Iterator
from typing import NamedTuple

from prometheus_client import Histogram
from prometheus_client.metrics import MetricWrapperBase

from service import metrics

# What a scrape adds to each, and Prometheus' own metric about it.
TARGET_LABELS = frozenset({"job", "instance"})
_UP = "up"


class Definition(NamedTuple):
    """`name` without the suffixes that its samples have."""

    name: str
    kind: str
    meaning: str
    labels: frozenset[str]

    @property
    def samples(self) -> dict[str, frozenset[str]]:
        """What can be asked for, and the labels of each."""
        if self.kind == "histogram":
            return {
                f"{self.name}_bucket": self.labels | {"le"},
                f"{self.name}_sum": self.labels,
                f"{self.name}_count": self.labels,
            }
        return {f"{self.name}_total" if self.kind == "counter" else self.name: self.labels}


def definitions() -> list[Definition]:
    return sorted(_definitions())


def _definitions() -> Iterator[Definition]:
    for collector in metrics.REGISTRY._collector_to_names:
        if isinstance(collector, MetricWrapperBase):
            (family,) = collector.describe()
            labels = frozenset(collector._labelnames)
            assert (family.type == "histogram") == isinstance(collector, Histogram)
            yield Definition(family.name, family.type, family.documentation, labels)
        elif not isinstance(collector, type(metrics._figures)):
            # The library's own about the process, which have no labels.
            for family in collector.collect():
                yield Definition(family.name, family.type, family.documentation, frozenset())
    for figure in metrics.FIGURES:
        yield Definition(figure.name, "gauge", figure.meaning, frozenset(figure.labels))


def askable() -> dict[str, frozenset[str]]:
    """The labels of each sample that Prometheus has after a scrape."""
    found = {_UP: TARGET_LABELS}
    for definition in definitions():
        found |= {name: labels | TARGET_LABELS for name, labels in definition.samples.items()}
    return found
