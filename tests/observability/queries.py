"""What a PromQL query asks for: its metrics and, of each, the labels that it goes by."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import promql_parser
from promql_parser import AggModifierType, AggregateExpr, BinaryExpr, Call, MatrixSelector, SubqueryExpr, VectorSelector

# Grafana fills these in.
_VARIABLES = {"$__rate_interval": "5m", "$__interval": "1m", "$__range": "1h"}
# They leave of each what it has.
_CHOOSING = frozenset({"topk", "bottomk"})


class Asked(NamedTuple):
    metric: str
    labels: frozenset[str]


def parse(query: str) -> Any:
    """Raises ValueError for what is no PromQL."""
    for variable, value in _VARIABLES.items():
        query = query.replace(variable, value)
    if "$" in query:
        raise ValueError(f"a variable that nobody fills in: {query}")
    return promql_parser.parse(query)


def asked_in(query: str) -> list[Asked]:
    return [*_asked(parse(query), frozenset())]


def _asked(node: Any, outer: frozenset[str]) -> Iterator[Asked]:
    """`outer` are the labels by which something further out groups what comes of this."""
    match node:
        case VectorSelector():
            matched = {one.name for one in node.matchers.matchers}
            yield Asked(str(node.name), outer | matched)
        case MatrixSelector():
            yield from _asked(node.vector_selector, outer)
        case AggregateExpr():
            yield from _asked(node.expr, _grouped_by(node, outer))
        case BinaryExpr():
            for side in (node.lhs, node.rhs):
                yield from _asked(side, outer)
        case Call():
            # What it makes of them has the labels that they have.
            quantile = {"le"} if node.func.name == "histogram_quantile" else set()
            for one in node.args:
                yield from _asked(one, outer | quantile)
        case SubqueryExpr():
            yield from _asked(node.expr, outer)
        case _:
            if hasattr(node, "expr"):
                yield from _asked(node.expr, outer)


def _grouped_by(node: AggregateExpr, outer: frozenset[str]) -> frozenset[str]:
    """Those of further out have to be among its own, or nothing would be left of them."""
    if str(node.op) in _CHOOSING:
        return outer
    modifier = node.modifier
    named = frozenset[str]() if modifier is None else frozenset(modifier.labels)
    if modifier is not None and modifier.type == AggModifierType.Without:
        return outer | named
    if lost := outer - named:
        raise ValueError(f"nothing is left of {', '.join(sorted(lost))} in {node.prettify()}")
    return named


def unknown_in(query: str, known: Mapping[str, frozenset[str]]) -> list[str]:
    """What a query names that there is not: metrics, and labels of theirs."""
    found = []
    for metric, labels in asked_in(query):
        if metric not in known:
            found.append(metric)
        else:
            found += [f"{metric}{{{label}}}" for label in sorted(labels - known[metric])]
    return found
