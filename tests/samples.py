"""What an answer of `/metrics` says, by name and labels."""

from collections.abc import Mapping
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families as parse


class Samples(NamedTuple):
    values: dict[tuple[str, frozenset[tuple[str, str]]], float]

    def of(self, name: str, labels: Mapping[str, str] | None = None) -> float:
        """0 for what nobody has counted yet."""
        return self.values.get((name, frozenset((labels or {}).items())), 0.0)

    def labels_of(self, name: str) -> list[dict[str, str]]:
        return [dict(labels) for found, labels in self.values if found == name]


def samples_in(text: str) -> Samples:
    families = parse(text)
    return Samples(
        {(sample.name, frozenset(sample.labels.items())): sample.value for one in families for sample in one.samples}
    )
