"""The Postman collection: nothing of the API is missing in it, and what is committed is what is made."""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from scripts import export_openapi
from scripts.postman.collection import StoryError, build_collection, build_environment, operations_of
from scripts.postman.export import COLLECTION, POSTMAN_ENVIRONMENT, rendered
from scripts.postman.steps import Folder
from scripts.postman.story import ENVIRONMENT, STORY

Json = dict[str, Any]


@pytest.fixture(scope="module")
def document() -> Json:
    return export_openapi.document()


@pytest.fixture(scope="module")
def collection(document: Json) -> Json:
    return build_collection(document, STORY, "")


def requests_of(collection: Json) -> Iterator[tuple[Json, Json]]:
    """Each folder with each of its requests."""
    for folder in collection["item"]:
        for item in folder["item"]:
            yield folder, item


def operation_of(item: Json) -> str:
    path = "/".join(re.sub(r"^:(\w+)$", r"{\1}", segment) for segment in item["request"]["url"]["path"])
    return f"{item['request']['method']} /{path}"


def script_of(item: Json, listen: str) -> str:
    lines = [line for event in item["event"] if event["listen"] == listen for line in event["script"]["exec"]]
    return "\n".join(lines)


def without(story: tuple[Folder, ...], operation: str) -> list[Folder]:
    return [
        replace(folder, steps=tuple(step for step in folder.steps if step.operation != operation)) for folder in story
    ]


class TestCollection:
    def test_has_an_example_of_every_operation_in_the_folder_of_its_tag(self, document: Json, collection: Json) -> None:
        shown = {(operation_of(item), folder["name"]) for folder, item in requests_of(collection)}
        wanted = {(name, operation["tags"][0]) for name, operation in operations_of(document).items()}
        assert wanted <= shown

    def test_tests_status_and_request_id_of_every_answer(self, collection: Json) -> None:
        for _, item in requests_of(collection):
            tests = script_of(item, "test")
            assert 'pm.test("answers ' in tests, item["name"]
            assert 'pm.test("has an X-Request-ID"' in tests, item["name"]

    def test_describes_every_request(self, collection: Json) -> None:
        assert all(item["request"]["description"] for _, item in requests_of(collection))

    def test_sends_a_key_with_all_that_moves_money_but_where_its_absence_is_shown(
        self, document: Json, collection: Json
    ) -> None:
        operations = operations_of(document)
        keyless = [
            item["name"]
            for _, item in requests_of(collection)
            if any(one["name"] == "Idempotency-Key" for one in operations[operation_of(item)]["parameters"])
            and "Idempotency-Key" not in {header["key"] for header in item["request"]["header"]}
        ]
        assert keyless == ["Without a key"]

    def test_has_a_value_for_every_variable_or_captures_it(self, collection: Json) -> None:
        environment = {one["key"] for one in build_environment("", ENVIRONMENT, STORY)["values"]}
        used = {
            name for _, item in requests_of(collection) for name in re.findall(r"\{\{(\w+)\}\}", str(item["request"]))
        }
        assert used <= environment

    def test_uses_no_variable_before_it_was_captured(self, collection: Json) -> None:
        known = set(ENVIRONMENT)
        for _, item in requests_of(collection):
            setting = r'pm\.environment\.set\("(\w+)"'
            known |= set(re.findall(setting, script_of(item, "prerequest")))
            assert set(re.findall(r"\{\{(\w+)\}\}", str(item["request"]))) <= known, item["name"]
            known |= set(re.findall(setting, script_of(item, "test")))

    def test_has_ids_that_are_the_same_each_time_and_each_once(self, document: Json, collection: Json) -> None:
        ids = [item["id"] for _, item in requests_of(collection)]
        assert len(set(ids)) == len(ids)
        assert build_collection(document, STORY, "") == collection


class TestStory:
    def test_that_forgets_an_operation_is_refused(self, document: Json) -> None:
        with pytest.raises(StoryError, match=r"no example of GET /api/v1/rewards \(folder 'Points and vouchers'\)"):
            build_collection(document, without(STORY, "GET /rewards"), "")

    def test_with_an_operation_that_is_not_there_is_refused(self, document: Json) -> None:
        gone = {
            **document,
            "paths": {path: one for path, one in document["paths"].items() if path != "/api/v1/rewards"},
        }
        with pytest.raises(StoryError, match="The API has no GET /rewards"):
            build_collection(gone, STORY, "")

    def test_with_a_parameter_that_is_not_there_is_refused(self, document: Json) -> None:
        step = replace(STORY[0].steps[4], query={"on": "2026-01-01"})
        with pytest.raises(StoryError, match="has no \\['on'\\]"):
            build_collection(document, [replace(STORY[0], steps=(step,)), *STORY], "")


class TestCommittedFiles:
    @pytest.mark.parametrize("path", [COLLECTION, POSTMAN_ENVIRONMENT], ids=lambda path: path.name)
    def test_are_what_the_script_makes(self, path: Any) -> None:
        assert path.read_text() == rendered()[path], "run make export-postman"

    def test_hold_no_more_secrets_than_credentials_md_lists(self) -> None:
        listed = (COLLECTION.parent.parent / "CREDENTIALS.md").read_text()
        demo = {name: value for name, value in ENVIRONMENT.items() if re.match("demo|admin|second_admin|service", name)}
        assert all(f"`{value}`" in listed or f"| {value} |" in listed for value in demo.values())
        assert ENVIRONMENT["bank_webhook_secret"] == ""
