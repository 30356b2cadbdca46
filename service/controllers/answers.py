"""Answers as they go out."""

from collections.abc import Mapping
from typing import Any

from fastapi import Response

from service.domain.exact_json import to_json
from service.domain.idempotency import Answer
from service.errors import PROBLEM_MEDIA_TYPE

_FIRST_ERROR_STATUS = 400


def json_response(body: Mapping[str, Any], status_code: int = 200) -> Response:
    """Of what a view function shaped: it is what the route declares, so nothing looks at it again."""
    return Response(to_json(body), status_code, media_type="application/json")


def respond(answer: Answer) -> Response:
    """The answer to the byte, with a note where it was given before."""
    is_problem = answer.status_code >= _FIRST_ERROR_STATUS
    response = Response(
        answer.body,
        answer.status_code,
        media_type=PROBLEM_MEDIA_TYPE if is_problem else "application/json",
    )
    if answer.replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return response
