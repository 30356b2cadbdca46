"""What an attack has found: an answer that a sound service would not give."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

import httpx

from service import errors
from service.errors import PROBLEM_MEDIA_TYPE, WalletServiceError

_PROBLEM_MEMBERS = frozenset({"type", "title", "status", "detail", "error", "message", "request_id"})
_SHOWN = 12
_TEXT_SHOWN = 300


class Finding(NamedTuple):
    route: str
    attack: str
    what: str

    def __str__(self) -> str:
        return f"{self.route} — {self.attack}: {self.what}"


def report(findings: list[Finding]) -> str:
    """For a failing test: the first of them, and how many there are."""
    shown = "\n".join(str(one) for one in findings[:_SHOWN])
    return f"{len(findings)} findings\n{shown}"


def _known_codes() -> dict[str, set[int]]:
    """Every code of the error tree, with the statuses that it goes with."""
    codes = defaultdict(set)
    waiting: list[type[WalletServiceError]] = [errors.WalletServiceError]
    while waiting:
        kind = waiting.pop()
        codes[kind.code].add(kind.http_status)
        waiting.extend(kind.__subclasses__())
    return codes


def problem_of(response: httpx.Response) -> dict[str, Any]:
    """The problem document, or nothing where the answer is none."""
    if response.headers.get("content-type") != PROBLEM_MEDIA_TYPE:
        return {}
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def code_of(response: httpx.Response) -> str | None:
    return problem_of(response).get("error")


def weigh(
    response: httpx.Response, route: object, attack: str, *, allowed: Iterable[int] = range(400, 500)
) -> list[Finding]:
    """Findings about the answer to something that has to be refused: a boring problem document, or else."""
    wrong = _wrong_with(response, allowed)
    if wrong is None:
        return []
    return [Finding(str(route), attack, f"{wrong}: {response.status_code} {response.text[:_TEXT_SHOWN]}")]


def _wrong_with(response: httpx.Response, allowed: Iterable[int]) -> str | None:
    status = response.status_code
    if status < 400:
        return "it was not refused"
    if status >= 500:
        return "the service failed"
    if status not in allowed:
        return f"another status than {sorted(allowed)}"
    # The answer to HEAD has no body.
    return None if response.request.method == "HEAD" else _wrong_with_problem(response)


def _wrong_with_problem(response: httpx.Response) -> str | None:
    problem = problem_of(response)
    if not problem.keys() >= _PROBLEM_MEMBERS:
        return "no problem document"
    if response.status_code not in _known_codes().get(problem["error"], ()):
        return "a code that the error tree does not have with this status"
    if problem["status"] != response.status_code or problem["request_id"] != response.headers.get("X-Request-ID"):
        return "status or request_id differ from the answer's"
    return None
