"""Ids: a prefix that tells the kind, and a UUIDv7 (RFC 9562) in hex, so that they sort by time."""

from enum import StrEnum

from uuid_utils import uuid7


class Prefix(StrEnum):
    USER = "usr"
    WALLET = "wal"
    DEPOSIT = "dep"
    WITHDRAWAL = "wdr"
    ENTRY = "ent"
    TRANSACTION = "txn"


def new_id(prefix: Prefix) -> str:
    return f"{prefix.value}_{uuid7().hex}"
