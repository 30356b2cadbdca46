"""The challenge of an operation, and the mail that carries its code."""

from typing import Any

from pydantic import SecretStr

from service.domain.clock import utc_now
from service.domain.step_up import CODE_LIFETIME, CODE_TRIES, CodeOutcome, check_code
from service.services.step_up import code_for, compose_code_mail, hash_sent_code, new_challenge
from service.settings import Settings

_SETTINGS = Settings(_env_file=None)


class TestNewChallenge:
    def test_is_answered_by_the_code_that_is_derived_from_it_later_and_by_no_other(self) -> None:
        now = utc_now()
        challenge = new_challenge(_SETTINGS, "wdr_1", now)
        assert (challenge.expires_at, challenge.tries_left) == (now + CODE_LIFETIME, CODE_TRIES)
        code = code_for(_SETTINGS, "wdr_1", challenge)
        wrong = f"{(int(code) + 1) % 10**6:06d}"
        for operation_id, sent, outcome in (
            ("wdr_1", code, CodeOutcome.ACCEPTED),
            ("wdr_1", wrong, CodeOutcome.WRONG),
            ("wdr_2", code, CodeOutcome.WRONG),
        ):
            code_hash = hash_sent_code(_SETTINGS, operation_id, sent, challenge)
            assert check_code(challenge, code_hash, now).outcome is outcome

    def test_is_another_one_each_time_and_does_not_hold_the_code(self) -> None:
        first, second = (new_challenge(_SETTINGS, "wdr_1", utc_now()) for _ in range(2))
        assert first.nonce != second.nonce
        assert code_for(_SETTINGS, "wdr_1", first) not in repr(first)

    def test_made_under_the_key_before_is_answered_by_the_same_code_still(self) -> None:
        challenge = new_challenge(_SETTINGS, "wdr_1", utc_now())
        code = code_for(_SETTINGS, "wdr_1", challenge)
        new_key: dict[str, Any] = {"encryption_key": SecretStr("eHh4" * 10 + "eHg="), "_env_file": None}
        without, beside = Settings(**new_key), Settings(**new_key, encryption_key_previous=_SETTINGS.encryption_key)
        assert hash_sent_code(without, "wdr_1", code, challenge) != challenge.code_hash
        assert code_for(beside, "wdr_1", challenge) == code
        assert hash_sent_code(beside, "wdr_1", code, challenge) == challenge.code_hash
        assert hash_sent_code(beside, "wdr_2", code, challenge) != challenge.code_hash


class TestComposeCodeMail:
    def test_says_what_is_paid_for_how_long_the_code_holds_and_that_nobody_asks_for_it(self) -> None:
        mail = compose_code_mail(
            email="asha@example.com",
            operation_id="wdr_1",
            purpose="withdrawal to •••• 0001",
            amount=2_500_000,
            currency="INR",
            nonce="abc",
            code="049203",
        )
        assert (mail.id, mail.to, mail.subject) == (
            "wdr_1.abc",
            "asha@example.com",
            "Confirm your payment of 25000.00 INR",
        )
        for part in ("049203", "25000.00 INR", "withdrawal to •••• 0001", "wdr_1", "5 minutes", "never ask"):
            assert part in mail.text
