"""A short run of `make fuzz`: the API keeps what its document promises, whatever comes in.

Over HTTP against a stack of its own, since callbacks that are rightly signed and speak of nothing leave books that
nobody else wants; `make fuzz` is the long run.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from scripts.fuzz import IDENTITIES, Identity, Run, fuzz
from scripts.service_stack import Stack
from tests.stack_fixtures import QUICK_BANK

# What there is to try of these, without what is random and without the rest: that is for the long run.
_OPTIONS = {
    "bo": ["--include-tag", "Wallets", "--include-tag", "Transfers", "--include-tag", "Webhooks"],
    "ines": ["--include-tag", "Adjustments"],
}
_FEWEST_CASES = 250

_EVEN = {"type": "integer", "multipleOf": 2}

Fuzz = Callable[..., Run]


@pytest.fixture(scope="module")
def fuzz_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("fuzz_stack"), settings=QUICK_BANK) as stack:
        stack.start_servers()
        stack.migrate()
        stack.start_api()
        stack.seed()
        yield stack


@pytest.fixture(scope="module")
def fuzz_api(fuzz_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Fuzz:
    def run(identity: Identity, **options: Any) -> Run:
        secret = fuzz_stack.settings["WALLET_BANK_WEBHOOK_SECRET"]
        return fuzz(fuzz_stack.base_url, secret, identity, tmp_path_factory.mktemp("fuzz"), seed=1, **options)

    return run


class TestTheApi:
    @pytest.mark.parametrize("identity", IDENTITIES, ids=lambda identity: identity.name)
    def test_keeps_what_its_document_promises(self, fuzz_api: Fuzz, identity: Identity) -> None:
        run = fuzz_api(identity, cases=1, options=["--phases", "coverage", *_OPTIONS[identity.name]])
        assert run.is_clean, run.output
        assert run.cases >= _FEWEST_CASES


class TestTheFuzzer:
    def test_notices_what_is_not_as_declared(self, fuzz_api: Fuzz, fuzz_stack: Stack, tmp_path: Path) -> None:
        """The same API against a document that promises something else."""
        document = httpx.get(f"{fuzz_stack.base_url}/openapi.json").json()
        wallet = document["paths"]["/api/v1/wallets/{wallet_id}"]["get"]
        del wallet["responses"]["422"]
        wallet["responses"]["200"]["headers"]["X-Missing"] = {"required": True, "schema": {"type": "string"}}
        limits = document["paths"]["/api/v1/wallets/{wallet_id}/limits"]["get"]
        limits["responses"]["200"]["content"]["application/json"]["schema"] = {"type": "string"}
        limits["parameters"].append({"name": "X-Unknown", "in": "header", "required": True, "schema": _EVEN})
        path = tmp_path / "openapi.json"
        path.write_text(json.dumps(document), encoding="utf-8")

        options = ["--include-operation-id", wallet["operationId"], "--include-operation-id", limits["operationId"]]
        run = fuzz_api(IDENTITIES[0], cases=1, document=path, options=["--phases", "examples,coverage", *options])

        assert not run.is_clean
        for finding in (
            "Undocumented status code",
            "Missing required response headers",
            "Response violates schema",
            "Schema-violating request accepted",
        ):
            assert finding in run.output, run.output
