"""The page: looks go in, what rich can show comes out. Red is what needs somebody, yellow what may come to that."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from rich.box import ROUNDED
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from scripts.dashboard.figures import Change, Figures
from scripts.dashboard.sources import Look
from service.domain.workers import QueueState, Worker

UNKNOWN: Final = "-"
_WIDE: Final = 110
# A sweep takes at most half a minute: what waits for longer is not being worked on.
_LATE_S: Final = 60.0
_SLOW_S: Final = 10.0
_QUIET_WORKER_S: Final = 12.0
_BLOCKS: Final = "▁▂▃▄▅▆▇█"
_MINUTE_S: Final = 60
_HOUR_S: Final = 3600
_DAY_S: Final = 86_400
_THOUSAND: Final = 1000
_MILLION: Final = 1_000_000
_FULL_QUEUE: Final = 0.5
_NOTICED_MS: Final = 500
_FEW: Final = 10
_HEAD_LINES: Final = 4

GOOD, WATCH, BAD, FAINT = "green", "yellow", "bold red", "bright_black"


class Part(NamedTuple):
    """A panel, and how many lines it takes."""

    panel: RenderableType
    lines: int


# A name, a figure, and what there is to say of it.
Fact = tuple[str, str | Text, str | Text]
Band = tuple[str, ...]
# What stands beside each other, and what goes first where there is little room.
_NARROW: Final[tuple[Band, ...]] = (("queues",), ("flow", "bank"), ("ledger",), ("workers",))
_WIDE_COLUMNS: Final[tuple[Band, Band]] = (("queues", "workers"), ("flow", "ledger", "bank"))
_SPARED_FIRST: Final = ("ledger", "bank", "workers", "flow")


def count(number: float | None) -> str:
    """Short: a column is narrow, and nobody reads seven digits at a glance."""
    if number is None:
        return UNKNOWN
    if number >= _MILLION:
        return f"{number / _MILLION:.1f}M"
    return f"{number / _THOUSAND:.1f}k" if number >= _FEW * _THOUSAND else f"{number:,.0f}"


def rate(number: float | None) -> str:
    if number is None:
        return UNKNOWN
    return f"{number:.1f}" if 0 < number < _FEW else count(number)


def duration(seconds: float | None) -> str:
    if seconds is None:
        return UNKNOWN
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms" if seconds else "0 s"
    for limit, unit, size in ((_MINUTE_S, "s", 1), (_HOUR_S, "min", _MINUTE_S), (_DAY_S, "h", _HOUR_S)):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / _DAY_S:.0f} d"


def sparkline(numbers: Sequence[float], width: int) -> str:
    shown = list(numbers)[-width:]
    top = max(shown, default=0.0)
    if top <= 0:
        return _BLOCKS[0] * len(shown)
    return "".join(_BLOCKS[min(len(_BLOCKS) - 1, int(number / top * (len(_BLOCKS) - 1) + 0.5))] for number in shown)


def breaker_of(look: Look) -> str | None:
    """As the metrics have it, else as `/health` does."""
    states = look.figures.by("wallet_bank_breaker_state", "state")
    if states:
        return max(states, key=lambda state: states[state])
    said = None if look.health is None else look.health.get("checks", {}).get("bank")
    return None if said is None else "closed" if said == "ok" else str(said)


def needs(look: Look) -> list[Text]:
    """What somebody has to see to, worst first; nothing where all is well."""
    found: list[tuple[str, str]] = []
    if look.trouble is not None:
        found.append((BAD, f"MongoDB does not answer ({look.trouble})"))
    if look.health is None:
        found.append((BAD, "the API does not answer"))
    else:
        parts = {name: said for name, said in look.health.get("checks", {}).items() if name not in ("bank", "workers")}
        found += [(BAD, f"{name} is {said}") for name, said in parts.items() if said != "ok"]
    if look.workers is not None and not look.workers:
        found.append((BAD, "no worker is there"))
    off = [worker for worker in look.workers or () if worker.clock_is_off]
    found += [(BAD, f"the clock of worker {worker.host} {worker.pid} is off") for worker in off]
    if look.backlog is not None:
        dead = sum(look.backlog.dead_letters.values())
        found += [(BAD, f"{count(dead)} dead letters")] if dead else []
        late = [queue for queue, state in look.backlog.queues.items() if state.oldest_age_s(look.at) > _LATE_S]
        found += [(BAD, f"{queue.value} waits for {_age(look, look.backlog.queues[queue])}") for queue in late]
    for name, what in (
        ("wallet_incidents_open", "incidents"),
        ("wallet_reconciliation_breaks", "breaks"),
        ("wallet_withdrawals_blocked", "blocked withdrawals"),
    ):
        number = _once(look, name)
        found += [(BAD, f"{count(number)} {what}")] if number else []
    breaker = breaker_of(look)
    if breaker not in (None, "closed"):
        found.append((WATCH, f"the bank is down (breaker {breaker})"))
    return [Text(text, style=style) for style, text in found]


def _once(look: Look, name: str) -> float | None:
    """What stands in MongoDB, and is told by each process alike: by its label, the highest of them."""
    return look.figures.once(name)


def _age(look: Look, state: QueueState) -> str:
    return duration(state.oldest_age_s(look.at))


def render(looks: Sequence[Look], *, width: int, height: int | None, where: str) -> RenderableType:
    """The last of the looks, with what changed since those before. Without a height, everything."""
    head = _head(looks[-1], where, width)
    is_wide = width >= _WIDE
    parts = {
        "queues": _queues(looks[-1], has_topics=is_wide),
        "flow": _flow(looks),
        "bank": _bank_and_books(looks),
        "ledger": _ledger(looks),
        "workers": _workers(looks[-1]),
    }
    for name in _SPARED_FIRST:
        if height is not None and _lines(parts, is_wide=is_wide) > height - _HEAD_LINES:
            del parts[name]
    return Group(head, _in_columns(parts) if is_wide else _in_bands(parts))


def _lines(parts: Mapping[str, Part], *, is_wide: bool) -> int:
    if is_wide:
        return max(sum(parts[name].lines for name in column if name in parts) for column in _WIDE_COLUMNS)
    return sum(max((parts[name].lines for name in band if name in parts), default=0) for band in _NARROW)


def _in_columns(parts: Mapping[str, Part]) -> RenderableType:
    grid = Table.grid(expand=True)
    grid.add_column(ratio=5)
    grid.add_column(ratio=4)
    grid.add_row(*(Group(*(parts[name].panel for name in column if name in parts)) for column in _WIDE_COLUMNS))
    return grid


def _in_bands(parts: Mapping[str, Part]) -> RenderableType:
    bands: list[RenderableType] = []
    for band in _NARROW:
        shown = [parts[name].panel for name in band if name in parts]
        if shown:
            grid = Table.grid(expand=True)
            for _ in shown:
                grid.add_column(ratio=1)
            grid.add_row(*shown)
            bands.append(grid)
    return Group(*bands)


def _head(look: Look, where: str, width: int) -> RenderableType:
    troubles = needs(look)
    said = Text(" · ").join(troubles) if troubles else Text("all is well", style=GOOD)
    title = Text.assemble(("Wallet service", "bold"), (f"  {where}", FAINT))
    grid = Table.grid(expand=True)
    grid.add_column(no_wrap=True, overflow="ellipsis")
    grid.add_column(justify="right", no_wrap=True)
    grid.add_row(title, Text(f"{look.at:%H:%M:%S} UTC", style=FAINT))
    said.no_wrap, said.overflow = True, "ellipsis"
    worst = BAD if any(str(trouble.style) == BAD for trouble in troubles) else WATCH if troubles else GOOD
    return Panel(Group(grid, said), box=ROUNDED, border_style=worst.removeprefix("bold "), width=width)


def _panel(title: str, body: Table, lines: int) -> Part:
    return Part(Panel(body, title=title, title_align="left", box=ROUNDED, border_style=FAINT), lines + 2)


def _queues(look: Look, *, has_topics: bool) -> Part:
    table = Table(box=None, expand=True, pad_edge=False, header_style=FAINT)
    table.add_column("", no_wrap=True)
    for heading in ("due", "waiting", "oldest", "in hand", "failed", "dead"):
        table.add_column(heading, justify="right", no_wrap=True)
    rows = 1
    if look.backlog is None:
        table.add_row(Text("unknown while MongoDB does not answer", style=FAINT))
        return _panel("Queues", table, 2)
    for queue, state in look.backlog.queues.items():
        _queue_row(table, look, queue.value, state, look.backlog.dead_letters.get(queue.value, 0))
        rows += 1
        if queue.value == "outbox" and has_topics:
            for topic, of_topic in look.backlog.topics.items():
                table.add_row(Text(f"  {topic}", style=FAINT), *_counts(look, of_topic))
                rows += 1
    return _panel("Queues", table, rows)


def _counts(look: Look, state: QueueState) -> Iterable[Text]:
    age_s = state.oldest_age_s(look.at)
    style = BAD if age_s > _LATE_S else WATCH if age_s > _SLOW_S else ""
    yield Text(count(state.due), style=style)
    yield Text(count(state.rows))
    yield Text(duration(age_s) if state.due else UNKNOWN, style=style)


def _queue_row(table: Table, look: Look, name: str, state: QueueState, dead: int) -> None:
    workers = look.workers or []
    # Metrics are of this moment, heartbeats a few seconds old.
    in_hand = look.figures.sum("wallet_rows_in_hand", queue=name)
    if in_hand is None:
        in_hand = sum(worker.in_hand.get(name, 0) for worker in workers)
    failed = sum(worker.failed.get(name, 0) for worker in workers)
    table.add_row(
        name,
        *_counts(look, state),
        count(in_hand),
        Text(count(failed), style=WATCH if failed else ""),
        Text(count(dead), style=BAD if dead else ""),
    )


def _facts(rows: Sequence[Fact]) -> Table:
    table = Table.grid(expand=True, padding=(0, 1, 0, 0))
    table.add_column(style=FAINT, no_wrap=True, width=14)
    table.add_column(justify="right", no_wrap=True, width=7)
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for row in rows:
        table.add_row(*row)
    return table


def _flow(looks: Sequence[Look]) -> Part:
    look = looks[-1]
    flows = [one.flow for one in looks if one.flow is not None]
    change = _change(looks)
    errors = _server_errors(change)
    flow = look.flow
    rows: list[Fact] = [
        ("accepted/s", rate(None if flow is None else flow.accepted), sparkline([one.accepted for one in flows], 24)),
        ("settled/s", rate(None if flow is None else flow.settled), sparkline([one.settled for one in flows], 24)),
        ("given back/s", rate(None if flow is None else flow.refunded), sparkline([one.refunded for one in flows], 24)),
        (
            "requests/s",
            rate(change.rate("wallet_http_requests_total")),
            Text(f"{rate(errors)}/s of them 5xx", style=WATCH) if errors else "",
        ),
    ]
    return _panel("Deposits and withdrawals", _facts(rows), 4)


def _change(looks: Sequence[Look]) -> Change:
    """Since the look before; of the first one nothing is known."""
    return looks[-1].since(looks[-2]) if len(looks) > 1 else Change(Figures(), looks[-1].figures, 0.0)


def _server_errors(change: Change) -> float | None:
    statuses = {status for status in change.now.by("wallet_http_requests_total", "status") if status.startswith("5")}
    rates = [change.rate("wallet_http_requests_total", status=status) for status in statuses]
    return sum(one for one in rates if one is not None)


def _ledger(looks: Sequence[Look]) -> Part:
    look = looks[-1]
    change = _change(looks)
    depth, limit = look.figures.sum("wallet_ledger_queue_depth"), look.figures.sum("wallet_ledger_queue_limit")
    is_full = depth is not None and limit is not None and depth > _FULL_QUEUE * limit
    size = change.mean("wallet_ledger_batch_size")
    took = change.mean("wallet_ledger_commit_duration_seconds")
    batches = change.rate("wallet_ledger_batch_size_count")
    conflicts = change.rate("wallet_ledger_conflicts_total")
    rows: list[Fact] = [
        ("batches/s", rate(batches), f"of {rate(size)} commands, {duration(took)} each" if size else ""),
        ("waiting", Text(count(depth), style=BAD if is_full else ""), f"of {count(limit)}" if limit else ""),
        ("tried again/s", rate(conflicts), ""),
    ]
    return _panel("Ledger", _facts(rows), 3)


def _bank_and_books(looks: Sequence[Look]) -> Part:
    look = looks[-1]
    change = _change(looks)
    breaker = breaker_of(look)
    incidents, breaks = _once(look, "wallet_incidents_open"), _once(look, "wallet_reconciliation_breaks")
    round_age = _once(look, "wallet_integrity_last_round_age_seconds")
    calls = change.rate("wallet_bank_calls_total")
    took = change.mean("wallet_bank_call_duration_seconds")
    rows: list[Fact] = [
        ("breaker", Text(breaker or UNKNOWN, style=_breaker_style(breaker)), ""),
        ("calls/s", rate(calls), f"{duration(took)} each" if took else ""),
        ("incidents", Text(count(incidents), style=BAD if incidents else ""), ""),
        (
            "breaks",
            Text(count(breaks), style=BAD if breaks else ""),
            f"all wallets looked at {duration(round_age)} ago" if round_age is not None else "",
        ),
    ]
    return _panel("Bank and books", _facts(rows), 4)


def _breaker_style(breaker: str | None) -> str:
    return {None: FAINT, "closed": GOOD}.get(breaker, WATCH)


def _workers(look: Look) -> Part:
    table = Table(box=None, expand=True, pad_edge=False, header_style=FAINT)
    for heading in ("worker", "version", "up", "seen", "clock"):
        table.add_column(heading, no_wrap=True, overflow="ellipsis")
    for heading in ("in hand", "done", "failed"):
        table.add_column(heading, justify="right", no_wrap=True)
    workers = look.workers
    if not workers:
        said = Text(UNKNOWN, style=FAINT) if workers is None else Text("none", style=BAD)
        table.add_row(said)
        return _panel("Workers", table, 2)
    for worker in workers:
        silent_s = (look.at - worker.seen_at).total_seconds()
        failed = sum(worker.failed.values())
        table.add_row(
            f"{worker.host} {worker.pid}",
            worker.version,
            duration((look.at - worker.started_at).total_seconds()),
            Text(f"{duration(max(1.0, silent_s))} ago", style=WATCH if silent_s > _QUIET_WORKER_S else ""),
            _clock(worker),
            count(sum(worker.in_hand.values())),
            count(sum(worker.done.values())),
            Text(count(failed), style=WATCH if failed else ""),
        )
    return _panel("Workers", table, len(workers) + 1)


def _clock(worker: Worker) -> Text:
    """Ahead of MongoDB's or behind it."""
    difference_ms = worker.clock_difference_ms
    if difference_ms is None:
        return Text(UNKNOWN, style=FAINT)
    if abs(difference_ms) < _NOTICED_MS:
        return Text("right")
    sign = "+" if difference_ms > 0 else "-"
    return Text(f"{sign}{duration(abs(difference_ms) / 1000)}", style=BAD if worker.clock_is_off else WATCH)


def line(looks: Sequence[Look]) -> str:
    """For those without a terminal: one line for each look."""
    look = looks[-1]
    said = [f"{look.at:%Y-%m-%dT%H:%M:%SZ}"]
    if look.backlog is not None:
        for queue, state in look.backlog.queues.items():
            said.append(f"{queue.value}={state.due}/{state.rows} oldest={_age(look, state).replace(' ', '')}")
        said.append(f"dead={sum(look.backlog.dead_letters.values())}")
    if look.flow is not None:
        said.append(f"accepted/s={rate(look.flow.accepted)} settled/s={rate(look.flow.settled)}")
    said.append(f"workers={UNKNOWN if look.workers is None else len(look.workers)}")
    said.append(f"breaker={breaker_of(look) or UNKNOWN}")
    troubles = needs(look)
    said.append("all is well" if not troubles else "NEEDS SOMEBODY: " + ", ".join(text.plain for text in troubles))
    return "  ".join(said)
