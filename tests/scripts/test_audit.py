"""`make audit`: a secret that nobody has looked at is found, every package is listed, and silence is no all-clear."""

import json
import re
from pathlib import Path

import pytest

from scripts import audit
from scripts.audit import Hole, accept, find_secrets, look_for_holes, unknown_secrets, write_inventory

_LOCK = Path(__file__).parents[2] / "requirements.lock"


class TestSecrets:
    @pytest.mark.parametrize(
        "line",
        [
            # Put together, so that the scan of this file finds none.
            "-----BEGIN " + "PRIVATE KEY-----",
            "key = '" + "AKIA" + "IOSFODNN7EXAMPLQ'",
            "url = 'mongodb://root:" + "hunter2hunter2@db.example.com'",
            "token = '" + "k3Jx9vQ2Lr7Wb5Tn8Zp4Yc6Hd1Fg0Sa+Me/Uo=='",
        ],
    )
    def test_are_found_until_somebody_has_looked_at_them(self, tmp_path: Path, line: str) -> None:
        (tmp_path / "settings.py").write_text(f"# A file.\n{line}\n")
        baseline = tmp_path / "baseline.json"
        (secret,) = {one.line: one for one in find_secrets(["settings.py"], tmp_path)}.values()
        assert (secret.file, secret.line) == ("settings.py", 2)
        assert unknown_secrets([secret], baseline) == [secret]
        accept([secret], baseline)
        assert unknown_secrets([secret], baseline) == []
        # Another one in the same file is told.
        assert unknown_secrets([secret._replace(hash="0" * 40)], baseline) != []

    def test_are_looked_for_in_what_git_knows(self) -> None:
        files = audit.known_files()
        assert {"README.md", "service/settings.py", "tests/scripts/test_audit.py"} <= set(files)
        assert "requirements.lock" not in files


class TestTheInventory:
    def test_has_every_locked_package_and_its_hashes(self, tmp_path: Path) -> None:
        path = tmp_path / "sbom.json"
        locked = re.findall(r"^([\w.-]+)==([^ ;\\]+)", _LOCK.read_text(), re.MULTILINE)
        assert write_inventory(path) == len(locked)
        written = json.loads(path.read_text())
        assert written["bomFormat"] == "CycloneDX"
        assert {(one["name"], one["version"]) for one in written["components"]} == set(locked)
        assert all(one["externalReferences"][0]["hashes"] for one in written["components"])


class TestKnownHoles:
    def test_are_told_by_the_first_source_that_answers(self) -> None:
        hole = {"id": "PYSEC-1", "fix_versions": ["2.0"]}
        answers = {
            "pypi": "no connection",
            "osv": json.dumps(
                {
                    "dependencies": [
                        {"name": "left", "version": "1.0", "vulns": [hole]},
                        {"name": "right", "version": "1.0", "vulns": []},
                        {"name": "ours", "skip_reason": "not found"},
                    ]
                }
            ),
        }
        assert look_for_holes(answers.__getitem__) == [Hole("left", "1.0", "PYSEC-1", "2.0")]

    def test_are_unknown_where_no_source_answers_or_knows_any_package(self, capsys: pytest.CaptureFixture[str]) -> None:
        knows_none = json.dumps({"dependencies": [{"name": "left", "skip_reason": "not found"}]})
        answers = {"pypi": knows_none, "osv": ""}
        assert look_for_holes(answers.__getitem__) is None
        assert audit._tell_holes(None, strict=False) == 0
        assert "NO SOURCE OF ADVISORIES HAS ANSWERED" in capsys.readouterr().err
        assert audit._tell_holes(None, strict=True) == 1
        assert audit._tell_holes([Hole("left", "1.0", "PYSEC-1", "2.0")], strict=False) == 1
