"""The file that takes the mails: whole lines, private, and nothing of them in production's log."""

import asyncio
import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts.stack_environment import ROOT
from service.gateways.mailbox import FileMailbox, Mail, MailboxUnavailable
from service.settings import Environment, Settings
from tests.logs import own_logs

_MAIL = Mail("wdr_1.abc", "asha@example.com", "Confirm your payment", "Your code is 492039\n")

_WRITER = """
import asyncio, sys
from service.gateways.mailbox import FileMailbox, Mail
from service.settings import Settings

async def send_all():
    mailbox = FileMailbox(Settings(_env_file=None))
    name = sys.argv[1]
    await asyncio.gather(*(mailbox.send(Mail(f"{name}.{n}", "a@b", "s", name * 8000)) for n in range(100)))

asyncio.run(send_all())
"""


def settings_of(folder: Path, **overrides: Any) -> Settings:
    settings = Settings(_env_file=None, mailbox_file=str(folder / "mails" / "mailbox.jsonl"))
    return settings.model_copy(update=overrides)


def mails_in(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


class TestFileMailbox:
    async def test_writes_a_line_for_each_mail_in_a_file_for_its_owner_only(self, tmp_path: Path) -> None:
        settings = settings_of(tmp_path)
        mailbox = FileMailbox(settings)
        await mailbox.send(_MAIL)
        await mailbox.send(_MAIL._replace(text="Zażółć\nline two"))
        path = Path(settings.mailbox_path)
        first, second = mails_in(path)
        assert first == _MAIL._asdict()
        assert (second["id"], second["text"]) == (_MAIL.id, "Zażółć\nline two")
        assert [mode_of(one) for one in (path, path.parent)] == [0o600, 0o700]

    async def test_lies_in_the_data_directory_unless_it_is_told_otherwise(self, tmp_path: Path) -> None:
        await FileMailbox(Settings(_env_file=None, data_dir=str(tmp_path / "data"))).send(_MAIL)
        assert (tmp_path / "data" / "mailbox.jsonl").exists()

    async def test_lines_of_two_processes_at_once_stay_whole(self, tmp_path: Path) -> None:
        path = tmp_path / "mailbox.jsonl"
        environment = {**os.environ, "WALLET_MAILBOX_FILE": str(path), "PYTHONPATH": str(ROOT)}
        writers = [
            await asyncio.create_subprocess_exec(
                sys.executable, "-c", _WRITER, name, env=environment, stdout=asyncio.subprocess.DEVNULL
            )
            for name in ("a", "b")
        ]
        assert [await writer.wait() for writer in writers] == [0, 0]
        mails = [Mail(**mail) for mail in mails_in(path)]
        assert sorted(mail.id for mail in mails) == sorted(f"{name}.{n}" for name in "ab" for n in range(100))
        assert all(mail.text == mail.id[0] * 8000 for mail in mails)

    async def test_a_place_where_it_cannot_write_is_an_error_of_its_own(self, tmp_path: Path) -> None:
        (tmp_path / "mails").write_text("a file where the folder should be")
        with own_logs() as logs, pytest.raises(MailboxUnavailable):
            await FileMailbox(settings_of(tmp_path)).send(_MAIL)
        assert logs == []

    async def test_a_mail_that_was_written_in_part_is_not_called_sent(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write = os.write
        monkeypatch.setattr("service.gateways.mailbox.os.write", lambda file, line: write(file, line[:10]))
        with pytest.raises(MailboxUnavailable, match="disk full"):
            await FileMailbox(settings_of(tmp_path)).send(_MAIL)

    async def test_the_log_shows_the_mail_in_development_and_only_that_there_was_one_in_production(
        self, tmp_path: Path
    ) -> None:
        with own_logs() as logs:
            await FileMailbox(settings_of(tmp_path)).send(_MAIL)
            await FileMailbox(settings_of(tmp_path, env=Environment.PRODUCTION)).send(_MAIL)
        shown, hidden = logs
        assert (shown["event"], shown["text"]) == ("mailbox.sent", _MAIL.text)
        assert hidden == {"event": "mailbox.sent", "log_level": "info", "mail_id": _MAIL.id}
