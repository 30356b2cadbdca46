"""The requests that attacks are made from are ones that the service takes: else every refusal would prove nothing."""

import pytest

from tests.security.findings import code_of
from tests.security.routes import NothingToSend
from tests.security.target import Target
from tests.security.world import ADDRESSES_IN_BODIES, OWN_IDS_IN_BODIES, PRIVATE, ROLES, SIGNED, USER, send_valid

# Whoever adds a route that asks for no token says so here as well.
_PUBLIC = {
    "POST /api/v1/auth/login",
    "POST /api/v1/auth/register",
    "POST /api/v1/auth/register/confirm",
    "POST /api/v1/auth/refresh",
    "POST /api/v1/auth/password-reset",
    "POST /api/v1/auth/password-reset/confirm",
    "GET /api/v1/checkpoints/keys",
    "POST /webhooks/bank-callback",
    "GET /livez",
    "GET /readyz",
    "GET /health",
    "GET /metrics",
}
# What a request gets that the service has read and understood, whatever the state of things then says.
_NOT_UNDERSTOOD = {400, 401, 403, 404, 405, 413, 415}


class TestRoutes:
    async def test_every_route_can_be_called_as_the_document_says(self, target: Target) -> None:
        misunderstood = []
        for route in target.routes:
            if str(route) in SIGNED:
                continue
            role = target.world.lowest_role(route)
            answer = await send_valid(target.api, route, await target.world.person(role))
            if (
                answer.status_code in _NOT_UNDERSTOOD
                or answer.status_code >= 500
                or code_of(answer) == "invalid_fields"
            ):
                misunderstood.append(f"{route} as {role}: {answer.status_code} {answer.text[:300]}")
        assert not misunderstood, "\n".join(
            ["What is sent needs a better value in tests/security/world.py:", *misunderstood]
        )

    def test_a_route_without_a_token_is_one_that_is_known_to_be_public(self, target: Target) -> None:
        public = {str(route) for route in target.routes if not route.is_secured}
        assert public == _PUBLIC, "Is it meant for everybody? Then add it to _PUBLIC; else it needs a permission"

    def test_every_id_in_a_body_is_known_to_be_ones_own_or_an_address(self, target: Target) -> None:
        names = {field.name for route in target.routes for field in route.fields if field.name.endswith("_id")}
        unknown = names - OWN_IDS_IN_BODIES - ADDRESSES_IN_BODIES
        assert not unknown, "Name them in OWN_IDS_IN_BODIES or ADDRESSES_IN_BODIES of tests/security/world.py"

    async def test_a_parameter_that_the_corpus_cannot_serve_says_what_to_add(self, target: Target) -> None:
        person = await target.world.someone(USER, "anybody")
        with pytest.raises(NothingToSend, match=r"MAKERS of tests/security/world\.py"):
            await person.id_of("colour_id")

    def test_every_role_has_its_private_ids(self) -> None:
        assert set(PRIVATE) == set(ROLES)
