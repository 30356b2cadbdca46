"""Settings: what production refuses, and what makes no sense anywhere."""

import json
import re
from base64 import b64encode
from hashlib import sha256
from importlib.resources import files
from typing import Any, get_args

import pytest
from pydantic import SecretStr, ValidationError
from pydantic_settings import SettingsError

from service.domain.limits import Limits
from service.domain.money import ORDINARY_CURRENCIES
from service.domain.rewards import EarningEvent, EarningRule
from service.services.checkpoints import NoSigningKey, signing_key
from service.settings import SECRETS_OF_SERVERS, EarningRuleSettings, Environment, Settings
from service.startup import policy_of


def _key(number: int) -> str:
    """32 bytes in base64, as random as tests need."""
    return b64encode(sha256(b"%d" % number).digest()).decode()


# What production takes; a new secret needs its own here.
PRODUCTION: dict[str, Any] = {
    "jwt_secret": SecretStr(sha256(b"jwt").hexdigest()),
    "bank_webhook_secret": SecretStr("whsec_" + _key(1)),
    "encryption_key": SecretStr(_key(2)),
    "checkpoint_signing_key": SecretStr(_key(3)),
}
# What production refuses unless it is told that it is wanted.
STAND_INS: dict[str, Any] = {"allow_simulated_bank": True, "allow_file_mailbox": True}
# What may be left out, but is looked at like the others where it is set.
_OPTIONAL: dict[str, Any] = {
    "encryption_key_previous": SecretStr(_key(4)),
    "bank_webhook_secret_previous": SecretStr("whsec_" + _key(5)),
    "jwt_secret_previous": SecretStr(sha256(b"jwt before").hexdigest()),
    "metrics_token": SecretStr(sha256(b"metrics").hexdigest()),
}
_SECRETS = PRODUCTION | _OPTIONAL


def in_production(**changes: Any) -> Settings:
    return Settings(_env_file=None, env=Environment.PRODUCTION, **(_SECRETS | STAND_INS | changes))


class TestProduction:
    def test_takes_its_own_secrets_and_all_of_them_are_known_here(self) -> None:
        settings = in_production()
        assert settings.logs_as_json
        found = {
            name
            for name, field in Settings.model_fields.items()
            if field.annotation is SecretStr or SecretStr in get_args(field.annotation)
        }
        # A server's address has its password in it: what is enough for one is for the server to say.
        assert found - set(SECRETS_OF_SERVERS) == set(_SECRETS)

    @pytest.mark.parametrize("name", _SECRETS)
    def test_refuses_the_secrets_of_development(self, name: str) -> None:
        known = Settings.model_fields[name].default or Settings.model_fields["encryption_key"].default
        with pytest.raises(ValidationError, match=f"WALLET_{name.upper()} has to be set in production"):
            in_production(**{name: known})
        without = {other: value for other, value in _SECRETS.items() if other != name}
        if name in PRODUCTION:
            with pytest.raises(ValidationError, match=f"WALLET_{name.upper()} has to be set in production"):
                Settings(_env_file=None, env=Environment.PRODUCTION, **without)
        else:
            Settings(_env_file=None, env=Environment.PRODUCTION, **without, **STAND_INS)

    @pytest.mark.parametrize("name", _SECRETS)
    @pytest.mark.parametrize("weak", [b"", b"\0" * 32, b"changeme" * 4, b"ab" * 16], ids=repr)
    def test_refuses_weak_ones(self, name: str, weak: bytes) -> None:
        spelled = {"jwt_secret": weak.decode(), "bank_webhook_secret": "whsec_" + b64encode(weak).decode()}
        if name in _OPTIONAL and not weak:
            return
        with pytest.raises(ValidationError, match=f"WALLET_{name.upper()}"):
            in_production(**{name: SecretStr(spelled.get(name, b64encode(weak).decode()))})

    def test_refuses_one_secret_for_two_things_however_it_is_written(self) -> None:
        for name in ("checkpoint_signing_key", "encryption_key_previous", "jwt_secret"):
            with pytest.raises(ValidationError, match="two different secrets"):
                in_production(**{name: _SECRETS["encryption_key"]})
        with pytest.raises(ValidationError, match="two different secrets"):
            in_production(bank_webhook_secret=SecretStr("whsec_" + _key(2)))

    def test_needs_no_signing_key_where_it_has_the_public_half(self) -> None:
        """As the API: it shows and checks, and could not sign."""
        signer = in_production()
        public = b64encode(signer.checkpoint_verifier.public_bytes_raw()).decode()
        others = {name: one for name, one in (_SECRETS | STAND_INS).items() if name != "checkpoint_signing_key"}
        api = Settings(_env_file=None, env=Environment.PRODUCTION, checkpoint_public_key=public, **others)
        assert api.checkpoint_seed is None
        assert api.checkpoint_verifier.public_bytes_raw() == signer.checkpoint_verifier.public_bytes_raw()
        with pytest.raises(NoSigningKey):
            signing_key(api)
        assert in_production(checkpoint_public_key=public).checkpoint_seed == signer.checkpoint_seed
        with pytest.raises(ValidationError, match="WALLET_CHECKPOINT_PUBLIC_KEY"):
            in_production(checkpoint_public_key=_key(9))

    def test_refuses_receivers_on_its_own_machine(self) -> None:
        with pytest.raises(ValidationError, match="WALLET_WEBHOOK_ALLOW_LOOPBACK"):
            in_production(webhook_allow_loopback=True)
        assert not in_production().webhook_allow_loopback

    @pytest.mark.parametrize("name", STAND_INS)
    def test_refuses_stand_ins_unless_it_is_told_that_they_are_wanted(self, name: str) -> None:
        with pytest.raises(ValidationError, match=f"WALLET_{name.upper()}=true"):
            in_production(**{name: False})
        assert Settings(_env_file=None).mail == "file"

    def test_with_a_mail_server_needs_no_leave_for_the_file(self) -> None:
        in_production(allow_file_mailbox=False, mail="smtp", mail_host="mail.example")

    def test_sends_no_mail_in_clear_but_to_this_machine(self) -> None:
        with pytest.raises(ValidationError, match="WALLET_MAIL_TLS=none"):
            in_production(mail="smtp", mail_host="mail.example", mail_tls="none")
        for here in ("127.0.0.1", "::1", "localhost"):
            in_production(mail="smtp", mail_host=here, mail_tls="none")

    def test_knows_servers_without_a_password(self) -> None:
        addresses: dict[str, Any] = {
            "mongo_url": SecretStr("mongodb://wallet:word@a:1,b:2/?replicaSet=rs0"),
            "redis_url": SecretStr("redis://:word@a:1/0"),
        }
        assert in_production(**addresses).addresses_without_password == []
        assert in_production().addresses_without_password == ["WALLET_MONGO_URL", "WALLET_REDIS_URL"]

    def test_shows_no_secret_when_printed(self) -> None:
        settings = in_production()
        printed = repr(settings) + str(settings) + settings.model_dump_json()
        for secret in _SECRETS.values():
            assert secret.get_secret_value() not in printed

    def test_names_no_secret_in_what_it_refuses(self) -> None:
        with pytest.raises(ValidationError) as refused:
            in_production(jwt_secret=SecretStr("canary-" * 6))
        assert "canary" not in str(refused.value)


