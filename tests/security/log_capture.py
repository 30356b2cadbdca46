"""What the service would write to its log, in either form, while something is tried."""

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

from structlog._config import BoundLoggerLazyProxy

from service.log import set_up_logging
from service.settings import Settings


@contextmanager
def captured_log(settings: Settings, *, as_json: bool) -> Iterator[io.StringIO]:
    """All lines of this process, by the very renderers that a terminal or production gets."""
    written = io.StringIO()
    with redirect_stdout(written):
        set_up_logging(settings.model_copy(update={"log_json": as_json}))
    _forget_loggers()
    try:
        yield written
    finally:
        set_up_logging(settings)
        _forget_loggers()


def _forget_loggers() -> None:
    """A module's logger keeps to what was set up when it first wrote."""
    for module in list(sys.modules.values()):
        for value in list(vars(module).values()) if getattr(module, "__name__", "").startswith("service") else ():
            if isinstance(value, BoundLoggerLazyProxy):
                vars(value).pop("bind", None)
