"""Reading requests strictly: JSON without duplicate keys or strange numbers, limits, known parameters."""

import asyncio
import json
import re
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn, get_args, get_origin
from urllib.parse import parse_qsl

from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi.security.base import SecurityBase
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from service.controllers.large_json import read_large_json
from service.errors import Malformed

# Far above any real order; what is larger is a mistake or an attack.
BODY_LIMIT_BYTES = 64 * 1024
# 500 transfers with all that each may carry are within it, as long as their texts are ASCII.
LARGE_BODY_LIMIT_BYTES = 4 * 1024 * 1024
# Ours have four levels at most. Deep ones cost more to look at than to send.
_DEPTH_LIMIT = 32
# Ours have 20 members at most, and 500 transfers with metadata are a thousand objects. Each one more costs time and,
# where it is not known, an error of its own: megabytes of them would keep everybody waiting for seconds.
_MEMBERS_LIMIT = 64
_CONTAINERS_LIMIT = 4096
# Nobody asks for more; urllib's parser refuses the rest before it has made anything of it.
_PARAMETERS_LIMIT = 100
# What a large body is parsed at once up to, in a millisecond or two.
_AT_ONCE_LIMIT_BYTES = 16 * 1024
_MALFORMED = 400
_TOO_LARGE = 413
_WRONG_MEDIA_TYPE = 415
_PATH_PARAMETER = re.compile(r"\{[^}]*\}")
_CHARSETS = frozenset({"utf-8", "utf8", "us-ascii"})


class StrictModel(BaseModel):
    """Base of every body: no unknown fields, no conversions between types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class StrictRequest(Request):
    """A request whose body is read up to a limit and parsed without leniency."""

    body_limit_bytes = BODY_LIMIT_BYTES
    # Of the route that was found: its path, with nothing in the place of each parameter.
    route_template: str
    # What the elements of the body's lists are, by member.
    item_models: Mapping[str, type[BaseModel]]

    async def body(self) -> bytes:
        if not hasattr(self, "_body"):
            declared = self.headers.get("content-length")
            if declared is not None and declared.isdecimal() and int(declared) > self.body_limit_bytes:
                raise HTTPException(_TOO_LARGE)
            chunks = []
            size = 0
            try:
                async for chunk in self.stream():
                    size += len(chunk)
                    if size > self.body_limit_bytes:
                        raise HTTPException(_TOO_LARGE)
                    chunks.append(chunk)
            except ClientDisconnect as error:
                # Nobody reads the answer, but no defect of ours is to be looked for in the log.
                raise HTTPException(_MALFORMED) from error
            self._body = b"".join(chunks)
        return self._body

    async def json(self) -> Any:  # noqa: ANN401 starlette's own signature
        if not hasattr(self, "_json"):
            self._json = parse_json(await self.body())
        return self._json

    @property
    def parsed_body(self) -> Any:  # noqa: ANN401 JSON can be anything
        """The body as it was sent, once the route has read it; None where the route has none."""
        return getattr(self, "_json", None)


class LargeBodyRequest(StrictRequest):
    """For lists of orders, which are read one by one."""

    body_limit_bytes = LARGE_BODY_LIMIT_BYTES

    async def json(self) -> Any:  # noqa: ANN401 starlette's own signature
        """With models as the elements of its lists, where they are valid: pydantic takes them as they are."""
        if not hasattr(self, "_validated"):
            body = await self.body()
            if len(body) <= _AT_ONCE_LIMIT_BYTES:
                self._json = self._validated = parse_json(body)
            else:
                # Neither what came before nor what comes after is in the same turn of the loop.
                await asyncio.sleep(0)
                with _as_decode_errors():
                    found = await read_large_json(
                        body.decode("utf-8"), _piece_scanner(), self.item_models, _CONTAINERS_LIMIT
                    )
                self._json, self._validated = found
                await asyncio.sleep(0)
        return self._validated


class StrictRoute(APIRoute):
    """Hands StrictRequest to the route, by the way that FastAPI documents for custom requests."""

    request_class = StrictRequest

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        has_body = self.body_field is not None
        may_repeat = dict(self._query_parameters())
        gates = self._gates()
        item_models = self._item_models()
        # Without their names, which a release may change.
        route_template = _PATH_PARAMETER.sub("{}", self.path_format)

        async def handle_strictly(request: Request) -> Response:
            strict = self.request_class(request.scope, request.receive)
            strict.route_template = route_template
            strict.item_models = item_models
            if query := request.scope["query_string"]:
                _refuse_strange_parameters(query, may_repeat)
            if has_body and not _is_json(strict):
                raise HTTPException(_WRONG_MEDIA_TYPE)
            for gate in gates:
                await gate(strict)
            return await handle(strict)

        return handle_strictly

    def _gates(self) -> list[Any]:
        """What has to let a request through before its body is read, each called with the request."""
        return []

    def _item_models(self) -> dict[str, type[BaseModel]]:
        """The models of the body's lists, by member."""
        model = None if self.body_field is None else self.body_field.field_info.annotation
        if not isinstance(model, type) or not issubclass(model, BaseModel):
            return {}
        lists = {name: get_args(one.annotation) for name, one in model.model_fields.items() if _is_list(one.annotation)}
        return {
            name: items[0]
            for name, items in lists.items()
            if items and isinstance(items[0], type) and issubclass(items[0], BaseModel)
        }

    def _query_parameters(self) -> Iterator[tuple[str, bool]]:
        """Name by name what the route takes, and whether it may be given several times."""
        for parameter in (self.openapi_extra or {}).get("parameters", ()):
            if parameter["in"] == "query":
                yield parameter["name"], False
        yield from self._parameters_of(self.dependant)

    def _parameters_of(self, dependant: Dependant) -> Iterator[tuple[str, bool]]:
        for field in dependant.query_params:
            model = field.field_info.annotation
            if not isinstance(model, type) or not issubclass(model, BaseModel):
                raise TypeError(f"{self.path}: take query parameters by a model, as other routes do")
            for name, info in model.model_fields.items():
                yield info.alias or name, get_origin(info.annotation) in (tuple, list)
        for dependency in dependant.dependencies:
            yield from self._parameters_of(dependency)


