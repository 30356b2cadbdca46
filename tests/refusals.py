"""What an answer refuses with."""

import httpx


def refusal(answer: httpx.Response) -> tuple[int, str]:
    """Status and code."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json()["error"]
