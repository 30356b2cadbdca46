"""Outages as a process tells of them: a line where one begins and a line where it ends, whatever it keeps waiting."""

import asyncio
from dataclasses import dataclass
from time import monotonic

import structlog

log = structlog.get_logger()

# Some calls still succeed in an outage. It is over once nothing has failed for this long.
_QUIET_S = 5.0


@dataclass(slots=True)
class _Outage:
    began_s: float
    last_s: float
    failures: int = 0
    rows_put_back: int = 0


class OutageLog:
    """One for each process."""

    def __init__(self, quiet_s: float = _QUIET_S) -> None:
        self._quiet_s = quiet_s
        self._outage: _Outage | None = None

    def met(self, where: str, error: BaseException, *, rows_put_back: int = 0) -> None:
        """Notes that an outage stopped work in `where`. The first one is logged as a warning.

        Only the error's type is logged: the driver's texts may quote whole documents.
        """
        now_s = monotonic()
        outage = self._outage
        if outage is None:
            outage = self._outage = _Outage(now_s, now_s)
            code = getattr(error, "code", None)
            log.warning("outage.began", where=where, error=type(error).__name__, code=code)
            self._look_in(self._quiet_s)
        outage.last_s = now_s
        outage.failures += 1
        outage.rows_put_back += rows_put_back

    def _look_in(self, delay_s: float) -> None:
        asyncio.get_running_loop().call_later(delay_s, self._end_if_quiet)

    def _end_if_quiet(self) -> None:
        outage = self._outage
        if outage is None:
            return
        left_s = outage.last_s + self._quiet_s - monotonic()
        if left_s > 0:
            self._look_in(left_s)
            return
        self._outage = None
        log.info(
            "outage.ended",
            duration_s=round(outage.last_s - outage.began_s, 1),
            failures=outage.failures,
            rows_put_back=outage.rows_put_back,
        )


outages = OutageLog()
