"""Exports of any length: one at a time for each user and few in a process, so that other requests keep their pace."""

from service.errors import ExportsBusy, TooManyExports

# In which about 100,000 movements are written: most files are done by then.
_RETRY_AFTER_S = 5


class Exports:
    """Those that this process is making. `limit` is how many it makes at one time."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._users: set[str] = set()

    def begin(self, user_id: str) -> None:
        """Whoever began one has to end it. Raises TooManyExports while the user has one, ExportsBusy where all have."""
        if user_id in self._users:
            raise TooManyExports(retry_after_s=_RETRY_AFTER_S)
        if len(self._users) >= self._limit:
            raise ExportsBusy(retry_after_s=_RETRY_AFTER_S)
        self._users.add(user_id)

    def end(self, user_id: str) -> None:
        self._users.discard(user_id)
