"""Outages as a process tells of them: a line where one begins and a line where it ends, whatever it keeps waiting.

Which rows are kept waiting stands at debug level; one that is put back again and again is worth a warning.
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from time import monotonic
from typing import NamedTuple

import structlog

log = structlog.get_logger()

# Some calls still succeed in an outage. It is over once nothing has failed for this long.
_QUIET_S = 5.0
# At two seconds each that is more than a minute: longer than an election or a restart takes.
_PUT_BACK_OFTEN = 50
# A row is due again after two seconds, and then waits for a free hand. After this long it may have been worked on well.
_IN_A_ROW_S = 60.0
_ROWS_REMEMBERED = 10_000


@dataclass(slots=True)
class _Outage:
    began_s: float
    last_s: float
    failures: int = 0
    rows_put_back: int = 0


class _PutBack(NamedTuple):
    times: int
    last_s: float


class OutageLog:
    """One for each process."""

    def __init__(self, quiet_s: float = _QUIET_S) -> None:
        self._quiet_s = quiet_s
        self._outage: _Outage | None = None
        # By queue and row, the one put back last at the end.
        self._put_back: OrderedDict[tuple[str, str], _PutBack] = OrderedDict()

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

    def put_back(self, queue: str, row_id: str, error: BaseException) -> None:
        """Tells of a row that is put back; once as a warning, when this process has done so many times in a row."""
        now_s, row = monotonic(), (queue, row_id)
        before = self._put_back.pop(row, None)
        times = before.times + 1 if before is not None and now_s - before.last_s < _IN_A_ROW_S else 1
        self._put_back[row] = _PutBack(times, now_s)
        if len(self._put_back) > _ROWS_REMEMBERED:
            self._put_back.popitem(last=False)
        facts = {"queue": queue, "row_id": row_id, "times": times, "error": type(error).__name__}
        log.debug("outage.row_put_back", **facts)
        if times == _PUT_BACK_OFTEN:
            log.warning("outage.row_put_back_often", **facts)

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
