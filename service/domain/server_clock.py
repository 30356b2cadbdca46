"""The time at MongoDB's server, beside the latest that it has ever been there."""

from datetime import datetime, timedelta
from typing import NamedTuple


class ServerTime(NamedTuple):
    """`highest_at` is later than `now` where the server's clock was ahead and was set right, or another server with
    another clock has become the primary.
    """

    now: datetime
    highest_at: datetime

    @property
    def set_back_by(self) -> timedelta:
        return self.highest_at - self.now

    def shifted(self, by: timedelta) -> "ServerTime":
        """The same by a clock that is so far ahead of the server's."""
        return ServerTime(self.now + by, self.highest_at + by)
