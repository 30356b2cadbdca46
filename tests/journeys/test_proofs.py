"""From a deposit to a proof that needs nobody's word: through HTTP, the command line and files."""

import json
import sys
from pathlib import Path
from typing import Any

import httpx

from scripts.service_stack import Stack
from scripts.verify_proof import main
from tests.person import Person


class TestAPersonWhoTrustsNobody:
    async def test_keeps_the_key_and_proves_wallet_and_entry_offline(
        self, stack: Stack, http: httpx.AsyncClient, tmp_path: Path
    ) -> None:
        person = await Person.register(http)
        await person.fund(5_000)
        (entry,) = (await person.get(f"/wallets/{person.wallet_id}/transactions")).json()["data"]
        stack.run_to_end([sys.executable, "-m", "scripts.checkpoint"])
        files = {
            "keys": await person.get("/checkpoints/keys"),
            "kept": await person.get("/checkpoints"),
            "wallet": await person.get(f"/wallets/{person.wallet_id}/proof"),
            "entry": await person.get(f"/wallets/{person.wallet_id}/transactions/{entry['id']}/proof"),
            "statement": await person.get(
                f"/wallets/{person.wallet_id}/statement?from=2026-01-01T00:00:00Z&to=2126-01-01T00:00:00Z&format=json"
            ),
        }
        for name, answer in files.items():
            assert answer.status_code == 200, answer.text
            (tmp_path / name).write_bytes(answer.content)
        known = ("--key", str(tmp_path / "keys"), "--checkpoints", str(tmp_path / "kept"))
        for command in ("wallet", "entry"):
            assert main([command, str(tmp_path / command), *known]) == 0
        assert main(["statement", str(tmp_path / "statement"), str(tmp_path / "entry"), *known]) == 0
        forged: dict[str, Any] = files["entry"].json()
        forged["entry"]["amount"] += 1
        (tmp_path / "entry").write_text(json.dumps(forged))
        assert main(["entry", str(tmp_path / "entry"), *known]) == 1
