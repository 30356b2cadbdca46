"""Time as the service keeps it: UTC with milliseconds, which is what BSON can hold."""

from datetime import UTC, datetime


def utc_now() -> datetime:
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


def to_rfc3339(moment: datetime) -> str:
    """RFC 3339 with milliseconds and Z: 2026-02-24T12:34:56.789Z."""
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"
