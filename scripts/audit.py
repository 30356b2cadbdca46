"""Looks at what the service is made of: `python -m scripts.audit`.

Three parts. Secrets in the files that Git knows, against a baseline of those that were looked at. An inventory of every
locked package (CycloneDX). Known holes of these packages, where a source of advisories answers. Ends with 1 where a
secret or a hole is found. Offline only the third part is left out, and that is said loudly.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from detect_secrets.core.secrets_collection import SecretsCollection
from detect_secrets.settings import transient_settings

ROOT: Final = Path(__file__).parents[1]
BASELINE: Final = ROOT / "scripts" / "secrets_baseline.json"
LOCK: Final = ROOT / "requirements.lock"
SBOM: Final = ROOT / "sbom.cdx.json"

# Secrets under a name in Python are ruff's (S105 to S107). These know secrets by their looks, and ask nobody.
_PLUGINS: Final[list[dict[str, Any]]] = [
    {"name": "AWSKeyDetector"},
    {"name": "Base64HighEntropyString", "limit": 4.5},
    {"name": "BasicAuthDetector"},
    {"name": "GitHubTokenDetector"},
    {"name": "GitLabTokenDetector"},
    {"name": "HexHighEntropyString", "limit": 3.0},
    {"name": "JwtTokenDetector"},
    {"name": "NpmDetector"},
    {"name": "PrivateKeyDetector"},
    {"name": "PypiTokenDetector"},
]
_HEURISTICS: Final = ("is_sequential_string", "is_potential_uuid", "is_templated_secret", "is_indirect_reference")
_FILTERS: Final = [{"path": f"detect_secrets.filters.heuristic.{name}"} for name in _HEURISTICS]
# Locks are full of hashes, and what is generated repeats what it is generated from.
_LEFT_OUT: Final = frozenset(
    {
        "requirements.lock",
        "scripts/postman/newman/package-lock.json",
        "scripts/secrets_baseline.json",
        "docs/openapi.json",
        "docs/wallet.postman_collection.json",
    }
)
# Asks two sources and takes the first answer: both have the database of PyPA.
_SOURCES: Final = ("pypi", "osv")
_SOURCE_TIMEOUT_S: Final = 10
_LOOK_TIMEOUT_S: Final = 300.0
_NOBODY_ANSWERED: Final = """\
!!! NO SOURCE OF ADVISORIES HAS ANSWERED: nobody has looked for known holes in the packages. Run `make audit` where
!!! one can be reached, before each release and once a week."""


class Secret(NamedTuple):
    """`hash` is the SHA-1 that detect-secrets makes, so that the baseline shows none."""

    file: str
    kind: str
    hash: str
    line: int = 0

    @property
    def key(self) -> tuple[str, str, str]:
        return self.file, self.kind, self.hash


class Hole(NamedTuple):
    package: str
    version: str
    advisory: str
    mended_in: str


def find_secrets(files: Sequence[str], root: Path = ROOT) -> list[Secret]:
    """Finds what looks like a secret in these files, in the order of files and lines."""
    found = SecretsCollection(root=str(root))
    with transient_settings({"plugins_used": _PLUGINS, "filters_used": _FILTERS}):
        found.scan_files(*files)
    return sorted(
        Secret(file, secret.type, secret.secret_hash, secret.line_number)
        for file, secret in found
        if secret.secret_hash
    )


def known_files(root: Path = ROOT) -> list[str]:
    """Lists the files that Git knows, without locks and what is generated."""
    listed = _run(("git", "-C", str(root), "ls-files"), 60.0).splitlines()
    return [name for name in listed if name not in _LEFT_OUT and (root / name).is_file()]


def unknown_secrets(found: Iterable[Secret], baseline: Path = BASELINE) -> list[Secret]:
    """Returns those that nobody has looked at yet."""
    known = json.loads(baseline.read_text(encoding="utf-8")) if baseline.exists() else {}
    return [one for one in found if one.hash not in known.get(one.file, {}).get(one.kind, [])]


def accept(found: Iterable[Secret], baseline: Path = BASELINE) -> None:
    """Writes all of them into the baseline. Its diff is what somebody has to read."""
    files: dict[str, dict[str, list[str]]] = {}
    for file, kind, digest in sorted({one.key for one in found}):
        files.setdefault(file, {}).setdefault(kind, []).append(digest)
    baseline.write_text(json.dumps(files, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def write_inventory(path: Path = SBOM, lock: Path = LOCK) -> int:
    """Writes every locked package with version and hashes, and returns how many there are."""
    arguments = ("requirements", "--output-format", "JSON", "--output-file", str(path), str(lock))
    _run((sys.executable, "-W", "ignore", "-m", "cyclonedx_py", *arguments), 120.0)
    return len(json.loads(path.read_text(encoding="utf-8"))["components"])


def look_for_holes(ask: Callable[[str], str]) -> list[Hole] | None:
    """Returns the known holes by the first source that answers; None where none does.

    `ask` returns what pip-audit says in JSON. A source that knows none of the packages has not answered: a mirror of an
    index often has no advisories.
    """
    for source in _SOURCES:
        try:
            told = json.loads(ask(source))["dependencies"]
        except (ValueError, KeyError, TypeError):
            continue
        looked_up = [one for one in told if "skip_reason" not in one]
        if looked_up:
            return [hole for one in looked_up for hole in _holes_of(one)]
    return None


def _holes_of(package: Mapping[str, Any]) -> list[Hole]:
    return [
        Hole(package["name"], package["version"], hole["id"], ", ".join(hole.get("fix_versions", [])) or "no version")
        for hole in package.get("vulns", [])
    ]


def _ask(source: str) -> str:
    locked = ("--requirement", str(LOCK), "--require-hashes", "--no-deps", "--disable-pip")
    shape = ("--format", "json", "--progress-spinner", "off", "--timeout", str(_SOURCE_TIMEOUT_S))
    command = (sys.executable, "-m", "pip_audit", *locked, *shape, "--vulnerability-service", source)
    try:
        return _run(command, _LOOK_TIMEOUT_S, may_fail=True)
    except subprocess.TimeoutExpired:
        return ""


def _run(command: Sequence[str], timeout_s: float, *, may_fail: bool = False) -> str:
    ended = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    if ended.returncode and not may_fail:
        raise SystemExit(f"{' '.join(command)} failed:\n{ended.stderr}")
    return ended.stdout


def main() -> int:
    parser = argparse.ArgumentParser(description="Look for secrets and known holes, and write an inventory.")
    parser.add_argument("--offline", action="store_true", help="ask no source of advisories")
    parser.add_argument("--strict", action="store_true", help="fail too where no source of advisories answers")
    parser.add_argument("--accept", action="store_true", help="write what looks like a secret into the baseline")
    options = parser.parse_args()
    files = known_files()
    secrets = find_secrets(files)
    if options.accept:
        accept(secrets)
        print(f"Written: {BASELINE.relative_to(ROOT)}. Read its diff: what is in there is not told any more.")
        return 0
    unknown = unknown_secrets(secrets)
    for one in unknown:
        print(f"SECRET {one.file}:{one.line}: {one.kind}")
    print(f"secrets: {len(files)} files, {len(unknown)} that nobody has looked at")
    print(f"inventory: {write_inventory()} packages in {SBOM.relative_to(ROOT)}")
    return _tell_holes(None if options.offline else look_for_holes(_ask), strict=options.strict) or int(bool(unknown))


def _tell_holes(holes: list[Hole] | None, *, strict: bool) -> int:
    if holes is None:
        print(_NOBODY_ANSWERED, file=sys.stderr)
        return int(strict)
    for hole in holes:
        print(f"HOLE {hole.package} {hole.version}: {hole.advisory}, mended in {hole.mended_in}")
    print(f"known holes: {len(holes)}")
    return int(bool(holes))


if __name__ == "__main__":
    sys.exit(main())
