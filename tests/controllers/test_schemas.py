"""The OpenAPI document: it hangs together and declares the errors."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI

_OURS = ("/auth/", "/me", "/users/", "/wallets")


@pytest.fixture(scope="module")
def document(app: FastAPI) -> dict[str, Any]:
    return app.openapi()


def _references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for child in part.values():
            yield from _references(child)
    elif isinstance(part, list):
        for child in part:
            yield from _references(child)


class TestTheDocument:
    def test_every_reference_leads_somewhere(self, document: dict[str, Any]) -> None:
        references = set(_references(document))
        assert "#/components/schemas/Problem" in references
        for reference in references:
            assert reference.removeprefix("#/components/schemas/") in document["components"]["schemas"], reference

    def test_is_the_same_when_asked_again(self, app: FastAPI, document: dict[str, Any]) -> None:
        assert app.openapi() == document

    def test_errors_of_people_and_wallets_are_problems_only(self, document: dict[str, Any]) -> None:
        seen = 0
        for path, operations in document["paths"].items():
            if not path.removeprefix("/api/v1").startswith(_OURS):
                continue
            for operation in operations.values():
                for status, response in operation["responses"].items():
                    if int(status) >= 400:
                        seen += 1
                        assert list(response["content"]) == ["application/problem+json"], (path, status)
        assert seen > 20

    def test_a_list_declares_its_filters(self, document: dict[str, Any]) -> None:
        parameters = document["paths"]["/api/v1/users/{user_id}/transactions"]["get"]["parameters"]
        in_query = {one["name"] for one in parameters if one["in"] == "query"}
        assert in_query == {
            "limit", "cursor", "type", "category", "direction", "status", "created_from", "created_to", "reference",
            "counterparty", "amount_min", "amount_max", "currency",
        }  # fmt: skip