class LargeBodyRoute(StrictRoute):
    """Asks who it is first: FastAPI would read and parse all of it before it finds that nobody may send it."""

    request_class = LargeBodyRequest

    def _gates(self) -> list[Any]:
        gates = [one.call for one in self.dependant.dependencies if isinstance(one.call, SecurityBase)]
        if not gates:
            raise TypeError(f"{self.path}: nobody sends so much without a permission")
        return gates


def _is_list(annotation: Any) -> bool:  # noqa: ANN401 annotations are of all kinds
    return get_origin(annotation) is list


def _refuse_strange_parameters(query: bytes, may_repeat: dict[str, bool]) -> None:
    """Raises for what two readers could read differently, and for what the route would not look at."""
    try:
        names = [
            name
            for name, _ in parse_qsl(
                query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_PARAMETERS_LIMIT
            )
        ]
    except ValueError as error:
        # UnicodeDecodeError is one too: what is percent-encoded is no UTF-8.
        raise Malformed("The query string has to be percent-encoded UTF-8, with 100 parameters at most") from error
    found = [("extra_forbidden", "Not a parameter of this route", name) for name in names if name not in may_repeat]
    found += [
        ("repeated", "Send it once only", name)
        for name, repeats in may_repeat.items()
        if not repeats and names.count(name) > 1
    ]
    if found:
        raise RequestValidationError(
            [{"type": code, "loc": ("query", name), "msg": message} for code, message, name in found]
        )


def _is_json(request: Request) -> bool:
    """As it is and in UTF-8, which JSON always is (RFC 8259, section 8.1): nothing is unpacked or converted."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        return False
    media_type, *parameters = request.headers.get("content-type", "").lower().split(";")
    if media_type.strip() != "application/json":
        return False
    charsets = [value for name, _, value in (p.strip().partition("=") for p in parameters) if name == "charset"]
    return all(charset.strip('"') in _CHARSETS for charset in charsets)


def parse_json(body: bytes) -> Any:  # noqa: ANN401 JSON can be anything
    """Parses RFC 8259 JSON; raises json.JSONDecodeError for whatever two readers could read differently.

    That is: duplicate keys, NaN and Infinity, text that is not UTF-8, lone surrogates, endless digits or nesting
    beyond 32 levels. And for more objects, lists or members than anything of ours has.
    """
    with _as_decode_errors():
        text = body.decode("utf-8")
        parsed = json.loads(text, object_pairs_hook=_object_maker(), parse_constant=_refuse_constant)
        _refuse_strange_values(text, parsed, _DEPTH_LIMIT)
    return parsed


def _piece_scanner() -> Callable[[str], tuple[Any, int]]:
    """For one body: reads the value that a text begins with, as parse_json does, and says where it ends."""
    decoder = json.JSONDecoder(object_pairs_hook=_object_maker(), parse_constant=_refuse_constant)

    def scan(text: str) -> tuple[Any, int]:
        value, length = decoder.raw_decode(text)
        # It stands in a list in an object.
        _refuse_strange_values(text[:length], value, _DEPTH_LIMIT - 2)
        return value, length

    return scan


def _refuse_strange_values(text: str, parsed: Any, depth: int) -> None:  # noqa: ANN401 JSON can be anything
    if "\\u" in text:
        # An escaped lone surrogate is no text: nothing after this point could store or show it.
        json.dumps(parsed, ensure_ascii=False).encode("utf-8")
    # Whatever has few brackets cannot be deep, and is nearly everything.
    if text.count("[") + text.count("{") > depth:
        _refuse_depth(parsed, depth)


@contextmanager
def _as_decode_errors() -> Iterator[None]:
    try:
        yield
    except json.JSONDecodeError:
        raise
    except UnicodeError:
        raise json.JSONDecodeError("text has to be valid UTF-8", "", 0) from None
    except RecursionError:
        raise json.JSONDecodeError("nested too deeply", "", 0) from None
    except ValueError as error:
        raise json.JSONDecodeError(str(error), "", 0) from None


def _refuse_depth(parsed: Any, depth: int) -> None:  # noqa: ANN401 JSON can be anything
    """Level by level, without a call for each."""
    level = [parsed]
    found = 0
    for _ in range(depth + 1):
        inner = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)]
        found += len(inner)
        if found > _CONTAINERS_LIMIT:
            raise ValueError("too many objects and lists")
        level = [child for children in inner for child in children]
        if not inner:
            return
    raise ValueError("nested too deeply")


def _object_maker() -> Callable[[list[tuple[str, Any]]], dict[str, Any]]:
    """For one body, whose objects it counts."""
    made = 0

    def make(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal made
        made += 1
        if made > _CONTAINERS_LIMIT:
            raise ValueError("too many objects")
        if len(pairs) > _MEMBERS_LIMIT:
            raise ValueError(f"an object has more than {_MEMBERS_LIMIT} members")
        members = dict(pairs)
        if len(members) != len(pairs):
            raise ValueError("an object names a key twice")
        return members

    return make


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
