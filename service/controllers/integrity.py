"""How the books are, over HTTP."""

from typing import Annotated, Any

from fastapi import Response
from pydantic import ConfigDict, Field

from service.controllers.answers import json_response
from service.controllers.dependencies import OpenResources, require
from service.controllers.routing import api_router
from service.controllers.schemas import TIME, PositiveSum, View
from service.domain.bank_lines import Flow, LineNote
from service.domain.breaks import BreakKind
from service.domain.clock import to_rfc3339
from service.domain.permissions import Permission
from service.domain.reconciliation import Reconciliation
from service.services.callers import Caller
from service.services.integrity import Doubt, Integrity, Rounds, look_at_integrity
from service.services.replay import Round

router = api_router("Admin", prefix="/admin")

_DAY = "2026-02-23"


class RoundView(View):
    """One pass over all wallets. `breaks` counts what it has seen, old breaks too."""

    number: int = Field(ge=1, examples=[360])
    started_at: str = TIME
    finished_at: str | None = Field(json_schema_extra={"format": "date-time"}, examples=["2026-02-24T12:34:56.789Z"])
    wallets: int = Field(ge=0, examples=[100000])
    entries: int = Field(ge=0, description="How many were read anew", examples=[18250])
    slices: int = Field(ge=0, examples=[201])
    breaks: int = Field(ge=0, examples=[0])
    busy_ms: int = Field(ge=0, description="How much of its time was work", examples=[9120])


class ReplayView(View):
    """`last` is the last round that is over, `current` the one that goes on; null before the first one."""

    last: RoundView | None
    current: RoundView | None
    age_s: float | None = Field(ge=0, description="Since the last one was over", examples=[131.2])


class DayTotalView(View):
    """What went one way in one currency, in minor units, by the bank's statement and by our books."""

    flow: Flow
    currency: str = Field(examples=["INR"])
    bank: PositiveSum = Field(examples=[1250000])
    ours: PositiveSum = Field(examples=[1250000])


class DayView(View):
    """One day (UTC) compared. Around midnight the two sides may have one payment on two days, which is no break."""

    day: str = Field(examples=[_DAY])
    first_compared_at: str = TIME
    compared_at: str = TIME
    comparisons: int = Field(ge=1, examples=[4])
    lines: int = Field(ge=0, description="In the bank's statement", examples=[512])
    ours: int = Field(ge=0, description="Entries of ours with the bank", examples=[512])
    totals: list[DayTotalView]
    breaks: dict[BreakKind, int] = Field(description="Seen in the last comparison", examples=[{"missing_there": 1}])
    notes: dict[LineNote, int] = Field(
        description="Payments in parts that add up, and corrections by the bank: they need nobody",
        examples=[{"paid_in_parts": 1}],
    )
    set_aside: int = Field(ge=0, description="Lines of its statement that cannot be read", examples=[0])


class CheckpointSummaryView(View):
    number: int = Field(ge=1, examples=[17])
    created_at: str = TIME
    wallets: int = Field(ge=0, examples=[1042])


class BalancedView(View):
    as_of: str = TIME
    is_balanced: bool


_EXAMPLE: dict[str, Any] = {
    "is_sound": True,
    "doubts": [],
    "replay": {
        "last": {
            "number": 360,
            "started_at": "2026-02-24T12:28:45.589Z",
            "finished_at": "2026-02-24T12:32:45.589Z",
            "wallets": 100000,
            "entries": 18250,
            "slices": 201,
            "breaks": 0,
            "busy_ms": 9120,
        },
        "current": None,
        "age_s": 131.2,
    },
    "days": [
        {
            "day": _DAY,
            "first_compared_at": "2026-02-24T02:00:12.345Z",
            "compared_at": "2026-02-24T08:00:40.123Z",
            "comparisons": 2,
            "lines": 512,
            "ours": 512,
            "totals": [{"flow": "payout", "currency": "INR", "bank": 1250000, "ours": 1250000}],
            "breaks": {},
            "set_aside": 0,
            "notes": {"paid_in_parts": 1},
        }
    ],
    "days_overdue": [],
    "lines_set_aside": 0,
    "breaks": dict.fromkeys((kind.value for kind in BreakKind), 0),
    "trial_balance": {"as_of": "2026-02-24T12:34:56.789Z", "is_balanced": True},
    "last_checkpoint": {"number": 17, "created_at": "2026-02-24T12:00:00.000Z", "wallets": 100000},
}


class IntegrityView(View):
    """`is_sound`: no break of our own books is unresolved, the trial balance is balanced, no day is overdue and no line
    of a statement was set aside without a word on why; `doubts` names what is not so.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    is_sound: bool
    doubts: list[Doubt] = Field(description="Why it is not sound; empty where it is")
    replay: ReplayView
    days: list[DayView] = Field(description="Compared last, the latest first")
    days_overdue: list[str] = Field(
        description="Should have been compared and were not, the oldest first", examples=[[]]
    )
    lines_set_aside: int = Field(
        ge=0,
        description="Lines of statements that cannot be read: each is a break of kind `line_set_aside`",
        examples=[0],
    )
    breaks: dict[BreakKind, int] = Field(description="Those that are not resolved, by kind")
    trial_balance: BalancedView
    last_checkpoint: CheckpointSummaryView | None


@router.get(
    "/integrity",
    response_model=IntegrityView,
    summary="How the books are, at a glance",
    description="The replay of logs against wallets, days compared with the bank, breaks, the trial balance and the "
    "last checkpoint.",
)
async def get_integrity(
    _user: Annotated[Caller, require(Permission.LEDGER_ADMIN)], resources: OpenResources
) -> Response:
    integrity = await look_at_integrity(resources.databases.client, resources.settings)
    return json_response(integrity_view(integrity))


def integrity_view(integrity: Integrity) -> dict[str, Any]:
    checkpoint = integrity.checkpoint
    return {
        "is_sound": integrity.is_sound,
        "doubts": integrity.doubts,
        "replay": _replay_view(integrity.rounds),
        "days": [_day_view(day) for day in integrity.days],
        "days_overdue": [day.isoformat() for day in integrity.overdue],
        "lines_set_aside": integrity.set_aside,
        "breaks": {kind.value: count for kind, count in integrity.breaks.items()},
        "trial_balance": {
            "as_of": to_rfc3339(integrity.trial_balance.as_of),
            "is_balanced": integrity.trial_balance.is_balanced,
        },
        "last_checkpoint": None
        if checkpoint is None
        else {
            "number": checkpoint.number,
            "created_at": to_rfc3339(checkpoint.created_at),
            "wallets": checkpoint.wallets,
        },
    }


def _replay_view(rounds: Rounds) -> dict[str, Any]:
    return {"last": _round_view(rounds.last), "current": _round_view(rounds.current), "age_s": rounds.age_s}


def _round_view(one: Round | None) -> dict[str, Any] | None:
    if one is None:
        return None
    view = one._asdict()
    # How far it is within the wallets is nobody's business.
    del view["position"]
    finished_at = None if one.finished_at is None else to_rfc3339(one.finished_at)
    return view | {"started_at": to_rfc3339(one.started_at), "finished_at": finished_at}


def _day_view(day: Reconciliation) -> dict[str, Any]:
    return day._asdict() | {
        "first_compared_at": to_rfc3339(day.first_compared_at),
        "compared_at": to_rfc3339(day.compared_at),
        "totals": [total._asdict() for total in day.totals],
    }
