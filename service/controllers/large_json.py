"""JSON of some megabytes, one element of its lists at a time: neither to parse nor to validate it holds the loop up."""

import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final, NamedTuple, NoReturn

from pydantic import BaseModel, ValidationError

from service.turns import Turns

# One transfer with all that it may carry, in escapes, is half of it.
PIECE_LIMIT: Final = 64 * 1024
# As many as are named in an answer; nobody reads more, and to make them takes longer than to send them.
_MISTAKES_LIMIT: Final = 100
# In one place. Who indents needs less; to skip megabytes would hold the loop up.
_SPACE: Final = re.compile(rf"[ \t\n\r]{{0,{PIECE_LIMIT}}}")

Scan = Callable[[str], tuple[Any, int]]


class Piece(NamedTuple):
    """A member of the object: its name, and the place in its list where it is an element of one."""

    name: str
    position: int | None
    value: Any


class LargeJson(NamedTuple):
    """The body as it was sent, and with models as the elements of its lists, as far as they are valid."""

    parsed: dict[str, Any]
    validated: dict[str, Any]


async def read_large_json(text: str, scan: Scan, models: Mapping[str, type[BaseModel]], limit: int) -> LargeJson:
    """One object, whose lists have at most `limit` elements together, each of 64 KiB at most.

    `scan` reads the value that a text begins with, and says where it ends. What is no valid element stays as it was
    sent, for whoever validates the whole to find; after a hundred mistakes nothing more is read. Raises ValueError for
    what is no such JSON.
    """
    found = LargeJson({}, {})
    turns = Turns()
    elements = mistakes = 0
    async for name, position, value in _pieces(text, scan, turns):
        if position is None:
            if name in found.parsed:
                raise ValueError("an object names a key twice")
            # The elements of a list follow.
            found.parsed[name], found.validated[name] = value, [] if isinstance(value, list) else value
            continue
        elements += 1
        if elements > limit:
            raise ValueError("too many objects and lists")
        found.parsed[name].append(value)
        element = value
        if name in models:
            try:
                element = models[name].model_validate(value)
            except ValidationError as error:
                mistakes += error.error_count()
        found.validated[name].append(element)
        if mistakes >= _MISTAKES_LIMIT:
            break
    return found


async def _pieces(text: str, scan: Scan, turns: Turns) -> AsyncIterator[Piece]:
    at = _after(text, 0, "{")
    is_first = True
    while not text.startswith("}", at):
        if not is_first:
            at = _after(text, at, ",")
        is_first = False
        name, at = _scan(text, at, scan)
        if not isinstance(name, str):
            _refuse("a name has to stand in double quotes", text, at)
        at = _after(text, at, ":")
        if text.startswith("[", at):
            yield Piece(name, None, [])
            at = _after(text, at, "[")
            position = 0
            while not text.startswith("]", at):
                if position:
                    at = _after(text, at, ",")
                value, at = _scan(text, at, scan)
                yield Piece(name, position, value)
                position += 1
                await turns.rest()
            at = _skip_space(text, at + 1)
        else:
            value, at = _scan(text, at, scan)
            yield Piece(name, None, value)
        await turns.rest()
    if _skip_space(text, at + 1) != len(text):
        _refuse("more comes after its end", text, at)


def _scan(text: str, at: int, scan: Scan) -> tuple[Any, int]:
    piece = text[at : at + PIECE_LIMIT]
    try:
        value, length = scan(piece)
    except ValueError:
        if len(piece) == PIECE_LIMIT:
            _refuse("one element is longer than 64 KiB", text, at)
        raise
    if length == PIECE_LIMIT:
        _refuse("one element is longer than 64 KiB", text, at)
    return value, _skip_space(text, at + length)


def _after(text: str, at: int, sign: str) -> int:
    at = _skip_space(text, at)
    if not text.startswith(sign, at):
        _refuse(f"{sign} is expected", text, at)
    return _skip_space(text, at + 1)


def _skip_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    end = at if found is None else found.end()
    if end - at == PIECE_LIMIT:
        _refuse("white space is longer than 64 KiB", text, at)
    return end


def _refuse(message: str, text: str, at: int) -> NoReturn:
    raise json.JSONDecodeError(message, text[at : at + 1], 0)
