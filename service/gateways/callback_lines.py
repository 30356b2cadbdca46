"""The simulated bank's way to its client: several connections that stay open, each with a thread that posts on it.

An asynchronous client was measured at ten times the work for each post, most of it in managing the connections.
"""

import asyncio
import contextlib
import http.client
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple
from urllib.parse import urlsplit

# The API keeps what arrives together in one write, so that more of them are less work for it; few enough to leave room
# for others.
_LINES = 24
_TIMEOUT_S = 5.0
_OK = range(200, 300)


class Post(NamedTuple):
    """Signed each time that it is sent: it may have waited, and the receiver takes no signature of five minutes ago."""

    sign: Callable[[], Mapping[str, str]]
    body: bytes

    @property
    def headers(self) -> Mapping[str, str]:
        return self.sign()


# Why a post was not taken; None where it was.
Trouble = str | None


class CallbackLines:
    def __init__(self, url: str) -> None:
        self._address = urlsplit(url)
        self._lines = [_Line(self._address.scheme, self._address.netloc) for _ in range(_LINES)]
        self._free: asyncio.Queue[_Line] = asyncio.Queue()
        for line in self._lines:
            self._free.put_nowait(line)
        self._threads = ThreadPoolExecutor(_LINES, thread_name_prefix="callbacks")

    async def post_all(self, series: Sequence[Sequence[Post]]) -> list[list[Trouble]]:
        """Each series in its order, one after the other; different ones side by side. Never raises for a receiver."""
        shares = [list(range(start, len(series), _LINES)) for start in range(min(_LINES, len(series)))]
        told = await asyncio.gather(*(self._post_share([series[one] for one in share]) for share in shares))
        troubles: list[list[Trouble]] = [[] for _ in series]
        for share, answers in zip(shares, told, strict=True):
            for one, answer in zip(share, answers, strict=True):
                troubles[one] = answer
        return troubles

    async def _post_share(self, share: Sequence[Sequence[Post]]) -> list[list[Trouble]]:
        line = await self._free.get()
        try:
            path = f"{self._address.path or '/'}{'?' + self._address.query if self._address.query else ''}"
            return await asyncio.get_running_loop().run_in_executor(self._threads, line.post_share, path, share)
        finally:
            self._free.put_nowait(line)

    def close(self) -> None:
        """Posts under way end by themselves, within their timeout."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for line in self._lines:
            line.close()


class _Line:
    """One connection, used by one thread at a time."""

    def __init__(self, scheme: str, netloc: str) -> None:
        kind = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
        self._connection = kind(netloc, timeout=_TIMEOUT_S)

    def post_share(self, path: str, share: Sequence[Sequence[Post]]) -> list[list[Trouble]]:
        """Where nobody answers, the rest of the share is not tried: it would wait as long each time."""
        gone: Trouble = None
        told: list[list[Trouble]] = []
        for series in share:
            troubles: list[Trouble] = []
            for post in series:
                if gone is None:
                    try:
                        status = self._post(path, post)
                    except (OSError, http.client.HTTPException) as error:
                        gone = repr(error)
                        troubles.append(gone)
                    else:
                        troubles.append(None if status in _OK else f"status {status}")
                else:
                    troubles.append(gone)
                if troubles[-1] is not None:
                    # What comes after it must not overtake it.
                    troubles += [troubles[-1]] * (len(series) - len(troubles))
                    break
            told.append(troubles)
        return told

    def _post(self, path: str, post: Post) -> int:
        is_old = self._connection.sock is not None
        try:
            return self._exchange(path, post)
        except (ConnectionError, http.client.BadStatusLine):
            # A server may end a connection that was idle just as it is used again.
            if not is_old:
                raise
            return self._exchange(path, post)

    def _exchange(self, path: str, post: Post) -> int:
        try:
            self._connection.request("POST", path, post.body, dict(post.headers))
            response = self._connection.getresponse()
            response.read()
        except BaseException:
            self.close()
            raise
        return response.status

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._connection.close()
