"""Numbers that every reader of JSON carries exactly: all answers that tests get are held against it."""

import json
from typing import Any

import httpx

_LARGEST = 2**53 - 1


def parse_exactly(text: str | bytes) -> Any:
    """JSON, read as a reader would that keeps numbers as doubles: one that it would change is refused."""
    return json.loads(text, parse_int=_exact)


def _exact(digits: str) -> int:
    assert abs(int(digits)) <= _LARGEST, f"a reader may change {digits}"
    return int(digits)


async def require_exact_numbers(answer: httpx.Response) -> None:
    """For every JSON answer of whatever route; streams are left alone, which would never end."""
    media_type = answer.headers.get("content-type", "")
    if media_type.startswith(("application/json", "application/problem+json")):
        body = await answer.aread()
        if body:
            parse_exactly(body)
