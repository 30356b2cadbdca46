"""How long and how hard a soak is, and how much of it has to be accepted."""

import math
from collections.abc import Mapping
from typing import Final

USUAL_RATE: Final = 30.0
# Of what is due at the usual rate, on a machine where the client's 200 open requests are hardly ever answered. Beside
# several test suites it was 72 %.
_LEAST_SHARE: Final = 0.1


def read_measure(name: str, usual: float, environment: Mapping[str, str]) -> float:
    """Raises ValueError for what is no number above 0: a soak without time or requests would prove nothing."""
    told = environment.get(f"TEST_SOAK_{name}", str(usual))
    try:
        measure = float(told)
    except ValueError:
        measure = math.nan
    if not 0 < measure < math.inf:
        raise ValueError(f"{name} of the soak has to be a number above 0, not {told!r}: otherwise it proves nothing")
    return measure


def least_accepted(due: int, rate: float) -> int:
    """Counts what has to be accepted of what was due. Who asks for a higher rate than usual needs no more accepted."""
    return math.ceil(due * _LEAST_SHARE * min(1.0, USUAL_RATE / rate))
