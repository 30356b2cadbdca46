"""What processes count, as `/metrics` tells it, and what changed between two looks at it."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, Self

from prometheus_client.parser import text_string_to_metric_families

Labels = frozenset[tuple[str, str]]


class Figures(NamedTuple):
    """Of each process that tells any."""

    processes: tuple[Mapping[tuple[str, Labels], float], ...] = ()

    @classmethod
    def read(cls, texts: Iterable[str]) -> Self:
        """Raises ValueError for a text in no format of Prometheus'."""
        return cls(tuple(_values(text) for text in texts))

    def sum(self, name: str, **labels: str) -> float | None:
        """Over all processes and all that carry these labels; None where nobody tells it."""
        sums = list(self._sums(name, labels))
        return sum(sums) if sums else None

    def once(self, name: str) -> float | None:
        """Of what stands in the database, and is the same in each process that tells it."""
        return max(self._sums(name, {}), default=None)

    def _sums(self, name: str, labels: Mapping[str, str]) -> Iterator[float]:
        for values in self.processes:
            found = [value for (known, has), value in values.items() if known == name and labels.items() <= has]
            if found:
                yield sum(found)

    def by(self, name: str, label: str) -> dict[str, float]:
        """The sums by the values of a label."""
        words = {dict(has).get(label) for values in self.processes for known, has in values if known == name}
        return {word: self.sum(name, **{label: word}) or 0.0 for word in words if word is not None}


def _values(text: str) -> dict[tuple[str, Labels], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


class Change(NamedTuple):
    """From one look to the next, `seconds` later."""

    before: Figures
    now: Figures
    seconds: float

    def of(self, name: str, **labels: str) -> float | None:
        """How much a counter grew; None where one of the looks has none at all. One that began anew counts from 0."""
        before, now = self.before.sum(name, **labels), self.now.sum(name, **labels)
        if now is None or not self.before.processes:
            return None
        return now if before is None or now < before else now - before

    def rate(self, name: str, **labels: str) -> float | None:
        grown = self.of(name, **labels)
        return None if grown is None or self.seconds <= 0 else grown / self.seconds

    def mean(self, name: str) -> float | None:
        """Of a histogram's observations in between."""
        total, count = self.of(f"{name}_sum"), self.of(f"{name}_count")
        return None if total is None or not count else total / count
