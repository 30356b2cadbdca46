"""Checks audit events: each deed has its event, and each event its deed.

Written out a second time like `ledger_rules`, and for the same reason. An event carries who did what, why and how much;
the record that the deed left carries it too, so that neither can be changed, made up or taken away alone.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

from scripts.record_rules import Row

EVENT_FIELDS: Final = ("_id", "action", "actor_id", "subject_id", "reason", "details")
RECORD_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "adjustments": ("requested_by", "decided_by", "reason", "rejection_reason", "reversal_id"),
    "transfers": ("reversal_id",),
    "reversals": ("original_id", "requested_by", "reason", "is_forced"),
    "returns": ("decided_by",),
    "deposits": ("failure_code",),
    "holds": ("user_id", "ended_by"),
    "withdrawals": ("failure_code", "release"),
}
REVERSAL_FIELDS: Final = (
    "_id",
    "original_id",
    "amount",
    "shortfall",
    "currency",
    "reason",
    "is_forced",
    "requested_by",
)
# Whose subjects an inspection looks at record by record; wallets are looked at by themselves.
SUBJECTS: Final = "^(adj|dep|hld|rtn|trf|wdr)_"

_FAILED_IN_REVIEW: Final = "failed_in_review"
_CANCELED_BY_ADMIN: Final = "canceled_by_admin"
_LIMITS: Final = ("per_transaction", "per_day", "per_month", "count_per_hour")
# Says which blocks a release overrides.
_OVERRIDDEN: Final = ("despite_freeze", "despite_deactivation", "freeze_event_id", "deactivation_event_id")
# Lists what `limits.set` tells: the limits, and the zone of their days and months.
_LIMITS_TOLD: Final = (*_LIMITS, "time_zone")
_USUAL_LIMITS: Final = (None,) * len(_LIMITS_TOLD)
# How a wallet is after an action: its status, and which way it is shut where the event says so.
_STATUS_AFTER: Final[Mapping[str, str]] = {
    "wallet.frozen": "frozen",
    "wallet.unfrozen": "active",
    "wallet.closed": "closed",
    "wallet.reopened": "active",
}


class AuditRule(StrEnum):
    """Names of the rules, as a breach shows them."""

    MISSING = "audit_missing"
    SURPLUS = "audit_surplus"
    MISMATCH = "audit_mismatch"
    REVERSAL_LINK = "reversal_link"


Found = tuple[AuditRule, str]
"""A rule that does not hold, and what stands there instead."""


def check_deeds(collection: str | None, record: Row | None, events: Sequence[Row]) -> Iterator[Found]:
    """Compares one record with the audit events about it. Without a record there may be none."""
    if record is None or collection is None:
        if events:
            yield AuditRule.SURPLUS, f"{_named(events)} of what does not exist"
        return
    match collection:
        case "adjustments":
            yield from _check_adjustment(record, events)
        case "transfers":
            yield from _check_one("transfer.reversed", record.get("reversal_id") is not None, events, {})
        case "returns":
            decided_by = record.get("decided_by")
            collected = [event for event in events if event.get("action") == "return.collected"]
            if decided_by is not None and decided_by not in {event.get("actor_id") for event in collected}:
                yield AuditRule.MISSING, f"decided by {decided_by} without return.collected"
            if decided_by is None and collected:
                yield AuditRule.SURPLUS, f"{_named(collected)}, and nobody has decided"
        case "holds":
            yield from _check_hold_end(record, events)
        case "deposits" | "withdrawals":
            yield from _check_review(record, events)
        case _:
            return


def _check_adjustment(record: Row, events: Sequence[Row]) -> Iterator[Found]:
    movement = {f"details.{name}": record.get(name) for name in ("type", "wallet_id", "amount", "currency")}
    asked = {"actor_id": record.get("requested_by"), "reason": record.get("reason"), **movement}
    yield from _check_one("adjustment.requested", True, events, asked)
    requests = [event for event in events if event.get("action") == "adjustment.requested"]
    waited = bool(requests) and _value(requests[0], "details.status") == "requires_approval"
    status, decided_by = record.get("status"), record.get("decided_by")
    decided = {"actor_id": decided_by, **movement}
    yield from _check_one("adjustment.approved", waited and status == "success", events, decided)
    rejected = {**decided, "reason": record.get("rejection_reason")}
    yield from _check_one("adjustment.rejected", status == "rejected", events, rejected)
    if status == "success" and requests and not waited and decided_by != record.get("requested_by"):
        detail = f"made at once, and decided by {decided_by} instead of {record.get('requested_by')}"
        yield AuditRule.MISMATCH, detail
    yield from _check_one("adjustment.reversed", record.get("reversal_id") is not None, events, {})


def _check_review(record: Row, events: Sequence[Row]) -> Iterator[Found]:
    """Requires an event of each review that a person ended. One that the bank ended needs none."""
    amounts = {f"details.{name}": record.get(name) for name in ("amount", "currency")}
    is_failed = record.get("failure_code") == _FAILED_IN_REVIEW
    yield from _check_one("review.failed", is_failed, events, amounts)
    settled = [event for event in events if event.get("action") == "review.settled"]
    if settled and record.get("status") != "success":
        yield AuditRule.SURPLUS, f"{_named(settled)}, in {record.get('status')}"
    is_canceled = record.get("failure_code") == _CANCELED_BY_ADMIN
    yield from _check_one("withdrawal.canceled", is_canceled, events, amounts)
    yield from _check_release(record.get("release"), events)


def _check_hold_end(record: Row, events: Sequence[Row]) -> Iterator[Found]:
    """Requires an event where anybody but the payer ended a hold, also where the hold had expired when it was asked."""
    ended_by, status = record.get("ended_by"), record.get("status")
    is_by_another = ended_by is not None and ended_by != record.get("user_id")
    who = {"actor_id": ended_by, "details.status": status, "details.amount": record.get("amount")}
    captured = {**who, "details.captured_amount": record.get("captured_amount")}
    yield from _check_one("hold.captured", is_by_another and status == "captured", events, captured)
    released = [event for event in events if event.get("action") == "hold.released"]
    if status != "expired" or len(released) > 1:
        yield from _check_one("hold.released", is_by_another and status == "released", events, who)


def _check_release(release: Any, events: Sequence[Row]) -> Iterator[Found]:  # noqa: ANN401 a corrupt one may be anything
    """A withdrawal may be blocked and released more than once, and shows the last time.

    It goes out despite the blocks that its release names, so that one of the events has to name the same.
    """
    released = [event for event in events if event.get("action") == "withdrawal.released"]
    by = release.get("by") if isinstance(release, dict) else None
    theirs = [event for event in released if event.get("actor_id") == by]
    if by is not None and not theirs:
        yield AuditRule.MISSING, f"released by {by} without withdrawal.released"
    elif by is not None and not any(_tells_release(event, release) for event in theirs):
        yield AuditRule.MISMATCH, f"released by {by} despite other blocks than withdrawal.released says"
    if by is None and released:
        yield AuditRule.SURPLUS, f"{_named(released)}, and nobody has released it"


def _tells_release(event: Row, release: Row) -> bool:
    """Whether the event names the blocks that the release overrides. One of an earlier version names fewer facts."""
    details = event.get("details") or {}
    return all(details[name] == release.get(name) for name in _OVERRIDDEN if name in details)


def _check_one(action: str, is_due: bool, events: Sequence[Row], wanted: Mapping[str, Any]) -> Iterator[Found]:
    """There is one event of that action where it is due, with what the record says, and else none."""
    found = [event for event in events if event.get("action") == action]
    if is_due and not found:
        yield AuditRule.MISSING, f"without {action}"
    if len(found) > int(is_due):
        yield AuditRule.SURPLUS, f"with {action} {len(found)} times instead of {int(is_due)}"
    for event in found[: int(is_due)]:
        for name, value in wanted.items():
            if _value(event, name) != value:
                detail = f"{action} says {name} {_value(event, name)!r}, the record {value!r}"
                yield AuditRule.MISMATCH, detail


def check_reversals(
    original_id: str, original: Row | None, reversals: Sequence[Row], events: Sequence[Row]
) -> Iterator[Found]:
    """Checks reversals of one original: it exists, both name each other, and the event says the same."""
    named = None if original is None else original.get("reversal_id")
    for reversal in reversals:
        if original is None:
            yield AuditRule.REVERSAL_LINK, f"{reversal.get('_id')} reverses {original_id}, which does not exist"
        elif named != reversal.get("_id"):
            yield AuditRule.REVERSAL_LINK, f"{reversal.get('_id')} reverses it, and it names {named}"
        elif original.get("amount") != reversal.get("amount") or original.get("currency") != reversal.get("currency"):
            amount, currency = reversal.get("amount"), reversal.get("currency")
            yield AuditRule.REVERSAL_LINK, f"{reversal.get('_id')} is of {amount} {currency}, another amount"
    if named is not None and named not in {reversal.get("_id") for reversal in reversals}:
        yield AuditRule.REVERSAL_LINK, f"it names {named}, which does not exist or reverses something else"
    for reversal in reversals:
        said = [event for event in events if str(event.get("action")).endswith(".reversed")]
        wanted = {
            "actor_id": reversal.get("requested_by"),
            "reason": reversal.get("reason"),
            "details.reversal_id": reversal.get("_id"),
            "details.amount": reversal.get("amount"),
            "details.currency": reversal.get("currency"),
            "details.shortfall": reversal.get("shortfall"),
            "details.force": reversal.get("is_forced"),
        }
        for event in said[:1]:
            for name, value in wanted.items():
                if _value(event, name) != value:
                    detail = f"{event.get('action')} says {name} {_value(event, name)!r}, the reversal {value!r}"
                    yield AuditRule.MISMATCH, detail


def check_wallet_deeds(wallets: Sequence[Row], events: Sequence[Row]) -> Iterator[Found]:
    """Compares freezes and own limits of wallets with the events about them.

    Each event says what was before it and what is after it. They lead from the first state to the current one exactly
    if each state is left as often as it is reached, but for the first and the last; so their order does not matter.
    """
    if not wallets:
        if events:
            yield AuditRule.SURPLUS, f"{_named(events)} of what does not exist"
        return
    wallet = wallets[0]
    lives = [(_status_before(one), _status_after(one)) for one in events if one.get("action") in _STATUS_AFTER]
    now = str(wallet.get("status")), _text(wallet.get("freeze"))
    yield from check_path("status", lives, ("active", None), now)
    yield from _check_freeze_event(wallet.get("freeze_event_id"), now, events)
    changes = [
        (_limits_of(one, "was_"), _limits_of(one, "") if one.get("action") == "limits.set" else _USUAL_LIMITS)
        for one in events
        if one.get("action") in ("limits.set", "limits.reset")
    ]
    own = wallet.get("limits") or {}
    last = (*(own.get(name) for name in _LIMITS), wallet.get("time_zone"))
    yield from check_path("limits", changes, _USUAL_LIMITS, last)


def check_path(what: str, steps: Sequence[tuple[Any, Any]], first: object, last: object) -> Iterator[Found]:
    """Follows the events, each from the state before it to the state after it, from the first state to the last."""
    reached = Counter([first])
    reached.update(after for _, after in steps)
    left = Counter([last])
    left.update(before for before, _ in steps)
    if reached != left:
        unexplained = sorted(map(str, reached - left)), sorted(map(str, left - reached))
        detail = f"its {what} is {last}, and {len(steps)} events do not lead there: {unexplained[0]} is not left, "
        yield AuditRule.MISSING, f"{detail}{unexplained[1]} is not reached"


def _check_freeze_event(named: object, now: tuple[str, str | None], events: Sequence[Row]) -> Iterator[Found]:
    """A release goes by the event of the freeze. Wallets that an earlier version froze name none."""
    leading = [one.get("_id") for one in events if one.get("action") in _STATUS_AFTER and _status_after(one) == now]
    if named is not None and (now[0] != "frozen" or named not in leading):
        yield AuditRule.MISSING, f"it is {now}, and its freeze is {named}, which does not lead there"


def _status_before(event: Row) -> tuple[str, str | None]:
    return str(_value(event, "details.was_status")), _text(_value(event, "details.was_direction"))


def _status_after(event: Row) -> tuple[str, str | None]:
    direction = _text(_value(event, "details.direction"))
    # One that has something to book when it is reopened is frozen at once.
    return _STATUS_AFTER[str(event.get("action"))] if direction is None else "frozen", direction


def _limits_of(event: Row, prefix: str) -> tuple[Any, ...]:
    return tuple(_value(event, f"details.{prefix}{name}") for name in _LIMITS_TOLD)


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _value(event: Row, name: str) -> Any:  # noqa: ANN401 whatever stands there
    outer, _, inner = name.partition(".")
    value = event.get(outer)
    if not inner:
        return value
    return value.get(inner) if isinstance(value, dict) else None


def _named(events: Sequence[Row]) -> str:
    return ", ".join(sorted({str(event.get("action")) for event in events}))
