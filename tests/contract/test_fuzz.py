"""A short run of `make fuzz`: the API keeps what its document promises, whatever comes in.

Over HTTP against the stack with processes of its own; `make fuzz` is the long run.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from scripts.fuzz import IDENTITIES, Identity, Run, fuzz
from scripts.service_stack import Stack

# What there is to try of these, without what is random and without the rest: that is for the long run.
_OPTIONS = {
    "asha": ["--include-tag", "Wallets", "--include-tag", "Transfers", "--include-tag", "Webhooks"],
    "ines": ["--include-tag", "Admin", "--include-tag", "Adjustments"],
}
_FEWEST_CASES = 250

_TEXT_ONLY = {"application/json": {"schema": {"type": "string"}}}
_ONE_MORE = {"X-Missing": {"required": True, "schema": {"type": "string"}}}
_UNKNOWN = {"name": "X-Even", "in": "header", "required": True, "schema": {"type": "integer", "multipleOf": 2}}

Fuzz = Callable[..., Run]


@pytest.fixture(scope="module")
def fuzz_stack(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Fuzz:
    stack.seed()

    def run(identity: Identity, **options: Any) -> Run:
        secret = stack.settings["WALLET_BANK_WEBHOOK_SECRET"]
        return fuzz(stack.base_url, secret, identity, tmp_path_factory.mktemp("fuzz"), seed=1, **options)

    return run


class TestTheApi:
    @pytest.mark.parametrize("identity", IDENTITIES, ids=lambda identity: identity.name)
    def test_keeps_what_its_document_promises(self, fuzz_stack: Fuzz, identity: Identity) -> None:
        run = fuzz_stack(identity, cases=1, options=["--phases", "coverage", *_OPTIONS[identity.name]])
        assert run.is_clean, run.output
        assert run.cases >= _FEWEST_CASES


class TestTheFuzzer:
    """It would find what is wrong: the same API against documents that promise something else."""

    @pytest.fixture
    def document(self, stack: Stack, tmp_path: Path) -> Callable[[Callable[[dict[str, Any]], None]], Path]:
        def changed(change: Callable[[dict[str, Any]], None]) -> Path:
            document = httpx.get(f"{stack.base_url}/openapi.json").json()
            change(document)
            path = tmp_path / "openapi.json"
            path.write_text(json.dumps(document), encoding="utf-8")
            return path

        return changed

    @pytest.mark.parametrize(
        ("found", "change"),
        [
            ("Undocumented HTTP status code", lambda get: get["responses"].pop("404")),
            ("Response violates schema", lambda get: get["responses"]["200"]["content"].update(_TEXT_ONLY)),
            ("Missing required headers", lambda get: get["responses"]["200"]["headers"].update(_ONE_MORE)),
            ("Schema-violating request accepted", lambda get: get["parameters"].append(_UNKNOWN)),
        ],
        ids=["a status", "a body", "a header", "a parameter"],
    )  # fmt: skip
    def test_notices_what_is_not_as_declared(
        self, fuzz_stack: Fuzz, document: Any, found: str, change: Callable[[dict[str, Any]], None]
    ) -> None:
        path = document(lambda whole: change(whole["paths"]["/api/v1/wallets/{wallet_id}"]["get"]))
        options = ["--include-path", "/api/v1/wallets/{wallet_id}", "--phases", "examples,coverage"]
        run = fuzz_stack(IDENTITIES[0], cases=1, document=path, options=options)
        assert not run.is_clean
        assert found in run.output, run.output
