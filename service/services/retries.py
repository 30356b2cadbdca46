"""How long what has come to nothing waits for its next try."""

import random
from typing import Final

# Retries start soon, since most troubles are short, and end up 10 minutes apart.
_RETRY_FIRST_S: Final = 1.0
RETRY_MAX_S: Final = 600.0
# Beyond any ceiling, and far from what a float holds.
_DOUBLINGS: Final = 10


def retry_delay_s(tries: int, max_s: float = RETRY_MAX_S) -> float:
    """Full jitter above a floor (Brooker, "Exponential Backoff and Jitter", AWS 2015)."""
    ceiling_s = min(max_s, _RETRY_FIRST_S * 2 ** min(tries, _DOUBLINGS))
    return random.uniform(ceiling_s / 2, ceiling_s)  # noqa: S311 no secret
