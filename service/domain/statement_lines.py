"""One line of a bank's statement: read where it can be read, set aside with its reason where it cannot.

Pure: whatever a gateway hands over comes in, and no value of it raises.
"""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Any, Final, NamedTuple

from service.domain.bank_lines import BankLine, Flow
from service.domain.breaks import BreakKind, Finding
from service.domain.money import MAX_AMOUNT_MINOR, is_currency

# A remittance text of SEPA has 140 characters; MongoDB's index would take more, and nobody would read it.
_TEXT_LIMIT: Final = 256
# Of a line that is set aside: enough to find it in the bank's own statement.
_RAW_LIMIT: Final = 1_000
_FIELD_LIMIT: Final = 120
_DIGEST_DIGITS: Final = 16
_FIELDS: Final = ("reference", "kind", "is_return", "amount", "currency", "bank_reference", "booked_at")
_MISSING: Final = object()
# Where an object lies in memory differs from import to import, and says nothing.
_ADDRESS: Final = re.compile(r" at 0x[0-9a-fA-F]+")
_FLOWS: Final = {
    ("payout", False): Flow.PAYOUT,
    ("collection", False): Flow.COLLECTION,
    ("payout", True): Flow.RETURNED_PAYOUT,
    ("collection", True): Flow.RETURNED_COLLECTION,
}


class SetAsideReason(StrEnum):
    """Why a line cannot be compared."""

    FIELD_MISSING = "field_missing"
    REFERENCE_UNREADABLE = "reference_unreadable"
    KIND_UNKNOWN = "kind_unknown"
    AMOUNT_UNREADABLE = "amount_unreadable"
    # Nothing has moved, or less than nothing: money that comes back has a kind of its own.
    AMOUNT_NOT_POSITIVE = "amount_not_positive"
    AMOUNT_TOO_LARGE = "amount_too_large"
    CURRENCY_UNKNOWN = "currency_unknown"
    BANK_REFERENCE_UNREADABLE = "bank_reference_unreadable"
    TIME_UNREADABLE = "time_unreadable"


class ReadLine(NamedTuple):
    """A line that can be compared. `bank_reference` is empty where the bank gives none."""

    line: BankLine
    bank_reference: str


class SetAsideLine(NamedTuple):
    """A line that cannot be compared. `raw` is what the bank handed over, as text and cut short."""

    reason: SetAsideReason
    raw: str

    @property
    def digest(self) -> str:
        """The same in every import of the same line."""
        return sha256(f"{self.reason}:{self.raw}".encode()).hexdigest()[:_DIGEST_DIGITS]


def set_aside_finding(name: str, line: SetAsideLine, day: str) -> Finding:
    """Returns the finding that tells people of a line that is set aside. `name` is the line's own."""
    return Finding(BreakKind.LINE_SET_ASIDE, name, {}, {"reason": line.reason.value, "line": line.raw}, day=day)


def read_line(given: object) -> ReadLine | SetAsideLine:
    """Returns the line, or why it cannot be compared: the first reason in the order of `SetAsideReason`."""
    fields = {name: _field(given, name) for name in _FIELDS}
    # Not every gateway tells fees apart.
    fields["is_fee"] = _field(given, "is_fee") is True
    reason = _reason_against(fields)
    if reason is not None:
        return SetAsideLine(reason, _raw_of(given, fields))
    flow = Flow.FEE if fields["is_fee"] else _FLOWS[fields["kind"], fields["is_return"]]
    reference = fields["reference"] or f"fee/{fields['bank_reference']}"
    line = BankLine(reference, flow, fields["amount"], fields["currency"], fields["booked_at"])
    return ReadLine(line, fields["bank_reference"])


def _field(given: object, name: str) -> Any:  # noqa: ANN401 a gateway may hand over anything
    try:
        return getattr(given, name, _MISSING)
    except Exception:  # noqa: BLE001 one that cannot even be read is as good as missing
        return _MISSING


def _reason_against(fields: Mapping[str, Any]) -> SetAsideReason | None:
    if any(value is _MISSING for value in fields.values()):
        return SetAsideReason.FIELD_MISSING
    return next((reason for reason, is_readable in _CHECKS if not is_readable(fields)), None)


def _has_reference(fields: Mapping[str, Any]) -> bool:
    return _is_text(fields["reference"]) and (bool(fields["reference"]) or fields["is_fee"])


def _has_kind(fields: Mapping[str, Any]) -> bool:
    kind, is_return = fields["kind"], fields["is_return"]
    if not isinstance(kind, str) or not isinstance(is_return, bool) or (kind, is_return) not in _FLOWS:
        return False
    return not fields["is_fee"] or _FLOWS[kind, is_return] is Flow.PAYOUT


def _has_whole_amount(fields: Mapping[str, Any]) -> bool:
    # True and False are integers too.
    return type(fields["amount"]) is int


def _has_currency(fields: Mapping[str, Any]) -> bool:
    return isinstance(fields["currency"], str) and is_currency(fields["currency"])


def _has_time(fields: Mapping[str, Any]) -> bool:
    # One without a zone could be of another day.
    return isinstance(fields["booked_at"], datetime) and fields["booked_at"].utcoffset() is not None


# The order matters: each check relies on those before it.
_CHECKS: Final[tuple[tuple[SetAsideReason, Callable[[Mapping[str, Any]], bool]], ...]] = (
    (SetAsideReason.REFERENCE_UNREADABLE, _has_reference),
    (SetAsideReason.KIND_UNKNOWN, _has_kind),
    (SetAsideReason.AMOUNT_UNREADABLE, _has_whole_amount),
    (SetAsideReason.AMOUNT_NOT_POSITIVE, lambda fields: fields["amount"] > 0),
    (SetAsideReason.AMOUNT_TOO_LARGE, lambda fields: fields["amount"] <= MAX_AMOUNT_MINOR),
    (SetAsideReason.CURRENCY_UNKNOWN, _has_currency),
    (SetAsideReason.BANK_REFERENCE_UNREADABLE, lambda fields: _is_text(fields["bank_reference"])),
    (SetAsideReason.TIME_UNREADABLE, _has_time),
)


def _is_text(value: object) -> bool:
    """Tells whether it is text, short enough to be kept, that UTF-8 can encode."""
    if not isinstance(value, str) or len(value) > _TEXT_LIMIT:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _raw_of(given: object, fields: Mapping[str, Any]) -> str:
    if all(value is _MISSING for value in fields.values()):
        return _shown(given, _RAW_LIMIT)
    told = ", ".join(f"{name}={_shown(value, _FIELD_LIMIT)}" for name, value in fields.items() if value is not _MISSING)
    return told[:_RAW_LIMIT]


def _shown(value: object, limit: int) -> str:
    try:
        text = _ADDRESS.sub("", repr(value))
    except Exception:  # noqa: BLE001 an object of a gateway may do anything when it is asked for its text
        text = f"<{type(value).__name__}>"
    return text.encode(errors="backslashreplace").decode()[:limit]
