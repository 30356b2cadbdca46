"""A short run of `make fuzz`: the API keeps what its document promises, whatever comes in.

Over HTTP against the stack with processes of its own; `make fuzz` is the long run.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from scripts.fuzz import IDENTITIES, Run, fuzz
from scripts.service_stack import Stack

# One case for each thing that there is to try, which is thousands; random ones are for the long run.
_CASES = 1
# So many requests a second are served by far slower machines.
_FEWEST_CASES = 1_000

Fuzz = Callable[..., Run]


@pytest.fixture(scope="module")
def fuzz_stack(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Fuzz:
    stack.seed()

    def run(identity: int, **options: Any) -> Run:
        secret = stack.settings["WALLET_BANK_WEBHOOK_SECRET"]
        return fuzz(stack.base_url, secret, IDENTITIES[identity], tmp_path_factory.mktemp("fuzz"), seed=1, **options)

    return run


class TestTheApi:
    @pytest.mark.parametrize("identity", [0, 1], ids=[identity.name for identity in IDENTITIES])
    def test_keeps_what_its_document_promises(self, fuzz_stack: Fuzz, identity: int) -> None:
        run = fuzz_stack(identity, cases=_CASES, options=["--phases", "coverage"])
        assert run.is_clean, run.output
        assert run.operations >= 75
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
            ("API accepted schema-violating request", lambda get: get["parameters"].append(_EVEN_LIMIT)),
        ],
        ids=["a status", "a body", "a header", "a parameter"],
    )  # fmt: skip
    def test_notices_what_is_not_as_declared(
        self, fuzz_stack: Fuzz, document: Any, found: str, change: Callable[[dict[str, Any]], None]
    ) -> None:
        path = document(lambda whole: change(whole["paths"]["/api/v1/wallets/{wallet_id}"]["get"]))
        options = ["--include-path", "/api/v1/wallets/{wallet_id}", "--phases", "examples,coverage"]
        run = fuzz_stack(0, cases=1, document=path, options=options)
        assert not run.is_clean
        assert found in run.output, run.output


_TEXT_ONLY = {"application/json": {"schema": {"type": "string"}}}
_ONE_MORE = {"X-Missing": {"required": True, "schema": {"type": "string"}}}
_EVEN_LIMIT = {"name": "X-Even", "in": "header", "required": True, "schema": {"type": "integer", "multipleOf": 2}}
