"""The OpenAPI document: it hangs together and declares the errors."""

import csv
from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest
from fastapi import FastAPI

_OURS = ("/auth/", "/me", "/users/", "/wallets", "/admin/")


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
            _, kind, name = reference.removeprefix("#/").split("/")
            assert name in document["components"][kind], reference

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

    @pytest.mark.parametrize("path", ["/wallets/{wallet_id}", "/users/{user_id}/balance"])
    def test_a_balance_declares_that_it_can_be_asked_of_the_past(self, document: dict[str, Any], path: str) -> None:
        parameters = document["paths"][f"/api/v1{path}"]["get"]["parameters"]
        (at,) = [one for one in parameters if one["in"] == "query"]
        assert (at["name"], at["required"]) == ("at", False)
        assert "in the past" in str(at)

    def test_the_example_of_a_csv_statement_has_a_cell_for_each_column(self, document: dict[str, Any]) -> None:
        answer = document["paths"]["/api/v1/wallets/{wallet_id}/statement"]["get"]["responses"]["200"]
        columns, *records = csv.reader(StringIO(answer["content"]["text/csv"]["example"], newline=""), strict=True)
        assert [record[0] for record in records] == ["opening", "movement", "closing"]
        assert {len(record) for record in records} == {len(columns)}
        closing = dict(zip(columns, records[-1], strict=True))
        assert (closing["balance"], closing["total_in"], closing["movements"]) == ("100.50", "100.50", "1")
        assert len(closing["hash"]) == len(records[0][-1]) == 64
