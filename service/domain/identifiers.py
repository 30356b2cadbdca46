"""Ids: a prefix that tells the kind, and a UUIDv7 (RFC 9562) in hex, so that they sort by time."""

import re
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import NamedTuple, Self

from uuid_utils import uuid7

# A UUIDv7 begins with the Unix time in milliseconds, in 48 bits.
_TIME_DIGITS = 12
_ID = re.compile(rf"[a-z]{{3}}_([0-9a-f]{{{_TIME_DIGITS}}})[0-9a-f]{{20}}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Prefix(StrEnum):
    USER = "usr"
    WALLET = "wal"
    USER_LIMITS = "ulm"
    DAY_SUM = "dsm"
    DEPOSIT = "dep"
    WITHDRAWAL = "wdr"
    TRANSFER = "trf"
    TRANSFER_BATCH = "tbt"
    ADJUSTMENT = "adj"
    HOLD = "hld"
    REVERSAL = "rev"
    RETURN = "rtn"
    INCIDENT = "inc"
    QUOTE = "quo"
    CONVERSION = "cnv"
    REWARD = "rwd"
    VOUCHER = "vch"
    REDEMPTION = "rdm"
    VOUCHER_USE = "vcu"
    AUDIT_EVENT = "aud"
    API_KEY = "key"
    PROPOSAL = "prp"
    SESSION = "ses"
    BREAK = "brk"
    PASSWORD_RESET = "pwr"  # noqa: S105 a name
    REGISTRATION = "reg"
    DEAD_LETTER = "dlq"
    WORKER = "wkr"
    ENTRY = "ent"
    TRANSACTION = "txn"
    EVENT = "evt"
    WEBHOOK_ENDPOINT = "whe"
    WEBHOOK_DELIVERY = "whd"


def new_id(prefix: Prefix) -> str:
    return f"{prefix.value}_{uuid7().hex}"


def first_id_at(prefix: Prefix, moment: datetime) -> str:
    """Where ids begin that are made at this moment or later: ids made before are smaller, all others are not."""
    return f"{prefix.value}_{(moment - _EPOCH) // timedelta(milliseconds=1):0{_TIME_DIGITS}x}"


def made_at(identifier: str) -> datetime | None:
    """Returns when the id was made; None for one that no `new_id` has made."""
    parts = _ID.fullmatch(identifier)
    try:
        return None if parts is None else _EPOCH + timedelta(milliseconds=int(parts[1], 16))
    except OverflowError:
        return None


class IdWindow(NamedTuple):
    """The time in which an id may have been made: from `first` up to, but without, `end`."""

    first: str
    end: str
    moment: datetime

    @classmethod
    def around(cls, prefix: Prefix, moment: datetime, *, before: timedelta, after: timedelta) -> Self:
        return cls(first_id_at(prefix, moment - before), first_id_at(prefix, moment + after), moment)

    def admit(self, identifier: str) -> str:
        """The id itself, or where its time lies outside, the same id with the time of `moment`.

        Its 74 random bits stay, so it is as unique as before, and the same id always becomes the same new one.
        """
        if self.first <= identifier < self.end:
            return identifier
        if not _ID.fullmatch(identifier):
            raise ValueError(f"{identifier} tells no time")
        prefix, _, digits = identifier.partition("_")
        return first_id_at(Prefix(prefix), self.moment) + digits[_TIME_DIGITS:]
