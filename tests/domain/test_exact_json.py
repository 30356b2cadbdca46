"""JSON whose numbers every reader carries exactly."""

import json
from typing import Any

import pytest
from bson.int64 import Int64
from hypothesis import given
from hypothesis import strategies as st

from service.domain.exact_json import exact, to_json
from tests.exact_numbers import parse_exactly

_LARGEST = 2**53 - 1
_JSON = st.recursive(
    st.none() | st.booleans() | st.text(max_size=5) | st.integers() | st.integers(2**53 - 3, 2**53 + 3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


@given(_JSON)
def test_no_number_is_beyond_what_readers_carry_and_none_is_lost(body: Any) -> None:
    def as_text(value: Any) -> Any:
        match value:
            case bool() | None | str():
                return value
            case int():
                return str(value) if abs(value) > _LARGEST else value
            case list():
                return [as_text(one) for one in value]
            case _:
                return {key: as_text(one) for key, one in value.items()}

    assert parse_exactly(to_json(body)) == as_text(body)


@pytest.mark.parametrize(
    ("number", "shown"),
    [(0, 0), (_LARGEST, _LARGEST), (-_LARGEST, -_LARGEST), (2**53, "9007199254740992"), (-(2**62), f"-{2**62}")],
)
def test_digits_stand_where_a_number_would_change(number: int, shown: int | str) -> None:
    assert exact(number) == shown
    body = {"sum": number, "same": [(number,)], "stored": Int64(number), "is_sum": True}
    assert json.loads(to_json(body)) == {"sum": shown, "same": [[shown]], "stored": shown, "is_sum": True}
