"""JSON whose numbers every reader carries exactly.

Amounts, balances and counts stay within 2^53 - 1 by rule. Sums over many of them, and damaged documents, may not: such
a number is written as a string of its digits, since most readers would silently change the digits of a number.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from service.domain.money import MAX_AMOUNT_MINOR


def to_json(body: Any) -> bytes:  # noqa: ANN401 whatever JSON can say
    """In UTF-8. Integers beyond 2^53 - 1, either way, become strings."""
    try:
        return orjson.dumps(body, option=orjson.OPT_STRICT_INTEGER)
    except orjson.JSONEncodeError:
        # Rare, and so worth a second pass: nearly every body has no such number.
        return orjson.dumps(_exact(body))


def exact(number: int) -> int | str:
    """Returns the number, or its digits where a reader of JSON may change them."""
    return number if -MAX_AMOUNT_MINOR <= number <= MAX_AMOUNT_MINOR else str(number)


def _exact(value: Any) -> Any:  # noqa: ANN401 as above
    if isinstance(value, Mapping):
        return {key: _exact(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_exact(one) for one in value]
    # The driver's integers are a class of their own; and so is bool, which is no number.
    return exact(value) if isinstance(value, int) and not isinstance(value, bool) else value
