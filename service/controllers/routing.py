"""Where routes are declared: each router's stand for themselves, and the application takes them over as they are.

`include_router` would build each of them a second time, and look for them in two steps at each request.
"""

from typing import Final

from fastapi import APIRouter
from fastapi.routing import APIRoute

from service.controllers.requests import StrictRoute

API_PREFIX: Final = "/api/v1"


def operation_id(route: APIRoute) -> str:
    """The name of the function: short, and the same for ever, wherever the route moves."""
    return route.operation_id or route.name


def api_router(tag: str, *, prefix: str = "", route_class: type[APIRoute] = StrictRoute) -> APIRouter:
    """For routes of the API, below its prefix."""
    return APIRouter(
        prefix=API_PREFIX + prefix, tags=[tag], route_class=route_class, generate_unique_id_function=operation_id
    )
