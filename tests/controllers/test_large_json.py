"""Large bodies, read piece by piece: the same JSON is taken and refused as in one go."""

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.controllers.large_json import PIECE_LIMIT, LargeJson, read_large_json
from service.controllers.requests import StrictModel, _piece_scanner, parse_json


class _Item(StrictModel):
    amount: int


async def _read(text: str, limit: int = 4096) -> LargeJson:
    return await read_large_json(text, _piece_scanner(), {"items": _Item}, limit)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


class TestAnObject:
    @given(st.dictionaries(st.text(max_size=4).filter(lambda name: name != "items"), _JSON, max_size=4), st.booleans())
    async def test_is_read_as_in_one_go(self, value: dict[str, object], is_spaced: bool) -> None:
        text = json.dumps(value, ensure_ascii=False, indent=1 if is_spaced else None)
        found = await _read(text)
        assert found.parsed == found.validated == parse_json(text.encode())

    @given(st.dictionaries(st.text(max_size=3), _JSON, min_size=1, max_size=3), st.data())
    async def test_that_is_damaged_is_refused_where_it_is_in_one_go(
        self, value: dict[str, object], data: st.DataObject
    ) -> None:
        text = orjson.dumps(value).decode()
        at = data.draw(st.integers(0, len(text) - 1))
        damaged = text[:at] + data.draw(st.sampled_from(["", ",", "]", "}", '"', "x", " ", "[", "1"])) + text[at + 1 :]
        try:
            wanted = parse_json(damaged.encode())
        except ValueError:
            with pytest.raises(ValueError, match=r"."):
                await _read(damaged)
        else:
            if isinstance(wanted, dict) and "items" not in wanted:
                assert (await _read(damaged)).parsed == wanted

    @pytest.mark.parametrize(
        "text",
        [
            '{"a":1,"a":2}',
            '{"items":[{"amount":1,"amount":2}]}',
            '{"a":NaN}',
            '{"a":"\\ud800"}',
            '{"a":1}x',
            '{"a":1,}',
            '{"a":[1,]}',
            '{"a":[1 2]}',
            "{1:2}",
            "[]",
            "",
            '{"a":' + "[" * 40 + "]" * 40 + "}",
            '{"a":"' + "x" * PIECE_LIMIT + '"}',
            '{"a":' + "1" * PIECE_LIMIT + "}",
            '{"a":[' + "1," * 5000 + "1]}",
        ],
        ids=lambda text: text[:24],
    )
    async def test_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"."):
            await _read(text)


class TestElementsOfAModel:
    async def test_are_validated_and_kept_as_they_were_sent(self) -> None:
        found = await _read('{"items": [{"amount": 1}, {"amount": 2}], "x": []}')
        assert found.parsed == {"items": [{"amount": 1}, {"amount": 2}], "x": []}
        assert found.validated == {"items": [_Item(amount=1), _Item(amount=2)], "x": []}

    async def test_that_are_wrong_stay_as_they_are_and_after_a_hundred_mistakes_nothing_more_is_read(self) -> None:
        wrong = {"amount": "1", "b": 1}
        found = await _read(orjson.dumps({"items": [{"amount": 1}] + [wrong] * 400}).decode())
        assert found.validated == {"items": [_Item(amount=1)] + [wrong] * 50}
