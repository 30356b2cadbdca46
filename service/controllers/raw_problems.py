"""Problem documents as bytes, for connections that are refused before the application sees a request."""

from http import HTTPStatus

from service.controllers.security_headers import SECURITY_HEADERS
from service.errors import PROBLEM_MEDIA_TYPE, WalletServiceError, problem_body


def raw_problem(error: WalletServiceError) -> bytes:
    """A whole HTTP/1.1 answer, which is the last one of its connection."""
    body = problem_body(error, None)
    headers = {
        "Content-Type": PROBLEM_MEDIA_TYPE,
        "Content-Length": str(len(body)),
        "Connection": "close",
        **SECURITY_HEADERS,
    }
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    lines = [f"HTTP/1.1 {error.http_status} {HTTPStatus(error.http_status).phrase}"]
    lines += [f"{name.lower()}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body
