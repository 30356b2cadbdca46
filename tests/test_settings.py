"""Settings: what production refuses, and what makes no sense anywhere."""

from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from service.settings import Environment, Settings

_SECRET = SecretStr("x" * 40)
_WEBHOOK_SECRET = SecretStr("whsec_" + "eA==" * 8)
_ENCRYPTION_KEY = SecretStr("eHh4" * 10 + "eHg=")
_SIGNING_KEY = SecretStr("A" * 43 + "=")


class TestProduction:
    def test_refuses_the_secrets_of_development(self) -> None:
        own = {
            "jwt_secret": _SECRET,
            "bank_webhook_secret": _WEBHOOK_SECRET,
            "encryption_key": _ENCRYPTION_KEY,
            "checkpoint_signing_key": _SIGNING_KEY,
        }
        for missing in own:
            others: dict[str, Any] = {name: value for name, value in own.items() if name != missing}
            with pytest.raises(ValidationError, match=f"WALLET_{missing.upper()} has to be set in production"):
                Settings(_env_file=None, env=Environment.PRODUCTION, **others)

    def test_takes_its_own(self) -> None:
        settings = Settings(
            _env_file=None,
            env=Environment.PRODUCTION,
            jwt_secret=_SECRET,
            bank_webhook_secret=_WEBHOOK_SECRET,
            encryption_key=_ENCRYPTION_KEY,
            checkpoint_signing_key=_SIGNING_KEY,
        )
        assert settings.logs_as_json

    def test_shows_no_secret_when_printed(self) -> None:
        settings = Settings(
            _env_file=None,
            jwt_secret=_SECRET,
            encryption_key=_ENCRYPTION_KEY,
            checkpoint_signing_key=_SIGNING_KEY,
        )
        printed = repr(settings) + str(settings) + settings.model_dump_json()
        for secret in ("x" * 40, _ENCRYPTION_KEY.get_secret_value(), _SIGNING_KEY.get_secret_value()):
            assert secret not in printed


class TestSense:
    @pytest.mark.parametrize(
        "wrong",
        [
            {"bank_delay_min_s": 3.0, "bank_delay_max_s": 2.0},
            {"jwt_secret": SecretStr("short")},
            {"encryption_key": SecretStr("eHh4" * 8)},
            {"encryption_key": SecretStr("x" * 44)},
            {"encryption_key": SecretStr("not base64, though 32 bytes long")},
            {"checkpoint_signing_key": SecretStr("c2hvcnQ=")},
            {"checkpoint_signing_key": SecretStr("A" * 43)},
            {"checkpoint_signing_key": SecretStr("-" * 43 + "=")},
            {"checkpoint_interval_s": 0},
            {"idempotency_retention_s": 3600},
            {"bank_success_rate": 1.1},
            {"default_currency": "inr"},
            {"database": "a/b"},
            {"fx_margin_bp": -1},
            {"fx_margin_bp": 10_000},
            {"quote_lifetime_s": 0},
            {"fx_rates": {"USD/INR": 83.25}},
            {"hold_lifetime_s": 5, "hold_lifetime_max_s": 4},
        ],
    )
    def test_what_makes_none_is_refused_at_the_start(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            Settings(_env_file=None, **wrong)
