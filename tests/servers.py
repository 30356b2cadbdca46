"""The real servers that tests run against: one MongoDB replica set and one Redis for a whole run."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import pymongo
from pydantic import SecretStr

from scripts.embedded import MongoServer, RedisServer, free_port, start_mongod, start_redis
from scripts.service_stack import NO_LIMITS
from service.settings import EarningRuleSettings, Settings

Admin = pymongo.MongoClient[dict[str, Any]]

_SERVICE_USER = "wallet_service"
_SERVICE_PASSWORD = "wallet-service-password"
_CACHE_GB = 0.25


# Every test asks from one address, as often as it needs to.
NO_RATE_LIMITS = {name.removeprefix("WALLET_").lower(): int(value) for name, value in NO_LIMITS.items()}


_DEALT_IN = ("INR", "USD", "EUR", "GBP", "JPY", "KWD", "CHF")


class Servers(NamedTuple):
    mongo: MongoServer
    redis: RedisServer


# The driver's monitor waits for the server's word all the time otherwise. The loop stands still while tests run that
# are not async, and after six seconds of them the monitor takes it for the server's silence: the next test's first
# connections would be cancelled.
_NO_STREAM = "&serverMonitoringMode=poll"


@contextmanager
def running_servers(folder: Path) -> Iterator[Servers]:
    """Fail points (`configureFailPoint`) are there for tests that need a server to stumble."""
    parameters = {"enableTestCommands": "1"}
    with (
        start_mongod(folder / "mongo", free_port(), cache_gb=_CACHE_GB, parameters=parameters) as mongo,
        start_redis(folder / "redis", free_port()) as redis,
    ):
        yield Servers(mongo, redis)


def make_settings(servers: Servers, **overrides: Any) -> Settings:
    """Settings for a database of its own, with a quick bank that always pays; neither `.env` nor WALLET_ is read."""
    values: dict[str, Any] = {
        "mongo_url": SecretStr(servers.mongo.url_for(_SERVICE_USER, _SERVICE_PASSWORD) + _NO_STREAM),
        "mongo_admin_url": SecretStr(servers.mongo.admin_url),
        "redis_url": SecretStr(servers.redis.url),
        "mailbox_file": str(servers.mongo.data_dir.parent / "mailbox.jsonl"),
        # Where checkpoints are copied to, each database's into a file of its own.
        "data_dir": str(servers.mongo.data_dir.parent),
        "database": f"wallet_test_{uuid4().hex[:8]}",
        # Receivers of tests are on this machine.
        "webhook_allow_loopback": True,
        "bank_delay_min_s": 0.0,
        "bank_delay_max_s": 0.05,
        "bank_success_rate": 1.0,
        "bank_timeout_rate": 0.0,
        "bank_error_rate": 0.0,
        # Tests make and exchange what they need.
        "house_floors": {account: dict.fromkeys(_DEALT_IN, -(2**61)) for account in ("bank", "house:fx")},
        # An app counts at once; what the wait does, its own tests show.
        "totp_wait_s": 0,
        # Nor do tests that pay all day long meet the day's sum; its own tests set one.
        "step_up_day_above": {},
        "limits": {},
        **NO_RATE_LIMITS,
        "earning_rules": (
            EarningRuleSettings(name="deposits", on="deposit", currency="INR", per_amount=10_000, points=1),
        ),
    }
    return Settings(_env_file=None, **(values | overrides))


@contextmanager
def fail_point(admin: Admin, times: int, **data: Any) -> Iterator[None]:
    """Lets commands fail the server's own way: "The failCommand Fail Point" in MongoDB's driver specifications."""
    admin.admin.command({"configureFailPoint": "failCommand", "mode": {"times": times}, "data": data})
    try:
        yield
    finally:
        admin.admin.command({"configureFailPoint": "failCommand", "mode": "off"})
