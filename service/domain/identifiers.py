"""Ids: a prefix that tells the kind, and a UUIDv7 (RFC 9562) in hex, so that they sort by time."""

from enum import StrEnum

from uuid_utils import uuid7


class Prefix(StrEnum):
    USER = "usr"
    WALLET = "wal"
    DEPOSIT = "dep"
    WITHDRAWAL = "wdr"
    TRANSFER = "trf"
    TRANSFER_BATCH = "tbt"
    ADJUSTMENT = "adj"
    HOLD = "hld"
    REVERSAL = "rev"
    QUOTE = "quo"
    CONVERSION = "cnv"
    REWARD = "rwd"
    VOUCHER = "vch"
    REDEMPTION = "rdm"
    AUDIT_EVENT = "aud"
    ENTRY = "ent"
    TRANSACTION = "txn"


def new_id(prefix: Prefix) -> str:
    return f"{prefix.value}_{uuid7().hex}"
