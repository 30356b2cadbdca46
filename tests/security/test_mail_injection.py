"""Nothing that somebody chose becomes another header, another recipient or another mail."""

from collections.abc import AsyncIterator

import pytest

from service.gateways.mailbox import Mail, MailRefused
from tests.gateways.test_smtp_mailbox import mailbox_of
from tests.mail_server import MailServer, running_mail_server

_MAIL = Mail("wdr_1.abc", "asha@example.com", "Confirm your payment", "Your code is 492039\n")


@pytest.fixture
async def server() -> AsyncIterator[MailServer]:
    async with running_mail_server() as server:
        yield server


class TestInjection:
    @pytest.mark.parametrize(
        "to",
        [
            "asha@example.com\r\nBcc: eve@example.com",
            "asha@example.com\nRCPT TO:<eve@example.com>",
            "asha@example.com>\r\nRCPT TO:<eve@example.com",
            "asha@example.com, eve@example.com",
            "asha@example.com\u2028eve@example.com",
            "Asha <asha@example.com>",
            '"a\r\nb"@example.com',
            "asha",
            "asha@exa\u0000mple.com",
        ],
        ids=ascii,
    )
    async def test_what_is_no_single_address_goes_nowhere(self, server: MailServer, to: str) -> None:
        with pytest.raises(MailRefused):
            await mailbox_of(server).send(_MAIL._replace(to=to))
        assert server.taken == []

    @pytest.mark.parametrize("subject", ["Hi\r\nBcc: eve@example.com", "Hi\n\nYour code is 1", "Hi\rX: y"], ids=ascii)
    async def test_no_subject_begins_another_header(self, server: MailServer, subject: str) -> None:
        with pytest.raises(MailRefused):
            await mailbox_of(server).send(_MAIL._replace(subject=subject))
        assert server.taken == []

    async def test_no_text_ends_the_mail_and_begins_another(self, server: MailServer) -> None:
        text = (
            "one\r\n.\r\nMAIL FROM:<eve@example.com>\r\nRCPT TO:<eve@example.com>\r\nDATA\r\nSubject: x\r\n\r\ny\n.\n"
        )
        await mailbox_of(server).send(_MAIL._replace(text=text))
        (mail,) = server.taken
        assert mail.letter.get_content().replace("\r\n", "\n") == text.replace("\r\n", "\n")
