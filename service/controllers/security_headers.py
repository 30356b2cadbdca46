"""The security headers of every answer, also of those that the connection gives before there is an application."""

from typing import Final

SECURITY_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    # Answers are data: nothing in them is to be loaded, run or framed, whatever somebody makes a browser do with one.
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Tokens, codes and balances: nothing of it stays in a cache on the way (RFC 6749, section 5.1).
    "Cache-Control": "no-store",
}
