"""A short run of `make fuzz`: the API keeps what its document promises, whatever comes in.

Over HTTP against the stack with processes of its own; `make fuzz` is the long run.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from scripts.fuzz.run import IDENTITIES, Identity, Run, fuzz
from scripts.service_stack import Stack

# What there is to try of these, without what is random and without the rest: that is for the long run.
_OPTIONS = {
    "bo": ["--include-tag", "Wallets", "--include-tag", "Transfers", "--include-tag", "Webhooks"],
    "ines": ["--include-tag", "Adjustments"],
}
_FEWEST_CASES = 250

_EVEN = {"type": "integer", "multipleOf": 2}

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
    def test_notices_what_is_not_as_declared(self, fuzz_stack: Fuzz, stack: Stack, tmp_path: Path) -> None:
        """The same API against a document that promises something else."""
        document = httpx.get(f"{stack.base_url}/openapi.json").json()
        wallet = document["paths"]["/api/v1/wallets/{wallet_id}"]["get"]
        for status in ("404", "422"):
            del wallet["responses"][status]
        wallet["responses"]["200"]["headers"]["X-Missing"] = {"required": True, "schema": {"type": "string"}}
        limits = document["paths"]["/api/v1/wallets/{wallet_id}/limits"]["get"]
        limits["responses"]["200"]["content"]["application/json"]["schema"] = {"type": "string"}
        limits["parameters"].append({"name": "X-Unknown", "in": "header", "required": True, "schema": _EVEN})
        path = tmp_path / "openapi.json"
        path.write_text(json.dumps(document), encoding="utf-8")

        options = ["--include-operation-id", wallet["operationId"], "--include-operation-id", limits["operationId"]]
        run = fuzz_stack(IDENTITIES[0], cases=1, document=path, options=["--phases", "examples,coverage", *options])

        assert not run.is_clean
        for finding in (
            "Undocumented status code",
            "Missing required response headers",
            "Response violates schema",
            "Schema-violating request accepted",
        ):
            assert finding in run.output, run.output
