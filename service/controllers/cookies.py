"""Sessions in cookies, for browsers: no script can read the tokens, and no other site can use them.

`__Host-` in a name makes browsers take the cookie only with Secure, for this host alone and for all paths, so that
no neighbouring host can plant one. Whoever sends `Authorization` or an API key is not asked for cookies.
"""

from fastapi import Request, Response

from service.services.csrf import csrf_token, require_csrf_token
from service.services.refresh_tokens import Tokens
from service.settings import Settings

ACCESS_COOKIE = "__Host-wallet_access"
REFRESH_COOKIE = "__Host-wallet_refresh"
# Scripts of one's own page read this one, after a reload too. It opens nothing without the other two.
CSRF_COOKIE = "__Host-wallet_csrf"
CSRF_HEADER = "X-CSRF-Token"

# As RFC 9110, section 9.2.1 calls them: they change nothing, so that nobody is harmed who is made to send one.
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def access_token_of(request: Request) -> str:
    """Returns the access token of a caller who was let in, from the header or else from the cookie."""
    sent = request.headers.get("Authorization")
    return request.cookies[ACCESS_COOKIE] if sent is None else sent.partition(" ")[2]


def came_by_cookie(request: Request) -> bool:
    return "Authorization" not in request.headers and ACCESS_COOKIE in request.cookies


def require_csrf(request: Request, settings: Settings, session_id: str) -> None:
    """Beside cookies, which browsers add by themselves. Raises CsrfTokenInvalid."""
    if request.method not in _SAFE_METHODS:
        require_csrf_token(settings, session_id, request.headers.get(CSRF_HEADER))


def set_cookies(response: Response, tokens: Tokens, settings: Settings) -> None:
    """The CSRF token lives as long as the refresh token: a refresh asks for it too."""
    csrf = csrf_token(settings, tokens.session_id)
    _set(response, ACCESS_COOKIE, tokens.access_token, tokens.expires_in)
    _set(response, REFRESH_COOKIE, tokens.refresh_token, tokens.refresh_expires_in)
    _set(response, CSRF_COOKIE, csrf, tokens.refresh_expires_in, is_readable=True)


def clear_cookies(request: Request, response: Response) -> None:
    """Those that the browser has sent."""
    for name in (ACCESS_COOKIE, REFRESH_COOKIE, CSRF_COOKIE):
        if name in request.cookies:
            _set(response, name, "", 0, is_readable=name == CSRF_COOKIE)


def _set(response: Response, name: str, value: str, max_age_s: int, *, is_readable: bool = False) -> None:
    response.set_cookie(
        name, value, max_age=max_age_s, path="/", secure=True, httponly=not is_readable, samesite="strict"
    )
