"""Every environment variable of the service, typed; names carry the prefix WALLET_."""

import base64
import binascii
from datetime import date
from enum import StrEnum
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from service.crash_points import CrashPoint

_DEVELOPMENT_JWT_SECRET = "development-only-jwt-secret-change-me-0123456789"  # noqa: S105 production refuses it
_DEVELOPMENT_WEBHOOK_SECRET = "whsec_ZGV2ZWxvcG1lbnQtb25seS1iYW5rLXNlY3JldC0wMTI="  # noqa: S105 production refuses it
_DEVELOPMENT_ENCRYPTION_KEY = "ZGV2ZWxvcG1lbnQtb25seS1lbmNyeXB0aW9uLWtleSE="
_DEVELOPMENT_CHECKPOINT_KEY = "ZGV2ZWxvcG1lbnQtb25seS1jaGVja3BvaW50LWtleSE="
_DEVELOPMENT_SECRETS = frozenset(
    {
        _DEVELOPMENT_JWT_SECRET,
        _DEVELOPMENT_WEBHOOK_SECRET,
        _DEVELOPMENT_ENCRYPTION_KEY,
        _DEVELOPMENT_CHECKPOINT_KEY,
    }
)
# What production asks of each: as long as Standard Webhooks' shortest, and not made of a few bytes over and over. Of
# 24 random ones hardly any two are the same.
_WEAKEST_BYTES = 24
_FEWEST_DIFFERENT_BYTES = 9
# Where servers are. Their passwords are the servers' matter.
ADDRESSES = ("mongo_url", "mongo_admin_url", "bank_mongo_url", "audit_mongo_url", "redis_url")
# Those passwords, and the one of the mail server, are what their servers make of them.
SECRETS_OF_SERVERS = (*ADDRESSES, "mail_password")
# AES-256, and the seed of Ed25519.
_KEY_BYTES = 32

# What may be set as the longest lifetime of a hold: a guarantee for more than a year is a debt.
LONGEST_HOLD_S = 366 * 24 * 3600

# The largest number that every JSON reader carries exactly: refusals name the ceilings that are set here.
_LARGEST_AMOUNT = 2**53 - 1
_Ceiling = Annotated[int, Field(ge=0, le=_LARGEST_AMOUNT)]
# Positions are 64-bit numbers; a quarter of what those hold leaves room for whatever is booked.
_LARGEST_FLOOR = 2**61
_Floor = Annotated[int, Field(ge=-_LARGEST_FLOOR, le=_LARGEST_FLOOR)]


class Environment(StrEnum):
    DEVELOPMENT = "development"
    PRODUCTION = "production"


class LimitSettings(BaseModel):
    """What may leave one wallet: minor units, and for the hour a number of operations. 0 is no limit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    per_transaction: int = Field(0, ge=0, le=_LARGEST_AMOUNT)
    per_day: int = Field(0, ge=0, le=_LARGEST_AMOUNT)
    per_month: int = Field(0, ge=0, le=_LARGEST_AMOUNT)
    count_per_hour: int = Field(0, ge=0, le=_LARGEST_AMOUNT)


class UserLimitSettings(LimitSettings):
    """What may leave all wallets of one user together, in minor units of `currency` at the rate of the moment."""

    currency: str = Field("USD", pattern=r"^[A-Z]{3}$")


class EarningRuleSettings(BaseModel):
    """`points` for each whole `per_amount` (minor units) of what has settled; rules that fit it add up."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # As it stands in each reward.
    name: str = Field(pattern=r"^[a-z0-9_-]{1,64}$")
    on: Literal["deposit", "withdrawal", "transfer"]
    currency: str = Field(pattern=r"^[A-Z]{3}$")
    per_amount: int = Field(ge=1)
    points: int = Field(1, ge=1, le=1_000_000)
    # Unset: whatever its category is.
    category: str | None = None
    minimum: int = Field(0, ge=0)
    # For one operation.
    maximum_points: int = Field(1_000, ge=1, le=1_000_000_000)


RailName = Literal["instant", "same_day", "three_banking_days"]
_RAILED = r"^([A-Z]{3}(:(deposit|withdrawal))?|deposit|withdrawal)$"


