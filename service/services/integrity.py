"""How the books are, at a glance: the replay's rounds, days compared, breaks, the trial balance, checkpoints."""

from typing import NamedTuple

from service.database import Client
from service.domain.breaks import BOOK_KINDS, BreakKind
from service.domain.checkpoints import Checkpoint
from service.domain.clock import utc_now
from service.domain.reconciliation import Reconciliation
from service.repositories import checkpoints as checkpoint_repository
from service.repositories import duties as duty_repository
from service.repositories import reconciliations as reconciliation_repository
from service.services import replay
from service.services.breaks import count_unresolved_breaks
from service.services.replay import Round, round_in
from service.services.trial_balance import TrialBalance, draw_up_trial_balance

# A week.
_DAYS_SHOWN = 7


class Rounds(NamedTuple):
    """The replay's last round that is over, and the one that goes on. `age_s` is how long ago the last one ended."""

    last: Round | None
    current: Round | None
    age_s: float | None


class Integrity(NamedTuple):
    rounds: Rounds
    days: list[Reconciliation]
    # By kind, those that have none too.
    breaks: dict[BreakKind, int]
    trial_balance: TrialBalance
    checkpoint: Checkpoint | None

    @property
    def is_sound(self) -> bool:
        """As far as our own books go: what the bank says differently is a matter of days."""
        return self.trial_balance.is_balanced and not any(self.breaks[kind] for kind in BOOK_KINDS)


async def look_at_integrity(client: Client) -> Integrity:
    """Reads what is known, and draws up the trial balance; looks at no wallet."""
    return Integrity(
        await find_rounds(),
        await reconciliation_repository.find_last(_DAYS_SHOWN),
        await count_unresolved_breaks(),
        await draw_up_trial_balance(client),
        await checkpoint_repository.find_latest(),
    )


async def find_rounds() -> Rounds:
    """For metrics too: one read of one document."""
    progress = await duty_repository.find_progress(replay.DUTY)
    last = round_in(progress.get("last"))
    ended_at = None if last is None else last.finished_at
    age_s = None if ended_at is None else max(0.0, (utc_now() - ended_at).total_seconds())
    return Rounds(last, round_in(progress.get("current")), age_s)
