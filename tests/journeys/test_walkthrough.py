"""The README's walkthrough, run as it is printed there."""

import asyncio
import os
import subprocess
from pathlib import Path

from scripts.service_stack import Stack

_SCRIPT = Path(__file__).parents[2] / "scripts" / "walkthrough.sh"
_LIMIT_S = 60


def _run(base_url: str, script: Path = _SCRIPT) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(  # noqa: S603 our own script
        [str(script)],
        env={**os.environ, "BASE_URL": base_url},
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
        check=False,
    )


class TestWalkthrough:
    async def test_it_ends_well_against_a_running_stack(self, stack: Stack) -> None:
        ended = await asyncio.to_thread(_run, stack.base_url)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert "== 9. Balance" in ended.stdout
        assert "All as expected." in ended.stdout
        assert "idempotent-replayed: true" in ended.stderr

    async def test_it_fails_loudly_where_a_step_is_not_as_it_should_be(self, stack: Stack, tmp_path: Path) -> None:
        """A copy whose README expects another balance."""
        readme = (_SCRIPT.parents[1] / "README.md").read_text()
        (tmp_path / "README.md").write_text(readme.replace("= 75000 ]", "= 75001 ]"))
        (tmp_path / "scripts").mkdir()
        copy = tmp_path / "scripts" / "walkthrough.sh"
        copy.write_text(_SCRIPT.read_text())
        copy.chmod(0o755)
        ended = await asyncio.to_thread(_run, stack.base_url, copy)
        assert ended.returncode == 1
        assert "FAILED" in ended.stderr

    async def test_it_fails_loudly_where_nobody_answers(self) -> None:
        ended = await asyncio.to_thread(_run, "http://127.0.0.1:1")
        assert ended.returncode == 1
