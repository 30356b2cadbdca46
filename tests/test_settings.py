"""Settings: what production refuses, and what makes no sense anywhere."""

from typing import Any

import pytest
from pydantic import SecretStr, ValidationError
from pydantic_settings import SettingsError

from service.domain.limits import Limits
from service.settings import Environment, Settings
from service.startup import policy_of

_SECRET = SecretStr("x" * 40)
_WEBHOOK_SECRET = SecretStr("whsec_" + "eA==" * 8)


class TestProduction:
    def test_refuses_the_secrets_of_development(self) -> None:
        with pytest.raises(ValidationError, match="WALLET_JWT_SECRET has to be set in production"):
            Settings(_env_file=None, env=Environment.PRODUCTION, bank_webhook_secret=_WEBHOOK_SECRET)
        with pytest.raises(ValidationError, match="WALLET_BANK_WEBHOOK_SECRET has to be set in production"):
            Settings(_env_file=None, env=Environment.PRODUCTION, jwt_secret=_SECRET)

    def test_takes_its_own(self) -> None:
        settings = Settings(
            _env_file=None, env=Environment.PRODUCTION, jwt_secret=_SECRET, bank_webhook_secret=_WEBHOOK_SECRET
        )
        assert settings.logs_as_json

    def test_shows_no_secret_when_printed(self) -> None:
        settings = Settings(_env_file=None, jwt_secret=_SECRET)
        assert "x" * 40 not in repr(settings) + str(settings) + settings.model_dump_json()


class TestLimits:
    def test_are_read_as_json_and_what_is_not_named_is_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WALLET_LIMITS", '{"INR": {"per_day": 50000, "count_per_hour": 60}}')
        policy = policy_of(Settings(_env_file=None))
        assert policy.limits_in("INR") == Limits(per_transaction=0, per_day=50_000, per_month=0, count_per_hour=60)
        assert policy.limits_in("USD") == Limits()

    @pytest.mark.parametrize(
        "wrong", ["{", "[]", '{"INR": {"per_year": 1}}', '{"INR": {"per_day": -1}}', '{"INR": {"per_day": "much"}}']
    )
    def test_that_are_none_are_refused_at_the_start(self, monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
        monkeypatch.setenv("WALLET_LIMITS", wrong)
        with pytest.raises((ValidationError, SettingsError)):
            Settings(_env_file=None)


class TestSense:
    @pytest.mark.parametrize(
        "wrong",
        [
            {"bank_delay_min_s": 3.0, "bank_delay_max_s": 2.0},
            {"jwt_secret": SecretStr("short")},
            {"idempotency_retention_s": 3600},
            {"bank_success_rate": 1.1},
            {"default_currency": "inr"},
            {"database": "a/b"},
        ],
    )
    def test_what_makes_none_is_refused_at_the_start(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            Settings(_env_file=None, **wrong)
