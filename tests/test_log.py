"""Logs: JSON in production, readable in a terminal, and never a secret in them."""

import json
import logging
from collections.abc import Iterator
from uuid import uuid4

import pytest
import structlog

from service.log import set_up_logging
from service.settings import Environment, Settings
from tests.test_settings import PRODUCTION

_PRODUCTION = Settings(_env_file=None, env=Environment.PRODUCTION, **PRODUCTION)


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Other tests do not write into this one's captured output."""
    yield
    structlog.reset_defaults()
    logging.basicConfig(handlers=[logging.NullHandler()], force=True)


class TestLog:
    def test_production_writes_one_json_object_a_line_the_libraries_too(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        set_up_logging(_PRODUCTION)
        with structlog.contextvars.bound_contextvars(request_id="req-1", job_id="job-1"):
            structlog.get_logger("fresh").info("withdrawal.accepted", amount=5)
            logging.getLogger("some.library").warning("look here")
        written = capsys.readouterr().out
        ours, theirs = (json.loads(line) for line in written.splitlines())
        assert (ours["event"], ours["request_id"], ours["job_id"], ours["amount"]) == (
            "withdrawal.accepted",
            "req-1",
            "job-1",
            5,
        )
        assert (theirs["event"], theirs["request_id"]) == ("look here", "req-1")

    def test_a_terminal_gets_readable_lines(self, capsys: pytest.CaptureFixture[str]) -> None:
        set_up_logging(Settings(_env_file=None))
        structlog.get_logger("fresh").info("withdrawal.accepted", amount=5)
        written = capsys.readouterr().out
        assert "withdrawal.accepted" in written
        assert not written.startswith("{")

    @pytest.mark.parametrize(
        "field",
        [
            "password",
            "new_password",
            "jwt_secret",
            "encryption_key",
            "access_token",
            "Authorization",
            "destination",
            "source",
        ],
    )
    def test_a_secret_passed_by_mistake_is_hidden(self, capsys: pytest.CaptureFixture[str], field: str) -> None:
        set_up_logging(_PRODUCTION)
        structlog.get_logger("fresh").info("something", **{field: "canary"})
        written = capsys.readouterr().out
        assert "canary" not in written
        assert json.loads(written)[field] == "[hidden]"

    @pytest.mark.parametrize("settings", [Settings(_env_file=None), _PRODUCTION], ids=["terminal", "production"])
    def test_a_crash_shows_where_but_no_local_variables(
        self, capsys: pytest.CaptureFixture[str], settings: Settings
    ) -> None:
        set_up_logging(settings)

        def log_in(password: str) -> None:
            raise RuntimeError(f"a defect, whoever has {len(password)} characters")

        canary = uuid4().hex
        try:
            log_in(canary)
        except RuntimeError:
            structlog.get_logger("fresh").exception("request.crashed")
        written = capsys.readouterr().out
        assert "log_in" in written
        assert canary not in written

    def test_a_full_disk_costs_lines_and_nothing_else(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Full:
            def write(self, _text: str) -> int:
                raise OSError("no space left on device")

            def flush(self) -> None:
                raise OSError("no space left on device")

            def isatty(self) -> bool:
                return False

        monkeypatch.setattr("sys.stdout", Full())
        set_up_logging(_PRODUCTION)
        structlog.get_logger("fresh").info("withdrawal.accepted")
