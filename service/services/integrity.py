"""How the books are, at a glance: the replay's rounds, days compared, breaks, the trial balance, checkpoints."""

from datetime import date
from enum import StrEnum
from typing import NamedTuple

from service.database import Client
from service.domain.breaks import BOOK_KINDS, BreakKind, BreakState
from service.domain.checkpoints import Checkpoint
from service.domain.clock import utc_now
from service.domain.reconciliation import Reconciliation
from service.repositories import breaks as break_repository
from service.repositories import checkpoints as checkpoint_repository
from service.repositories import duties as duty_repository
from service.repositories import reconciliations as reconciliation_repository
from service.repositories import statement_lines as line_repository
from service.repositories.breaks import BreakFilter
from service.services import replay
from service.services.breaks import count_unresolved_breaks
from service.services.reconciliation import find_watched_days
from service.services.replay import Round, round_in
from service.services.trial_balance import TrialBalance, draw_up_trial_balance
from service.settings import Settings

# A week.
_DAYS_SHOWN = 7
# Prometheus keeps a time series for each value of a label, so a date must not be one.
_DAYS_AGO_SHOWN = 31


class Rounds(NamedTuple):
    """The replay's last round that is over, and the one that goes on. `age_s` is how long ago the last one ended."""

    last: Round | None
    current: Round | None
    age_s: float | None


class Doubt(StrEnum):
    """Why the books do not count as sound."""

    BOOKS_DISAGREE = "books_disagree"
    TRIAL_BALANCE = "trial_balance"
    # A day should have been compared and was not, so what the bank has moved on it is unknown.
    DAYS_OVERDUE = "days_overdue"
    # A line of a statement cannot be read, and nobody has explained it yet.
    LINES_SET_ASIDE = "lines_set_aside"


class Integrity(NamedTuple):
    rounds: Rounds
    days: list[Reconciliation]
    # Those that should have been compared and were not, the oldest first.
    overdue: list[date]
    # Of all days, as their last statements have them.
    set_aside: int
    # Whether any of them is a break that is open.
    has_unexplained_lines: bool
    # By kind, those that have none too.
    breaks: dict[BreakKind, int]
    trial_balance: TrialBalance
    checkpoint: Checkpoint | None

    @property
    def doubts(self) -> list[Doubt]:
        found = {
            Doubt.BOOKS_DISAGREE: any(self.breaks[kind] for kind in BOOK_KINDS),
            Doubt.TRIAL_BALANCE: not self.trial_balance.is_balanced,
            Doubt.DAYS_OVERDUE: bool(self.overdue),
            Doubt.LINES_SET_ASIDE: self.has_unexplained_lines,
        }
        return [doubt for doubt, applies in found.items() if applies]

    @property
    def is_sound(self) -> bool:
        """Our own books agree, and what is to be compared with the bank was. What the bank says differently on a day
        that was compared is a matter of days, and counted in `breaks`.
        """
        return not self.doubts


async def look_at_integrity(client: Client, settings: Settings) -> Integrity:
    """Reads what is known, and draws up the trial balance; looks at no wallet."""
    now = utc_now()
    watched = await find_watched_days(settings, now)
    open_lines = BreakFilter(state=BreakState.OPEN, kind=BreakKind.LINE_SET_ASIDE)
    return Integrity(
        await find_rounds(),
        await reconciliation_repository.find_last(_DAYS_SHOWN),
        [one.day for one in watched if one.is_overdue(now)],
        await line_repository.count_set_aside(),
        bool(await break_repository.find_newest(open_lines, before_id=None, limit=1)),
        await count_unresolved_breaks(),
        await draw_up_trial_balance(client),
        await checkpoint_repository.find_latest(),
    )


class DaysWatched(NamedTuple):
    """For metrics. `ages_s` has the seconds since a day's last comparison, by how many days ago the day was. Days that
    are further back than a month share the key `older`, with the largest age.
    """

    ages_s: dict[str, float]
    overdue: int
    set_aside: int


async def find_days_watched(settings: Settings) -> DaysWatched:
    now = utc_now()
    watched = await find_watched_days(settings, now)
    ages_s: dict[str, float] = {}
    for one in watched:
        days_ago = (now.date() - one.day).days
        label = str(days_ago) if days_ago <= _DAYS_AGO_SHOWN else "older"
        ages_s[label] = max(ages_s.get(label, 0.0), one.age(now).total_seconds())
    overdue = sum(one.is_overdue(now) for one in watched)
    return DaysWatched(ages_s, overdue, await line_repository.count_set_aside())


async def find_rounds() -> Rounds:
    """For metrics too: one read of one document."""
    progress = await duty_repository.find_progress(replay.DUTY)
    last = round_in(progress.get("last"))
    ended_at = None if last is None else last.finished_at
    age_s = None if ended_at is None else max(0.0, (utc_now() - ended_at).total_seconds())
    return Rounds(last, round_in(progress.get("current")), age_s)
