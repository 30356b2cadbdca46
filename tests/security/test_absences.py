"""What docs/security.md says is not there: programs that are started, code made from text, redirects, weak chance."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_SOURCES = sorted(path for folder in ("service", "workers") for path in (_ROOT / folder).rglob("*.py"))
_FORBIDDEN_MODULES = {"subprocess", "pty", "pickle", "marshal", "shelve", "xml", "lxml", "yaml", "jinja2"}
_FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
_FORBIDDEN_NAMES = {"RedirectResponse", "create_subprocess_exec", "create_subprocess_shell", "system", "popen"}
_PATTERN_CALLS = {"compile", "match", "search", "fullmatch", "sub", "subn", "split", "findall", "finditer"}
# Pauses that should not fall together, retries, and what the simulated bank does. Nothing of these is a secret.
_CHANCE = {
    "service/gateways/bank_behaviours.py", "service/gateways/simulated_bank.py", "service/ledger/committer.py",
    "service/services/bank_callbacks.py", "service/services/dead_letters.py", "service/services/outbox.py",
    "service/services/replay.py", "service/services/retries.py", "service/services/settlement.py",
    "service/services/webhook_courier.py",
    "workers/account_sums.py", "workers/presence.py", "workers/reconciliation.py", "workers/repeating.py",
}  # fmt: skip


def problems_in(source: str, name: str = "service/new.py") -> list[str]:
    tree = ast.parse(source)
    return [*_modules(tree, name), *_names(tree), *_patterns(tree)]


def _modules(tree: ast.Module, name: str) -> Iterator[str]:
    for node in ast.walk(tree):
        found = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for module in found:
            top = module.partition(".")[0]
            if top in _FORBIDDEN_MODULES:
                yield f"imports {module}"
            if top == "random" and name not in _CHANCE:
                yield "imports random"


def _names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _FORBIDDEN_CALLS:
            yield f"calls {node.func.id}"
        if isinstance(node, ast.Attribute) and node.attr in _FORBIDDEN_NAMES:
            yield f"uses {node.attr}"
        if isinstance(node, ast.alias) and node.name in _FORBIDDEN_NAMES:
            yield f"imports {node.name}"


def _patterns(tree: ast.Module) -> Iterator[str]:
    """Inside functions a regular expression has to be written out."""
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for node in ast.walk(function):
            is_of_re = (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "re"
                and node.func.attr in _PATTERN_CALLS
            )
            if is_of_re and isinstance(node, ast.Call) and not isinstance(node.args[0], ast.Constant):
                yield f"makes a regular expression in {function.name}"


def test_nothing_of_the_kind_is_in_the_service() -> None:
    assert len(_SOURCES) > 200
    found = {
        name: problems
        for path in _SOURCES
        if (problems := problems_in(path.read_text(encoding="utf-8"), name := path.relative_to(_ROOT).as_posix()))
    }
    assert found == {}


@pytest.mark.parametrize(
    "planted",
    [
        "import subprocess",
        "from xml.etree import ElementTree",
        "import pickle",
        "import random",
        "eval('1')",
        "import os\nos.system('ls')",
        "from fastapi.responses import RedirectResponse",
        "import asyncio\nasyncio.create_subprocess_exec('ls')",
        "import re\ndef find(text):\n    return re.search(text, 'a')",
    ],
)
def test_each_kind_would_be_found(planted: str) -> None:
    assert len(problems_in(planted)) == 1


def test_the_image_has_no_more_than_it_names() -> None:
    rules = [line for line in (_ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*"
    named = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    assert named == {"pyproject.toml", "requirements.lock", "service", "workers", "seed", "scripts"}