class Settings(BaseSettings):
    """Read once at start; `.env` beside the Makefile is read too, and the real environment wins."""

    model_config = SettingsConfigDict(
        env_prefix="WALLET_",
        env_file=".env",
        # Compose hands on what is not set as empty text.
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        # An error about one setting would otherwise quote its neighbours, secrets among them.
        hide_input_in_errors=True,
    )

    # --- What runs where
    env: Environment = Environment.DEVELOPMENT
    port: int = 8000
    api_processes: int = Field(1, ge=1)
    # The address at which Docker Compose publishes the API's port. Development is for this machine only.
    published_at: Annotated[str, Field(pattern=r"^[0-9A-Fa-f.:]{2,45}$")] = "127.0.0.1"
    # Stand-ins, which production refuses unless it is told that they are wanted.
    allow_simulated_bank: bool = False
    allow_file_mailbox: bool = False
    data_dir: str = ".wallet-data"
    mongo_url: SecretStr = SecretStr("mongodb://127.0.0.1:27017/?replicaSet=rs0")
    # Set-up only: creates collections, roles and the service's own user. Falls back to mongo_url.
    mongo_admin_url: SecretStr | None = None
    # The simulated bank's own user, so that the service's can neither read nor write its journal; the set-up makes it
    # too. None: the service's user does both.
    bank_mongo_url: SecretStr | None = None
    # Who checks the books, and reads both databases. Needed for check-ledger where the bank has a user of its own.
    audit_mongo_url: SecretStr | None = None
    database: str = Field("wallet", pattern=r"^[A-Za-z0-9_-]{1,38}$")
    redis_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    # Web pages that may call the API from a browser, e.g. https://shop.example. None: browsers keep others away.
    cors_origins: tuple[Annotated[str, Field(pattern=r"^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?$")], ...] = ()
    # Names that the service is called by, without a port; probes are answered under any. None: all names.
    allowed_hosts: tuple[Annotated[str, Field(pattern=r"^[a-z0-9.-]{1,253}$")], ...] = ()
    log_json: bool | None = None
    # Lines that are only for a search, as of each row that an outage put back.
    log_debug: bool = False
    # Who shows it as a bearer token gets metrics; without one they are for those on the same machine, and in
    # production for nobody.
    metrics_token: SecretStr | None = None
    # Of each worker's metrics; 0 is off. Without a token it listens on loopback only.
    worker_metrics_port: int = Field(0, ge=0, le=65535)
    # Where traces go, e.g. http://collector:4318: OTLP over HTTP. Unset, nothing is traced. What else OpenTelemetry can
    # be told (headers, resource attributes, sizes of batches) it reads from its own OTEL_ variables.
    otlp_endpoint: Annotated[str, Field(pattern=r"^https?://[!-~]+$")] | None = None
    # Of the traces that begin here; those of callers are kept as they decided.
    trace_sample_ratio: float = Field(1.0, ge=0, le=1)
    # How far this process's clock may be from MongoDB's before it takes neither commands nor rows.
    clock_bound_s: float = Field(5.0, gt=0)
    # For tests: where to die as if the power had gone (crash_points.py).
    crash_at: CrashPoint | None = None

    # --- Keys; each is another secret (README, Secrets and encryption)
    jwt_secret: SecretStr = SecretStr(_DEVELOPMENT_JWT_SECRET)
    # What was the secret before: what it signed still holds, and nothing more is signed by it.
    jwt_secret_previous: SecretStr | None = None
    # 32 bytes in base64. What is kept encrypted or keyed gets a key of its own from it (domain/keys.py).
    encryption_key: SecretStr = SecretStr(_DEVELOPMENT_ENCRYPTION_KEY)
    # While keys are changed: the other one, which opens and does not seal.
    encryption_key_previous: SecretStr | None = None
    # The 32-byte seed of an Ed25519 key (RFC 8032), in base64. The worker's alone: whoever has it can sign another
    # history.
    checkpoint_signing_key: SecretStr = SecretStr(_DEVELOPMENT_CHECKPOINT_KEY)
    # Its public half, for processes that show or check and do not sign. Unset: they derive it from the signing key.
    checkpoint_public_key: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{43}=$")] | None = None

    # --- People
    access_token_lifetime_s: int = Field(900, ge=1)
    # Without a refresh for so long, or that long after the login whatever happens, one logs in anew.
    refresh_token_lifetime_s: int = Field(30 * 24 * 3600, ge=1)
    session_lifetime_s: int = Field(90 * 24 * 3600, ge=1)
    # As long as the hour in which mails are counted (domain/password_resets.py): whoever got the last of them for now
    # can use it still.
    password_reset_lifetime_s: int = Field(3600, ge=1, le=3600)
    # To one person: more than one asks for, less than a nuisance.
    password_reset_mails_per_hour: int = Field(3, ge=1, le=20)
    # For so long after its activation a new authenticator app confirms no payments; mailed codes do. A day: the owner
    # reads the notice before a thief's app counts.
    totp_wait_s: int = Field(24 * 3600, ge=0, le=30 * 24 * 3600)
    # A day: whoever registers in the evening reads the mail in the morning.
    registration_lifetime_s: int = Field(24 * 3600, ge=60, le=7 * 24 * 3600)
    # Whether an account is opened only once somebody has read the mail. None: in production.
    registration_by_mail: bool | None = None
    default_currency: str = Field("INR", pattern=r"^[A-Z]{3}$")
    # What wallets are opened in, separated by commas; points always besides. None: all currencies of ISO 4217 that are
    # ordinary money (domain/money.py).
    currencies: Annotated[tuple[Annotated[str, Field(pattern=r"^[A-Z]{3}$")], ...], NoDecode] = ()
    # 19 MiB and about 20 ms each: two at a time leave the event loop a core's share.
    password_hash_threads: int = Field(2, ge=1)

    # --- Mail
    mail: Literal["file", "smtp"] = "file"
    # Where mails go while there is no mail server; in the data directory unless it is set.
    mailbox_file: str | None = None
    mail_host: Annotated[str, Field(pattern=r"^[A-Za-z0-9.:-]{1,253}$")] | None = None
    # Submission by RFC 6409. 465 is usual for TLS from the first byte, 25 for a relay of one's own.
    mail_port: int = Field(587, ge=1, le=65535)
    mail_user: str | None = None
    mail_password: SecretStr | None = None
    # starttls: nothing is sent before the connection is encrypted. none: for a relay on this machine.
    mail_tls: Literal["starttls", "tls", "none"] = "starttls"
    # PEM: who signed the server's certificate, where that is none of those whom everybody trusts.
    mail_ca_file: str | None = None
    # ASCII, so that every server takes it.
    mail_from: Annotated[str, Field(pattern=r"^[A-Za-z0-9._+-]{1,64}@[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*$")] = (
        "wallet@localhost"
    )
    # From connecting to the server's word that it has the mail.
    mail_timeout_s: float = Field(10.0, gt=0, le=60)
    # Of each worker, at one time.
    mail_connections: int = Field(8, ge=1, le=100)
    # To one address in an hour of each kind (codes, resets, registrations, security, other news); what is beyond waits.
    # More than anybody who pays asks for, less than a nuisance. 0: no bound.
    mails_per_hour: int = Field(30, ge=0)
    # While the server is away or says "later" (4xx), a mail is tried again; after this long it becomes a dead letter.
    mail_retry_for_s: float = Field(24 * 3600.0, ge=60)

    # --- The ledger
    ledger_batch_limit: int = Field(256, ge=1, le=1000)
    # About one second of work at full speed; beyond it, waiting helps nobody.
    ledger_queue_limit: int = Field(4096, ge=1)
    # How much of it one user may fill; a batch of transfers counts by its size. A quarter: two of the largest batches.
    ledger_user_share: int = Field(1024, ge=1)
    # How long one batch may keep trying before its clients are told to come back.
    ledger_patience_s: float = Field(10.0, gt=0)
    idempotency_retention_s: int = Field(7 * 24 * 3600, ge=24 * 3600)
    # By currency, in minor units. A currency that is not named goes by one that is (domain/ceilings.py); {} is none for
    # all. Ten times what asks for a code, in a day, and ten times that in a month: far beyond a household's, and an end
    # to what a thief can take.
    limits: dict[str, LimitSettings] = {
        "INR": LimitSettings(per_day=200_000_000, per_month=2_000_000_000),
        "USD": LimitSettings(per_day=2_500_000, per_month=25_000_000),
        "EUR": LimitSettings(per_day=2_500_000, per_month=25_000_000),
        "GBP": LimitSettings(per_day=2_000_000, per_month=20_000_000),
        "JPY": LimitSettings(per_day=3_750_000, per_month=37_500_000),
        "KWD": LimitSettings(per_day=7_500_000, per_month=75_000_000),
    }
    # Over all wallets of a user, in one currency; admins' overrides are in that currency too.
    user_limits: UserLimitSettings = UserLimitSettings()
    # 200,000.00 INR: about what banks confirm by a second factor of their own.
    step_up_above: dict[str, _Ceiling] = {
        "INR": 20_000_000,
        "USD": 250_000,
        "EUR": 250_000,
        "GBP": 200_000,
        "JPY": 375_000,
        "KWD": 750_000,
    }
    # What leaves a wallet in a day without a code, in however many payments: two and a half times the largest of them.
    step_up_day_above: dict[str, _Ceiling] = {
        "INR": 50_000_000,
        "USD": 625_000,
        "EUR": 625_000,
        "GBP": 500_000,
        "JPY": 937_500,
        "KWD": 1_875_000,
    }
    adjustment_approval_above: dict[str, _Ceiling] = {
        "INR": 100_000_000,
        "USD": 1_000_000,
        "EUR": 1_000_000,
        "GBP": 1_000_000,
        "JPY": 1_500_000,
        "KWD": 3_000_000,
        "PTS": 1_000_000,
    }
    # What one admin, service or API key moves in a day without another admin: three of the largest adjustments.
    adjustment_day_above: dict[str, _Ceiling] = {
        "INR": 300_000_000,
        "USD": 3_000_000,
        "EUR": 3_000_000,
        "GBP": 3_000_000,
        "JPY": 4_500_000,
        "KWD": 9_000_000,
        "PTS": 3_000_000,
    }
    # The lowest that the house's position may become, by account and currency, in minor units; below 0 is how much of
    # its own money the house lets go out there. What is not named has the floor 0 for bank and house:fx, else none.
    house_floors: dict[str, dict[Annotated[str, Field(pattern=r"^[A-Z]{3}$")], _Floor]] = {}

    # --- Exchange
    # All pairs share one currency, the table's base (gateways/rates.py). Mid-market rates, rounded: a real source is
    # one more class.
    fx_rates: dict[str, str] = {
        "USD/INR": "83.2500",
        "EUR/USD": "1.0850",
        "GBP/USD": "1.2700",
        "USD/JPY": "149.5000",
        "KWD/USD": "3.2500",
    }
    # What the house keeps of each conversion, in hundredths of a per cent.
    fx_margin_bp: int = Field(50, ge=0, lt=10_000)
    # Long enough to read it and to say yes, too short to wait for the market to move.
    quote_lifetime_s: int = Field(30, ge=1, le=3600)

    # --- API keys
    # Without a time of its own a key ends after a quarter. One that lasts for longer takes two admins.
    api_key_lifetime_s: int = Field(90 * 24 * 3600, ge=60)

    # --- Holds
    # A week: until a shop has sent the goods. A month: as long as card schemes let a guarantee stand.
    hold_lifetime_s: int = Field(7 * 24 * 3600, ge=1)
    hold_lifetime_max_s: int = Field(30 * 24 * 3600, ge=1, le=LONGEST_HOLD_S)

    # --- Points
    # None: what is worth a point is for somebody to decide. Two people can send one sum to and fro for ever, so that
    # a rule on transfers wants a thought.
    earning_rules: tuple[EarningRuleSettings, ...] = ()
    # A deposit earns for what is new within this time: less what left the wallet, and less what has earned already.
    earning_window_s: int = Field(30 * 24 * 3600, ge=1, le=366 * 24 * 3600)
    # Of one user in 24 hours, by all rules together.
    earning_points_per_day: int = Field(10_000, ge=0, le=1_000_000_000)
    # How long points wait after the operation has settled: as long as the bank may take a deposit back.
    earning_pending_s: int = Field(0, ge=0, le=366 * 24 * 3600)

    # --- The bank
    bank_callback_url: str = "http://127.0.0.1:8000/webhooks/bank-callback"
    bank_webhook_secret: SecretStr = SecretStr(_DEVELOPMENT_WEBHOOK_SECRET)
    # While the bank changes to another secret: the other one, by which its callbacks are believed too.
    bank_webhook_secret_previous: SecretStr | None = None
    bank_delay_min_s: float = Field(2.0, ge=0)
    bank_delay_max_s: float = Field(10.0, ge=0)
    bank_success_rate: float = Field(0.9, ge=0, le=1)
    bank_timeout_rate: float = Field(0.02, ge=0, le=1)
    bank_error_rate: float = Field(0.02, ge=0, le=1)
    # Of the nastier behaviours (CREDENTIALS.md), by name. None by default: most leave something for a person to do.
    bank_rates: dict[str, Annotated[float, Field(ge=0, le=1)]] = {}
    # By how much a callback is late, or one that contradicts the first comes after it.
    bank_late_s: float = Field(20.0, ge=0)
    # What comes back does so after days.
    bank_return_after_s: float = Field(3 * 24 * 3600, ge=0)
    # A bank that is down by schedule: for so long, so often. 0 is never.
    bank_outage_every_s: float = Field(0.0, ge=0)
    bank_outage_length_s: float = Field(0.0, ge=0)
    # Answers nothing at all then, instead of 503 at once.
    bank_outage_hangs: bool = False
    bank_timeout_s: float = Field(5.0, gt=0)
    # An operation whose bank is silent is asked about after this long, then ever more rarely.
    bank_recheck_s: float = Field(15.0, gt=0, le=600)
    # An order that nobody answered may still arrive at the bank for so long. Only then does a refusal of the next try
    # say that there is nothing to wait for.
    bank_in_flight_s: float = Field(120.0, ge=0)
    # Visits to the bank before a person has to look: with back-off to 10 min, about an hour and a half.
    bank_attempt_limit: int = Field(15, ge=1)
    # How long the bank may take before a person has to look: instant, same_day or three_banking_days; by currency and
    # kind ("INR:withdrawal", "INR", "deposit"), and for all that is not named.
    bank_rails: dict[Annotated[str, Field(pattern=_RAILED)], RailName] = {}
    bank_rail: RailName = "instant"
    # How long "instant" may take, with some time for a queue.
    bank_instant_s: float = Field(60.0, ge=0, le=24 * 3600)
    # Days besides Saturdays and Sundays on which the bank carries out nothing.
    bank_holidays: frozenset[date] = frozenset()
    # So many orders in a row without an answer, of two accounts at least, and the bank counts as down: nobody asks it,
    # what is accepted waits. 0: it never does.
    bank_breaker_failures: int = Field(10, ge=0)
    # Then one order at a time finds out whether it is back, so often.
    bank_breaker_open_s: float = Field(5.0, gt=0, le=600)

    # --- Webhooks to users (README, Webhooks)
    # From connecting to the last byte that is read of an answer.
    webhook_timeout_s: float = Field(15.0, gt=0, le=60)
    # Waits before each further try, give or take a fifth; together three days.
    webhook_retry_delays_s: tuple[Annotated[int, Field(ge=1, le=7 * 24 * 3600)], ...] = Field(
        (5, 30, 300, 1800, 7200, 18000, 36000, 50400, 64800, 79200), max_length=50
    )
    webhook_endpoints_per_user: int = Field(10, ge=1, le=100)
    # Tests and redeliveries that one user may ask for in an hour, each of which may be tried for days; 0: no limit.
    webhook_sends_per_hour: int = Field(120, ge=0)
    # Tries for one user in an hour, at all endpoints; what is beyond waits. One a second. 0: no bound.
    webhook_deliveries_per_hour: int = Field(3600, ge=0)
    # How long what was sent can be looked up and sent again; longer than all tries together.
    webhook_retention_days: int = Field(30, ge=7, le=366)
    webhook_ports: tuple[Annotated[int, Field(ge=1, le=65535)], ...] = (443,)
    # Public addresses that are one's own house all the same, separated by commas.
    webhook_denied_networks: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = ()
    # For development and tests: receivers on this machine, at any port and without TLS too.
    webhook_allow_loopback: bool = False
    # Sent at once by each worker, and how many of these to one endpoint and to the endpoints of one user.
    webhook_concurrency: int = Field(64, ge=1)
    webhook_endpoint_concurrency: int = Field(4, ge=1)
    webhook_user_concurrency: int = Field(8, ge=1)

    # --- The worker
    worker_concurrency: int = Field(64, ge=1)
    worker_sweep_s: int = Field(5, ge=1, le=30)
    # Of the work on one row, after which it is put aside for a person: with back-off to 10 min, about half an hour.
    # Neither an unknown bank nor a MongoDB or Redis that is away counts.
    worker_failure_limit: int = Field(12, ge=1, le=100)
    # What a worker that is told to end has for what is in hand. Whoever told it has to wait a little longer.
    worker_grace_s: float = Field(10.0, gt=0, le=300)
    # How often the log says how the queues stand, where that has changed or something is wrong.
    worker_status_s: float = Field(10.0, gt=0, le=3600)
    checkpoint_interval_s: int = Field(3600, ge=1)
    # Where each checkpoint is copied to, out of reach of whoever can change the database; in the data directory unless
    # it is set.
    checkpoint_file: str | None = None

    # --- Events
    # From when it was made; what has not been dispatched stays longer. Who was away for longer is told of the gap.
    event_retention_s: int = Field(30 * 24 * 3600, ge=3600)
    # Open at one time in each process of the API, of one user and together: each takes about 40 kB.
    streams_per_user: int = Field(10, ge=1)
    streams_limit: int = Field(2_000, ge=1)

    # --- Statements as files
    # Made at one time by each process of the API, one of them for each user: each takes a tenth of its processor.
    exports_limit: int = Field(4, ge=1)

    # --- The books, looked at all the time
    # In which all wallets are replayed; those that did not move cost next to nothing.
    integrity_round_s: float = Field(240.0, ge=0)
    # From its first entry on each wallet is replayed once in about this time.
    integrity_full_s: float = Field(24 * 3600.0, ge=0)
    # A day is compared with the bank's statement when it has been over for so long: what was under way at midnight has
    # been booked by then on both sides.
    reconciliation_grace_s: float = Field(2 * 3600.0, ge=0)
    # Once more after so long, for statements that come late, and for so many days back.
    reconciliation_interval_s: float = Field(6 * 3600.0, gt=0)
    reconciliation_days_back: int = Field(3, ge=1, le=31)

    # --- Rate limits
    # Requests per minute; 0 turns one off. Of all users and API keys together, and of all who show none: when one is
    # reached, whoever has had less than their share still passes.
    rate_limit_global: int = Field(1000, ge=0)
    rate_limit_anonymous: int = Field(1000, ge=0)
    # By the user or API key that asks, or by the address of those who show none.
    rate_limit_user: int = Field(300, ge=0)
    rate_limit_address: int = Field(100, ge=0)
    # What is under /auth/, by address: a minute of it costs about a second of hashing.
    rate_limit_login: int = Field(60, ge=0)
    rate_limit_balance: int = Field(10, ge=0)
    rate_limit_transactions: int = Field(20, ge=0)
    # Statements, spending and proofs together: each reads much more than a page.
    rate_limit_reports: int = Field(20, ge=0)
    # Failures of one account from one address, from which on the next try has to wait; 0 turns all waiting off.
    login_tries: int = Field(5, ge=0)
    # Addresses that one user wanted to pay and that nobody has proven, within an hour, from which on the next has to
    # wait; 0 turns it off.
    recipient_misses: int = Field(20, ge=0)
    # Open at one time: of one IPv4 address or IPv6 /64 (twice as many of a /56, four times of a /48; 0 turns it off),
    # and in each process of the API. There are fewer where the process may not have so many files.
    connections_per_address: int = Field(128, ge=0)
    connections_limit: int = Field(4096, ge=1)
    # Networks whose X-Forwarded-For is believed, separated by commas.
    trusted_proxies: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = ()

    @property
    def bank_database(self) -> str:
        """The bank's journal lives apart: it is the other side's book, not ours."""
        return f"{self.database}_bank"

    @property
    def mailbox_path(self) -> str:
        return self.mailbox_file or f"{self.data_dir}/mailbox.jsonl"

    @property
    def registers_by_mail(self) -> bool:
        return self.env is Environment.PRODUCTION if self.registration_by_mail is None else self.registration_by_mail

    @property
    def checkpoint_path(self) -> str:
        """Named by the database: two of them must not share a file."""
        return self.checkpoint_file or f"{self.data_dir}/{self.database}-checkpoints.jsonl"

    @property
    def mail_patience_s(self) -> float:
        """How long a worker waits for one mail to be taken."""
        return self.mail_timeout_s if self.mail == "smtp" else self.bank_timeout_s

    @property
    def root_key(self) -> bytes:
        """The current encryption key's 32 bytes."""
        return key_bytes(self.encryption_key)

    @property
    def root_keys(self) -> tuple[bytes, ...]:
        """Of the encryption keys 32 bytes each, the current one first."""
        keys = (self.encryption_key, self.encryption_key_previous)
        return tuple(key_bytes(key) for key in keys if key is not None)

    @property
    def checkpoint_seed(self) -> bytes | None:
        """None in a process that was given the public half alone."""
        return None if self._lacks_signing_key else key_bytes(self.checkpoint_signing_key)

    @property
    def checkpoint_verifier(self) -> Ed25519PublicKey:
        """The key by which checkpoints are checked."""
        if self.checkpoint_public_key is not None:
            return Ed25519PublicKey.from_public_bytes(base64.b64decode(self.checkpoint_public_key))
        return Ed25519PrivateKey.from_private_bytes(key_bytes(self.checkpoint_signing_key)).public_key()

    @property
    def _lacks_signing_key(self) -> bool:
        return self.checkpoint_public_key is not None and "checkpoint_signing_key" not in self.model_fields_set

    @property
    def jwt_secrets(self) -> tuple[str, ...]:
        """The one that signs, then the one whose signatures still hold, if there is one."""
        secrets = (self.jwt_secret, self.jwt_secret_previous)
        return tuple(secret.get_secret_value() for secret in secrets if secret is not None)

    @property
    def bank_webhook_secrets(self) -> tuple[str, ...]:
        """Any of them may have signed a callback."""
        secrets = (self.bank_webhook_secret, self.bank_webhook_secret_previous)
        return tuple(secret.get_secret_value() for secret in secrets if secret is not None)

    @property
    def logs_as_json(self) -> bool:
        return self.env is Environment.PRODUCTION if self.log_json is None else self.log_json

    @field_validator("trusted_proxies", "webhook_denied_networks", "currencies", mode="before")
    @classmethod
    def _split(cls, named: object) -> object:
        return [one.strip() for one in named.split(",") if one.strip()] if isinstance(named, str) else named

    @field_validator("encryption_key", "encryption_key_previous", "checkpoint_signing_key")
    @classmethod
    def _refuse_a_short_key(cls, key: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if key is not None and len(key_bytes(key)) != _KEY_BYTES:
            raise ValueError(f"WALLET_{str(info.field_name).upper()} has to be 32 bytes in base64")
        return key

    def _secrets(self) -> dict[str, str]:
        """All of them that are set, by field: whatever is a SecretStr and not an address."""
        others = (*SECRETS_OF_SERVERS, *(["checkpoint_signing_key"] if self._lacks_signing_key else []))
        fields = {name: getattr(self, name) for name in type(self).model_fields if name not in others}
        return {name: value.get_secret_value() for name, value in fields.items() if isinstance(value, SecretStr)}

    @property
    def addresses_without_password(self) -> list[str]:
        """Servers that anybody on the network may use, by setting."""
        given = {name: getattr(self, name) for name in ADDRESSES}
        urls = {name: urlsplit(value.get_secret_value()) for name, value in given.items() if value is not None}
        return [f"WALLET_{name.upper()}" for name, url in urls.items() if not url.password]

    @model_validator(mode="after")
    def _refuse_what_does_not_go_together(self) -> Self:
        if self.bank_delay_min_s > self.bank_delay_max_s:
            raise ValueError("WALLET_BANK_DELAY_MIN_S is above WALLET_BANK_DELAY_MAX_S")
        if self.bank_recheck_s <= self.bank_timeout_s:
            raise ValueError("WALLET_BANK_RECHECK_S has to be above WALLET_BANK_TIMEOUT_S: a visit ends with its claim")
        if self.hold_lifetime_s > self.hold_lifetime_max_s:
            raise ValueError("WALLET_HOLD_LIFETIME_S is above WALLET_HOLD_LIFETIME_MAX_S")
        if self.refresh_token_lifetime_s > self.session_lifetime_s:
            raise ValueError("WALLET_REFRESH_TOKEN_LIFETIME_S is above WALLET_SESSION_LIFETIME_S")
        if len({rule.name for rule in self.earning_rules}) < len(self.earning_rules):
            raise ValueError("WALLET_EARNING_RULES has two rules of one name")
        return self

    @model_validator(mode="after")
    def _refuse_halves_of_two_keys(self) -> Self:
        if self.checkpoint_public_key is not None and self.checkpoint_seed is not None:
            signer = Ed25519PrivateKey.from_private_bytes(self.checkpoint_seed).public_key()
            if signer.public_bytes_raw() != self.checkpoint_verifier.public_bytes_raw():
                raise ValueError("WALLET_CHECKPOINT_PUBLIC_KEY is not that of WALLET_CHECKPOINT_SIGNING_KEY")
        return self

    @model_validator(mode="after")
    def _refuse_mail_that_cannot_work(self) -> Self:
        if self.mail == "smtp" and self.mail_host is None:
            raise ValueError("WALLET_MAIL=smtp needs WALLET_MAIL_HOST")
        if (self.mail_user is None) != (self.mail_password is None):
            raise ValueError("WALLET_MAIL_USER and WALLET_MAIL_PASSWORD go together")
        is_in_clear = self.mail == "smtp" and self.mail_tls == "none" and not _is_loopback(self.mail_host)
        if is_in_clear and (self.mail_user is not None or self.env is Environment.PRODUCTION):
            raise ValueError("WALLET_MAIL_TLS=none is for a mail server on this machine: others would read the mails")
        return self

    @model_validator(mode="after")
    def _refuse_what_production_must_not_have(self) -> Self:
        if self.env is Environment.PRODUCTION:
            _refuse_weak_secrets(self._secrets())
            if self.crash_at is not None:
                raise ValueError("WALLET_CRASH_AT is for tests: production must not die on demand")
            if self.webhook_allow_loopback:
                raise ValueError("WALLET_WEBHOOK_ALLOW_LOOPBACK is for development: users would reach this machine")
            self._refuse_stand_ins()
        elif not _is_loopback(self.published_at):
            raise ValueError("WALLET_ENV=development is for this machine only: WALLET_PUBLISHED_AT is beyond loopback")
        if any(len(secret.encode()) < 32 for secret in self.jwt_secrets):  # noqa: PLR2004 RFC 7518 3.2: as long as the hash
            raise ValueError("WALLET_JWT_SECRET and _PREVIOUS need at least 32 bytes (RFC 7518, section 3.2)")
        return self

    def _refuse_stand_ins(self) -> None:
        if self.mail == "file" and not self.allow_file_mailbox:
            raise ValueError(
                "WALLET_MAIL is file in production: nobody would get a mail. Set WALLET_MAIL=smtp, or, where the file "
                "is wanted, WALLET_ALLOW_FILE_MAILBOX=true"
            )
        if not self.allow_simulated_bank:
            raise ValueError(
                "The bank is a simulation: deposits are made up. Where production is to run with it, set "
                "WALLET_ALLOW_SIMULATED_BANK=true"
            )


def _is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ip_address(host or "").is_loopback
    except ValueError:
        return False


def _refuse_weak_secrets(secrets: dict[str, str]) -> None:
    """Those of development, which everybody can read; short and simple ones; and one that serves for two things."""
    seen: dict[str, str] = {}
    for field, secret in secrets.items():
        name = f"WALLET_{field.upper()}"
        if secret in _DEVELOPMENT_SECRETS:
            raise ValueError(f"{name} has to be set in production: everybody knows the one of development")
        # Of base64 the bytes count, or two spellings would pass for two secrets.
        plain = key_bytes(SecretStr(secret.removeprefix("whsec_"))) or secret.encode()
        if len(plain) < _WEAKEST_BYTES or len(set(plain)) < _FEWEST_DIFFERENT_BYTES:
            raise ValueError(f"{name} is too weak for production: at least 24 random bytes")
        other = seen.setdefault(plain.hex(), name)
        if other != name:
            raise ValueError(f"{name} and {other} have to be two different secrets")


def key_bytes(key: SecretStr) -> bytes:
    """What a key is of that is given in base64. Nothing where the text is not base64."""
    try:
        return base64.b64decode(key.get_secret_value(), validate=True)
    except (binascii.Error, ValueError):
        return b""


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    return Settings()
