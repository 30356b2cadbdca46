"""Settings: what production refuses, and what makes no sense anywhere."""

import json
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError
from pydantic_settings import SettingsError

from service.domain.limits import Limits
from service.domain.rewards import EarningEvent, EarningRule
from service.settings import EarningRuleSettings, Environment, Settings
from service.startup import policy_of

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

    def test_refuses_the_secret_of_development_as_the_previous_one_too(self) -> None:
        with pytest.raises(ValidationError, match="WALLET_JWT_SECRET_PREVIOUS"):
            Settings(
                _env_file=None,
                env=Environment.PRODUCTION,
                jwt_secret=_SECRET,
                jwt_secret_previous=Settings(_env_file=None).jwt_secret,
                bank_webhook_secret=_WEBHOOK_SECRET,
                encryption_key=_ENCRYPTION_KEY,
                checkpoint_signing_key=_SIGNING_KEY,
            )

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
            {"jwt_secret_previous": SecretStr("short")},
            {"refresh_token_lifetime_s": 0},
            {"refresh_token_lifetime_s": 5, "session_lifetime_s": 4},
            {"password_reset_lifetime_s": 3601},
            {"password_reset_mails_per_hour": 0},
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


class TestSigningKeys:
    def test_are_one_unless_another_is_on_its_way_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WALLET_JWT_SECRET", "x" * 40)
        assert Settings(_env_file=None).jwt_secrets == ("x" * 40,)
        # As Docker Compose hands on what is not set.
        monkeypatch.setenv("WALLET_JWT_SECRET_PREVIOUS", "")
        assert Settings(_env_file=None).jwt_secrets == ("x" * 40,)
        monkeypatch.setenv("WALLET_JWT_SECRET_PREVIOUS", "y" * 40)
        assert Settings(_env_file=None).jwt_secrets == ("x" * 40, "y" * 40)


class TestEarningRules:
    """`WALLET_EARNING_RULES` is JSON, as it comes from the environment."""

    def test_are_read_from_the_environment_and_handed_to_the_ledger(self, monkeypatch: pytest.MonkeyPatch) -> None:
        rule = {
            "name": "rent",
            "on": "withdrawal",
            "currency": "EUR",
            "per_amount": 500,
            "points": 2,
            "category": "rent",
        }
        monkeypatch.setenv("WALLET_EARNING_RULES", json.dumps([rule | {"minimum": 1_000, "maximum_points": 50}]))
        assert policy_of(Settings(_env_file=None)).earning_rules == (
            EarningRule("rent", EarningEvent.WITHDRAWAL, "EUR", 500, 2, 50, minimum=1_000, category="rent"),
        )

    def test_are_none_unless_set_and_modest_in_what_they_leave_out(self) -> None:
        assert policy_of(Settings(_env_file=None)).earning_rules == ()
        wanted = EarningRuleSettings(name="deposits", on="deposit", currency="INR", per_amount=10_000)
        (rule,) = policy_of(Settings(_env_file=None, earning_rules=(wanted,))).earning_rules
        assert (rule.on, rule.per_amount, rule.points, rule.maximum_points) == (EarningEvent.DEPOSIT, 10_000, 1, 1_000)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"per_amount": 0},
            {"points": 0},
            {"points": 1.5},
            {"on": "conversion"},
            {"currency": "inr"},
            {"currency": "QQQ"},
            {"currency": "PTS"},
            {"name": "no spaces"},
            {"minimum": -1},
            {"maximum_points": 0},
            {"bonus": 1},
        ],
        ids=str,
    )
    def test_that_make_no_sense_are_refused_at_the_start(self, wrong: dict[str, Any]) -> None:
        rule = {"name": "rent", "on": "withdrawal", "currency": "EUR", "per_amount": 500} | wrong
        with pytest.raises(ValueError, match=r"earning_rules|WALLET_EARNING_RULES"):
            policy_of(Settings(_env_file=None, earning_rules=[rule]))

    def test_have_names_of_their_own(self) -> None:
        rule = {"name": "rent", "on": "withdrawal", "currency": "EUR", "per_amount": 500}
        with pytest.raises(ValidationError, match="two rules of one name"):
            Settings(_env_file=None, earning_rules=[rule, rule])
