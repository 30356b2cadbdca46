"""Every route that the application has, as it has them now: what a test says of all routes, it says of new ones too."""

from typing import Any, NamedTuple

from fastapi import FastAPI
from fastapi.security.base import SecurityBase
from starlette.routing import Route


class ApiRoute(NamedTuple):
    """`gates` are the dependencies that ask who is there."""

    method: str
    path: str
    gates: list[Any]

    @property
    def permissions(self) -> list[str]:
        """Its own first, then what it takes beside it."""
        (gate,) = self.gates
        return list(gate.permissions)

    @property
    def permission(self) -> str:
        return self.permissions[0]

    @property
    def url(self) -> str:
        """Of something that is not there: a number, where the route takes one."""
        return self.path.replace("{number}", "1").replace("{currency}", "INR").replace("{", "").replace("}", "")


# Answers without an end, which whoever tries every route would wait for: they have tests of their own.
ENDLESS = {"/api/v1/events/stream"}


def routes_of(app: FastAPI) -> list[ApiRoute]:
    """Those of HTTP that end."""
    return [
        ApiRoute(method, route.path, _gates(getattr(route, "dependant", None)))
        for route in app.routes
        if isinstance(route, Route) and route.path not in ENDLESS
        for method in sorted(set(route.methods or ()) - {"HEAD", "OPTIONS"})
    ]


def _gates(dependant: Any) -> list[Any]:
    if dependant is None:
        return []
    own = [dependant.call] if isinstance(dependant.call, SecurityBase) else []
    return own + [gate for child in dependant.dependencies for gate in _gates(child)]
