"""What an attack is made on: an app, as a client sees it, and the world whose people attack and are attacked."""

from typing import NamedTuple

import httpx

from tests.security.routes import Route
from tests.security.world import World


class Target(NamedTuple):
    """`api` may be a weakened app; the world's own is always the sound one."""

    api: httpx.AsyncClient
    world: World
    routes: list[Route]
