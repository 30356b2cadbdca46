"""Pages of lists, newest first, by opaque cursors.

A cursor is the position of the last row that was shown, signed together with the list it belongs to: that one's
name, owner and filters. So a cursor cannot be made up, nor carried over to another list.
"""

import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, NamedTuple, TypeVar

import orjson
from fastapi import Response
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from service.controllers.answers import json_response
from service.errors import InvalidCursor
from service.settings import Settings

_Position = TypeVar("_Position", str, int)
_Row = TypeVar("_Row")

_DEFAULT_LIMIT = 20
_LARGEST_LIMIT = 100
# Our cursors have about 80 characters.
_CURSOR_LENGTH_LIMIT = 256
# Half of SHA-256 is beyond guessing, and keeps the cursor short.
_SEAL_BYTES = 16
_PLAIN_DIGITS = re.compile(r"-?[0-9]{1,19}")
# What the service can have anything of, and far from where datetime overflows when time zones are taken off.
_FIRST_YEAR, _LAST_YEAR = 1970, 2200


def _has_date_and_time(text: Any) -> Any:  # noqa: ANN401 anything may come
    # Otherwise pydantic takes plain numbers as well, for seconds or milliseconds, whichever seems likelier.
    if not isinstance(text, str) or "T" not in text.upper():
        raise PydanticCustomError("invalid_time", "Send RFC 3339, e.g. 2026-02-24T12:34:56Z; a + is written %2B")
    return text


def _in_range(moment: datetime) -> datetime:
    if not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
        raise PydanticCustomError("time_out_of_range", "Send a time of this era")
    return moment.astimezone(UTC)


QueryTime = Annotated[AwareDatetime, BeforeValidator(_has_date_and_time), AfterValidator(_in_range)]
# What lists are narrowed by under the same names everywhere.
CreatedFrom = Annotated[QueryTime | None, Field(description="At this time or later", examples=["2026-01-01T00:00:00Z"])]
CreatedTo = Annotated[QueryTime | None, Field(description="Before this time", examples=["2026-02-01T00:00:00Z"])]
CategoryFilter = Annotated[
    str | None, Field(min_length=1, max_length=64, description="Only those of this category", examples=["rent"])
]


class Query(BaseModel):
    """Base of a route's query parameters: text is converted, but what is not known is refused.

    Numbers are plain digits: pydantic alone would also take `+5`, ` 5`, `5.0` and `1_000`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_strange_digits(cls, sent: Any, info: ValidationInfo) -> Any:  # noqa: ANN401 anything may come
        kind = cls.model_fields[str(info.field_name)].annotation
        if isinstance(sent, str) and kind in (int, int | None) and _PLAIN_DIGITS.fullmatch(sent) is None:
            raise PydanticCustomError("int_parsing", "Send a whole number in plain digits")
        return sent


class PageQuery(Query):
    """What every list takes. Lists with filters derive from it: FastAPI wants all parameters in one model."""

    limit: Annotated[int, Field(ge=1, le=_LARGEST_LIMIT, description="Rows on a page")] = _DEFAULT_LIMIT
    cursor: Annotated[
        str | None, Field(max_length=_CURSOR_LENGTH_LIMIT, description="`next_cursor` of the page before")
    ] = None


class Page(NamedTuple, Generic[_Position]):
    """Which rows are wanted: those after `position`, or the first ones where it is None.

    The first of the keys seals; what another has sealed is a cursor still.
    """

    limit: int
    position: _Position | None
    keys: tuple[bytes, ...]
    list_id: bytes

    @property
    def limit_and_one(self) -> int:
        """What to ask the database for: whether there is one more tells whether there is a next page."""
        return self.limit + 1


def open_page(
    query: PageQuery, settings: Settings, list_name: str, owner: str, position_type: type[_Position]
) -> Page[_Position]:
    """The page that the query asks for, of the list that name, owner and the query's filters make.

    Raises InvalidCursor for a cursor that this very list did not give out.
    """
    filters = query.model_dump(mode="json", exclude={"limit", "cursor"})
    list_id = orjson.dumps(["cursor", list_name, owner, filters])
    keys = tuple(secret.encode() for secret in settings.jwt_secrets)
    position = None if query.cursor is None else _read_cursor(query.cursor, keys, list_id, position_type)
    return Page(query.limit, position, keys, list_id)


def page_of(
    rows: Sequence[_Row],
    page: Page[_Position],
    position_of: Callable[[_Row], _Position],
    view: Callable[[_Row], dict[str, Any]],
) -> Response:
    """The answer, from rows that were asked for with `limit_and_one`."""
    shown = rows[: page.limit]
    has_more = len(rows) > page.limit
    body = {
        "data": [view(row) for row in shown],
        "has_more": has_more,
        "next_cursor": make_cursor(position_of(shown[-1]), page) if has_more else None,
    }
    return json_response(body)


def make_cursor(position: _Position, page: Page[_Position]) -> str:
    """Leads to the rows after `position`, in the list that the page is of."""
    said = orjson.dumps(position)
    return urlsafe_b64encode(_seal(said, page.keys[0], page.list_id) + said).rstrip(b"=").decode()


def _read_cursor(cursor: str, keys: Sequence[bytes], list_id: bytes, position_type: type[_Position]) -> _Position:
    try:
        decoded = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
    except (UnicodeEncodeError, Base64Error) as error:
        raise InvalidCursor from error
    seal, said = decoded[:_SEAL_BYTES], decoded[_SEAL_BYTES:]
    if not any(hmac.compare_digest(seal, _seal(said, key, list_id)) for key in keys):
        raise InvalidCursor
    position = orjson.loads(said)
    assert isinstance(position, position_type), "a list keeps its kind of position"  # noqa: S101 it has our seal
    return position


def _seal(said: bytes, key: bytes, list_id: bytes) -> bytes:
    """The list's id is JSON and has no line break, so that the two parts cannot run into each other.

    Nor can it be taken for a JWT under the same key: those have no brackets in what is signed.
    """
    return hmac.digest(key, list_id + b"\n" + said, "sha256")[:_SEAL_BYTES]
