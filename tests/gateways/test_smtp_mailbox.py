"""Mail by SMTP, against a real server: what arrives, what is told apart, and what cannot be slipped in."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import SecretStr

from service.gateways.mailbox import Mail, MailboxUnavailable, MailRefused
from service.gateways.smtp_mailbox import SmtpMailbox
from service.settings import Settings
from tests.certificates import make_tls
from tests.logs import own_logs
from tests.mail_server import MailServer, running_mail_server

_MAIL = Mail("wdr_1.abc", "asha@example.com", "Confirm your payment", "Your code is 492039\n•••• 0001\n.\n")


def mailbox_of(server: MailServer, **overrides: Any) -> SmtpMailbox:
    settings: dict[str, Any] = {
        "mail": "smtp",
        "mail_host": "127.0.0.1",
        "mail_port": server.port,
        "mail_tls": "none",
        "mail_from": "wallet@wallet.example",
    }
    return SmtpMailbox(Settings(_env_file=None, **(settings | overrides)))


@pytest.fixture
async def server() -> AsyncIterator[MailServer]:
    async with running_mail_server() as server:
        yield server


class TestWhatArrives:
    async def test_is_the_mail_from_our_sender_to_one_recipient_under_an_id_that_stays(
        self, server: MailServer
    ) -> None:
        mailbox = mailbox_of(server)
        for _ in range(2):
            await mailbox.send(_MAIL)
        await mailbox.send(_MAIL._replace(id="wdr_2.abc"))
        first, second, other = server.taken
        assert (first.sender, first.recipients) == ("wallet@wallet.example", [_MAIL.to])
        letter = first.letter
        assert (letter["From"], letter["To"], letter["Subject"]) == ("wallet@wallet.example", _MAIL.to, _MAIL.subject)
        assert letter.get_content().replace("\r\n", "\n") == _MAIL.text
        assert letter["Auto-Submitted"] == "auto-generated"
        assert letter["Message-ID"] == second.letter["Message-ID"] != other.letter["Message-ID"]

    async def test_spells_a_domain_as_the_dns_does_and_a_name_as_it_is(self, server: MailServer) -> None:
        await mailbox_of(server).send(_MAIL._replace(to="müller@bücher.example", subject="Zażółć"))
        (mail,) = server.taken
        assert mail.recipients == ["müller@xn--bcher-kva.example"]
        assert mail.letter["Subject"] == "Zażółć"

    async def test_the_log_names_neither_recipient_nor_text_whatever_becomes_of_it(self, server: MailServer) -> None:
        mailbox = mailbox_of(server)
        server.answers["RCPT"] = ["550 5.1.1 asha@example.com is unknown", "451 later, asha@example.com"]
        with own_logs() as logs:
            for error in (MailRefused, MailboxUnavailable):
                with pytest.raises(error) as raised:
                    await mailbox.send(_MAIL)
                assert raised.value.__suppress_context__
            await mailbox.send(_MAIL)
        assert [line["event"] for line in logs] == ["mailbox.refused", "mailbox.unavailable", "mailbox.sent"]
        assert "asha" not in str(logs)
        assert "492039" not in str(logs)


class TestRefusals:
    @pytest.mark.parametrize("command", ["RCPT", "DATA"])
    async def test_for_good_and_for_now_are_told_apart_and_the_next_try_succeeds(
        self, server: MailServer, command: str
    ) -> None:
        mailbox = mailbox_of(server)
        server.answers[command] = ["550 5.1.1 no such user", "451 4.3.0 later"]
        with pytest.raises(MailRefused) as refused:
            await mailbox.send(_MAIL)
        assert refused.value.code == 550
        with pytest.raises(MailboxUnavailable):
            await mailbox.send(_MAIL)
        assert server.taken == []
        await mailbox.send(_MAIL)
        assert len(server.taken) == 1

    async def test_of_a_server_that_is_away_or_silent_are_for_now(self, server: MailServer) -> None:
        server.is_silent = True
        with pytest.raises(MailboxUnavailable):
            await mailbox_of(server, mail_timeout_s=0.2).send(_MAIL)
        nobody = mailbox_of(server, mail_port=1)
        with pytest.raises(MailboxUnavailable):
            await nobody.send(_MAIL)

    async def test_a_mail_that_nobody_waits_for_any_more_leaves_no_connection(self, server: MailServer) -> None:
        server.is_silent = True
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await mailbox_of(server).send(_MAIL)


class TestEncryption:
    async def test_by_starttls_needs_a_certificate_by_somebody_trusted_in_the_servers_name(
        self, tmp_path: Path
    ) -> None:
        tls = make_tls(tmp_path, "127.0.0.1")
        ca_file = tmp_path / "ca.pem"
        (authority,) = tls.client.get_ca_certs(binary_form=True)
        ca_file.write_bytes(x509.load_der_x509_certificate(authority).public_bytes(Encoding.PEM))
        login = {"mail_user": "wallet", "mail_password": SecretStr("right")}
        how: dict[str, Any] = {"mail_tls": "starttls", "mail_ca_file": str(ca_file), **login}
        async with running_mail_server(tls.server) as server:
            await mailbox_of(server, **how).send(_MAIL)
            (mail,) = server.taken
            assert mail.is_encrypted
            assert server.logins == [(b"wallet", b"right")]
            for wrong in ({"mail_ca_file": None}, {"mail_host": "localhost"}, {"mail_password": SecretStr("wrong")}):
                with pytest.raises(MailboxUnavailable):
                    await mailbox_of(server, **(how | wrong)).send(_MAIL)
            assert len(server.taken) == 1
            # Those whose certificate is not believed are not told the password.
            assert set(server.logins[1:]) == {(b"wallet", b"wrong")}

    async def test_that_is_not_offered_is_not_done_without(self, server: MailServer) -> None:
        """Whoever sits in between could take the offer away."""
        with pytest.raises(MailboxUnavailable):
            await mailbox_of(server, mail_tls="starttls").send(_MAIL)
        assert server.taken == []

    async def test_may_begin_with_the_first_byte(self, tmp_path: Path) -> None:
        tls = make_tls(tmp_path, "127.0.0.1")
        ca_file = tmp_path / "ca.pem"
        (authority,) = tls.client.get_ca_certs(binary_form=True)
        ca_file.write_bytes(x509.load_der_x509_certificate(authority).public_bytes(Encoding.PEM))
        async with running_mail_server(tls.server, from_the_first_byte=True) as server:
            await mailbox_of(server, mail_tls="tls", mail_ca_file=str(ca_file)).send(_MAIL)
            assert len(server.taken) == 1
