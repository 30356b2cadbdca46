"""What tests of the domain may ask for besides."""

import time
from collections.abc import Iterator

import pytest


@pytest.fixture
def in_kolkata(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The machine's own zone, half an hour off those of UTC."""
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()