class TestDevelopment:
    @pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.7"])  # noqa: S104 what is refused
    def test_is_for_this_machine_only(self, address: str) -> None:
        with pytest.raises(ValidationError, match="WALLET_PUBLISHED_AT"):
            Settings(_env_file=None, published_at=address)
        assert in_production(published_at=address).published_at == address
        assert Settings(_env_file=None, published_at="::1").published_at == "::1"


class TestMail:
    @pytest.mark.parametrize(
        ("wrong", "named"),
        [
            ({"mail": "smtp"}, "WALLET_MAIL_HOST"),
            ({"mail_user": "wallet"}, "WALLET_MAIL_PASSWORD"),
            (
                {
                    "mail": "smtp",
                    "mail_host": "mail.example",
                    "mail_tls": "none",
                    "mail_user": "wallet",
                    "mail_password": SecretStr("word"),
                },
                "WALLET_MAIL_TLS",
            ),
            ({"mail_from": "wallet@example.com\r\nBcc: eve@example.com"}, "mail_from"),
        ],
    )
    def test_that_cannot_work_is_refused_at_the_start(self, wrong: dict[str, Any], named: str) -> None:
        with pytest.raises(ValidationError, match=named):
            Settings(_env_file=None, **wrong)


class TestLimits:
    def test_are_read_as_json_and_what_is_not_named_goes_by_what_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WALLET_LIMITS", '{"INR": {"per_day": 50000, "count_per_hour": 60}}')
        policy = policy_of(Settings(_env_file=None))
        assert policy.limits_in("INR") == Limits(per_transaction=0, per_day=50_000, per_month=0, count_per_hour=60)
        # 500.00 INR at 83.25.
        assert policy.limits_in("USD") == Limits(per_transaction=0, per_day=600, per_month=0, count_per_hour=60)

    @pytest.mark.parametrize(
        "wrong",
        [
            "{",
            "[]",
            '{"INR": {"per_year": 1}}',
            '{"INR": {"per_day": -1}}',
            '{"INR": {"per_day": "much"}}',
            # More than JSON carries exactly: a refusal would name it.
            '{"INR": {"per_day": 9007199254740992}}',
        ],
    )
    def test_that_are_none_are_refused_at_the_start(self, monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
        monkeypatch.setenv("WALLET_LIMITS", wrong)
        with pytest.raises((ValidationError, SettingsError)):
            Settings(_env_file=None)


class TestHouseFloors:
    def test_are_of_accounts_and_currencies_that_there_are(self) -> None:
        for wrong in ({"house:gifts": {"EUR": 0}}, {"bank": {"XXX": 0}}):
            with pytest.raises(ValueError, match=r"WALLET_HOUSE_FLOORS names (house:gifts|XXX)"):
                policy_of(Settings(_env_file=None, house_floors=wrong))
        floors = policy_of(Settings(_env_file=None, house_floors={"bank": {"EUR": -5}})).house_floors
        assert floors == {("bank", "EUR"): -5}


class TestUserLimits:
    def test_in_a_currency_without_rates_are_refused_at_the_start(self) -> None:
        """Or every payment in another currency would be."""
        for wrong in ({"currency": "CHF"}, {"currency": "CHF", "per_day": 100}):
            with pytest.raises(ValueError, match="WALLET_USER_LIMITS is in CHF, for which WALLET_FX_RATES has no rate"):
                policy_of(Settings(_env_file=None, user_limits=wrong))
        with pytest.raises(ValueError, match="is in USD, for which WALLET_FX_RATES has no rate"):
            policy_of(Settings(_env_file=None, user_limits={"per_day": 100}, fx_rates={"EUR/INR": "90"}))

    def test_need_no_rates_where_nothing_would_be_converted(self) -> None:
        only: dict[str, Any] = {"currencies": ("CHF",), "default_currency": "CHF"}
        assert policy_of(Settings(_env_file=None, user_limits={"currency": "CHF", "per_day": 1}, **only))
        assert policy_of(Settings(_env_file=None, user_limits={"count_per_hour": 5}, fx_rates={"EUR/INR": "90"}))
        assert policy_of(Settings(_env_file=None, fx_rates={"EUR/INR": "90"}))


class TestCurrencies:
    def test_are_those_of_ordinary_money_unless_they_are_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        policy = policy_of(Settings(_env_file=None))
        assert len(policy.currencies) == len(ORDINARY_CURRENCIES) > 150
        assert [policy.deals_in(code) for code in ("INR", "PTS", "USN", "XAD", "XAU", "XTS", "XXX")] == (
            [True, True, False, False, False, False, False]
        )
        monkeypatch.setenv("WALLET_CURRENCIES", "INR, USD,CLF")
        policy = policy_of(Settings(_env_file=None))
        assert policy.currencies == {"INR", "USD", "CLF"}
        assert [policy.deals_in(code) for code in ("CLF", "PTS", "EUR")] == [True, True, False]

    def test_that_are_ordinary_money_have_no_code_that_the_standard_marks_as_a_fund(self) -> None:
        table = files("iso4217").joinpath("table.xml").read_text()
        entries = [entry for entry in table.split("<CcyNtry>") if 'IsFund="true"' in entry]
        funds = {re.findall("<Ccy>([A-Z]{3})</Ccy>", entry)[0] for entry in entries}
        assert len(funds) > 5
        assert funds & ORDINARY_CURRENCIES == set()

    @pytest.mark.parametrize(
        "wrong",
        [
            {"currencies": ("USD",)},
            {"currencies": ("INR", "XAU")},
            {"currencies": ("INR", "XYZ")},
            {"currencies": ("INR", "PTS")},
            {"default_currency": "USN"},
        ],
    )
    def test_that_do_not_go_with_the_rest_are_refused_at_the_start(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=r"WALLET_(DEFAULT_)?CURRENC"):
            policy_of(Settings(_env_file=None, **wrong))

    def test_that_are_no_codes_are_refused_at_the_start(self) -> None:
        with pytest.raises(ValidationError):
            Settings(_env_file=None, currencies="INR,usd")


class TestEmptyText:
    def test_is_what_docker_compose_hands_on_for_what_is_not_set(self, monkeypatch: pytest.MonkeyPatch) -> None:
        default = Settings(_env_file=None)
        for name in Settings.model_fields:
            monkeypatch.setenv(f"WALLET_{name.upper()}", "")
        assert Settings(_env_file=None) == default


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
            {"webhook_ports": (0,)},
            {"webhook_ports": (65536,)},
            {"webhook_retry_delays_s": (0,)},
            {"webhook_timeout_s": 61},
            {"webhook_denied_networks": "10.0.0.1/8"},
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
