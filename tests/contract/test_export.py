"""docs/openapi.json, as clients find it in the repository."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import export_openapi


@pytest.fixture
def committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy = tmp_path / "openapi.json"
    copy.write_bytes(export_openapi.DOCUMENT.read_bytes())
    monkeypatch.setattr(export_openapi, "DOCUMENT", copy)
    monkeypatch.setattr(sys, "argv", ["export_openapi", "--check"])
    return copy


class TestTheCheck:
    def test_is_content_with_what_is_committed(self, committed: Path) -> None:
        assert committed.is_file()
        assert export_openapi.main() == 0

    def test_says_what_to_do_where_the_routes_have_changed(
        self, committed: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        committed.write_text(committed.read_text(encoding="utf-8").replace('"404"', '"418"', 1), encoding="utf-8")
        assert export_openapi.main() == 1
        assert "make openapi" in capsys.readouterr().err


class TestTheDocument:
    def test_is_the_same_on_every_machine(self) -> None:
        """Other settings, another seed for hashes: another process says the same to the byte."""
        environment = {**os.environ, "PYTHONHASHSEED": "7", "WALLET_DEFAULT_CURRENCY": "USD", "WALLET_PORT": "9"}
        command = [sys.executable, "-c", "import scripts.export_openapi as e; print(e.rendered(), end='')"]
        other = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout  # noqa: S603 ours
        assert other == export_openapi.rendered()
