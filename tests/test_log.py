"""Logs: JSON in production, readable in a terminal, and never a secret in them."""

import json
import logging
from collections.abc import Iterator
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
import structlog

from service.log import set_up_logging
from service.settings import Environment, Settings
from tests.test_settings import PRODUCTION, STAND_INS

_PRODUCTION = Settings(_env_file=None, env=Environment.PRODUCTION, **PRODUCTION, **STAND_INS)


class Told(NamedTuple):
    amount: str
    text: str


def crash(text: str) -> None:
    """With the text in the cause of what is raised."""
    try:
        json.loads("{")
    except json.JSONDecodeError as cause:
        cause.add_note(text)
        raise ValueError("because of it") from cause


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

    @pytest.mark.parametrize("is_wanted", [False, True])
    def test_says_what_is_only_for_a_search_where_that_is_wanted(
        self, capsys: pytest.CaptureFixture[str], is_wanted: bool
    ) -> None:
        """Not what the libraries say then: they quote whole documents."""
        set_up_logging(_PRODUCTION.model_copy(update={"log_debug": is_wanted}))
        structlog.get_logger("fresh").debug("outage.row_put_back", row_id="row-1")
        logging.getLogger("some.library").debug("a document")
        written = capsys.readouterr().out
        assert ("row-1" in written) is is_wanted
        assert "a document" not in written

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

    @pytest.mark.parametrize(
        "text",
        [
            "cannot pay {'account': 'canary-account-1', 'amount': 5}",
            'body was {"password": "canary \\t and more"}',
            "Withdrawal(destination='canary', amount=5)",
            "Order(account=canary-1, x=1)",
            "1 validation error [type=x, input_value='canary', input_type=str]",
            "mongodb://wallet:canary@127.0.0.1:27017/?replicaSet=rs0: connection refused",
            "redis://:canary@127.0.0.1:6379/0",
            "Authorization: Bearer canary.canary.canary",
            "refused eyJhbGciOiJIUzI1NiJ9.canary-canary.canary",
            "key wsk_abcdefgh_canary7canary7canary7",
            "token wrt_canarycanarycanarycanary==",
            "whsec_canary7canary7canary7",
            "$argon2id$v=19$m=19456,t=2,p=1$canary$canary",
        ],
    )
    @pytest.mark.parametrize("place", ["message", "field", "nested", "exception", "library"])
    def test_a_secret_in_a_text_is_hidden_wherever_the_text_is(
        self, capsys: pytest.CaptureFixture[str], text: str, place: str
    ) -> None:
        set_up_logging(_PRODUCTION)
        log = structlog.get_logger("fresh")
        match place:
            case "message":
                log.info(text)
            case "field":
                log.info("something", detail=text)
            case "nested":
                log.info("something", detail={"list": [1, (text, Told("x", text))], "error": ValueError(text)})
            case "library":
                logging.getLogger("some.library").warning("it says: %s", text)
            case _:
                try:
                    crash(text)
                except ValueError:
                    log.exception("request.crashed")
        written = capsys.readouterr().out
        assert "canary" not in written
        assert "[hidden]" in written

    @pytest.mark.parametrize(
        "number",
        [
            "123456789",
            "4111 1111 1111 1111",
            "4111111111111111",
            "GB82 WEST 1234 5698 7654 32",
            "DE89370400440532013000",
            "0997N-DG0DT-F8NBF-Z9B1H-TMKR5G",
            "GAYT-EMZU-GU3D-OOBZ",
        ],
    )
    def test_what_looks_like_an_account_or_a_code_is_hidden(
        self, capsys: pytest.CaptureFixture[str], number: str
    ) -> None:
        set_up_logging(_PRODUCTION)
        structlog.get_logger("fresh").warning("something", detail=f"refused: {number}, twice {number}.")
        assert number not in capsys.readouterr().out

    def test_nested_names_hide_what_is_under_them(self, capsys: pytest.CaptureFixture[str]) -> None:
        set_up_logging(_PRODUCTION)
        structlog.get_logger("fresh").info(
            "something", order={"amount": 5, "destination": "canary", "parts": [{"api_key": "canary"}]}
        )
        written = json.loads(capsys.readouterr().out)
        assert written["order"] == {"amount": 5, "destination": "[hidden]", "parts": [{"api_key": "[hidden]"}]}

    @pytest.mark.parametrize(
        "plain",
        [
            "wdr_0198c0ffee0070008000000000000001",
            "/api/v1/wallets/wal_0198c0ffee0070008000000000000001/transactions",
            "/api/v1/redemptions/rdm_00000000000000000000000000000001",
            "0198c0ffee0070008000000000000001",
            "operation.settled",
            "INR",
            "2026-02-24T12:34:56.789Z",
            "The bank speaks of 10000 INR",
            "The bank gave no outcome in 15 attempts",
            "NetworkTimeout('127.0.0.1:27017: timed out (configured timeouts: connectTimeoutMS: 5000.0ms)')",
            "12.345678901",
        ],
    )
    def test_what_is_no_secret_stays_as_it_is(self, capsys: pytest.CaptureFixture[str], plain: str) -> None:
        set_up_logging(_PRODUCTION)
        structlog.get_logger("fresh").info("something", detail=plain, api_key_id="key_1", token_version=3, size=10**12)
        written = json.loads(capsys.readouterr().out)
        assert (written["detail"], written["size"]) == (plain, 10**12)
        assert (written["api_key_id"], written["token_version"]) == ("key_1", 3)

    def test_endless_texts_and_structures_are_cut(self, capsys: pytest.CaptureFixture[str]) -> None:
        set_up_logging(_PRODUCTION)
        endless: list[Any] = []
        endless.append(endless)
        structlog.get_logger("fresh").info("something", text="begin" + "x" * 10**6 + "end", endless=endless)
        line = capsys.readouterr().out
        written = json.loads(line)
        assert (written["text"][:5], written["text"][-3:]) == ("begin", "end")
        assert len(line) < 20_000

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
