"""Clocks that are wrong, one process at a time: libfaketime (Debian's package `faketime`) between it and the kernel.

A file for each process says by how much; it is read again every second, so that a clock can leap while it runs, and
later be right again. What measures durations (CLOCK_MONOTONIC) stays right, as it does on a real machine.
"""

from pathlib import Path
from typing import Final

_LIBRARIES: Final = ("/usr/lib/*/faketime/libfaketimeMT.so.1", "/usr/lib/faketime/libfaketimeMT.so.1")


def find_library() -> Path | None:
    for pattern in _LIBRARIES:
        for found in Path("/").glob(pattern.removeprefix("/")):
            return found
    return None


class Clocks:
    def __init__(self, folder: Path, library: Path) -> None:
        folder.mkdir(parents=True)
        self._folder, self._library = folder, library

    def environment(self, name: str) -> dict[str, str]:
        """For the process of that name, whose clock is right at first."""
        self.set(name, 0)
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file(name)),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
            # Waits between threads go by the monotonic clock, which stays as it is. Otherwise libfaketime translates
            # them, and a write that a majority confirms takes 300 to 600 ms in mongod instead of 5.
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",
        }

    def set(self, name: str, ahead_s: int) -> None:
        fresh = self._folder / f"{name}.new"
        fresh.write_text(f"{ahead_s:+d}\n")
        fresh.replace(self._file(name))

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.offset"
