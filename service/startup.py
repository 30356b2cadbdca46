"""Opens and closes what a process needs: MongoDB, Redis, the bank, the ledger. Shared by API, workers and seed."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any, NamedTuple, Protocol, TypeVar

import structlog
from pymongo.errors import PyMongoError
from redis.exceptions import RedisError

from service import metrics
from service.crash_points import arm
from service.database import Databases, bind_documents, connect
from service.domain.accounts import SystemAccount
from service.domain.ceilings import complete
from service.domain.clock import utc_now
from service.domain.house_positions import Floors
from service.domain.limits import Limits
from service.domain.money import EXPONENTS, ORDINARY_CURRENCIES, POINTS, is_currency
from service.domain.policy import Policy
from service.domain.rewards import EarningBounds, EarningEvent, EarningRule
from service.domain.user_limits import ReferenceLimits
from service.domain.workers import Presence
from service.gateways.bank import Bank
from service.gateways.bank_breaker import BankBreaker, BreakerState
from service.gateways.event_channel import EventChannel
from service.gateways.job_queue import Job, JobQueue
from service.gateways.mailbox import FileMailbox, Mailbox
from service.gateways.observed_bank import ObservedBank
from service.gateways.quick_redis import QuickRedis
from service.gateways.rate_limits import RateLimits
from service.gateways.rates import Rates, TableRates
from service.gateways.simulated_bank import SimulatedBank
from service.gateways.smtp_mailbox import SmtpMailbox
from service.gateways.webhook_addresses import WebhookAddresses
from service.ledger.committer import Committed, Ledger
from service.services.api_keys import KeyUses
from service.services.audit_events import AuditTrail
from service.services.clock_watch import ClockWatch, watch_of
from service.services.ended_tokens import EndedTokens
from service.services.event_feed import EventFeeds
from service.services.exports import Exports
from service.services.house_positions import apply_floors
from service.services.login_guard import LoginGuard
from service.services.metrics import Scrapes
from service.services.passwords import Passwords, give_way
from service.services.workers import find_presence
from service.settings import EarningRuleSettings, Environment, Settings
from service.tracing import tracing

log = structlog.get_logger()

# An orchestrator asks every few seconds and gives up after about two.
_CHECK_TIMEOUT_S = 1.5


class Resources(NamedTuple):
    settings: Settings
    databases: Databases
    jobs: JobQueue
    ledger: Ledger
    bank: Bank
    # Around that very bank.
    breaker: BankBreaker
    rates: Rates
    mailbox: Mailbox
    webhook_addresses: WebhookAddresses
    # Who asks, and how often.
    passwords: Passwords
    login_guard: LoginGuard
    key_uses: KeyUses
    audit_trail: AuditTrail
    ended_tokens: EndedTokens
    rate_limits: RateLimits
    event_channel: EventChannel
    event_feeds: EventFeeds
    exports: Exports
    scrapes: Scrapes
    clock_watch: ClockWatch


# Of the currencies without ceilings, in a message.
_NAMED_AT_ONCE = 5


def policy_of(settings: Settings) -> Policy:
    """The settable part of the ledger's rules. Raises ValueError for a rule that could never fit anything."""
    return Policy(
        limits=_limits(settings),
        step_up_above=_completed(settings, "WALLET_STEP_UP_ABOVE", settings.step_up_above),
        step_up_day_above=_completed(settings, "WALLET_STEP_UP_DAY_ABOVE", settings.step_up_day_above),
        adjustment_approval_above=_completed(
            settings, "WALLET_ADJUSTMENT_APPROVAL_ABOVE", settings.adjustment_approval_above, POINTS
        ),
        adjustment_day_above=_completed(settings, "WALLET_ADJUSTMENT_DAY_ABOVE", settings.adjustment_day_above, POINTS),
        earning_rules=tuple(_earning_rule(rule) for rule in settings.earning_rules),
        earning_bounds=EarningBounds(
            window=timedelta(seconds=settings.earning_window_s),
            points_per_day=settings.earning_points_per_day,
            pending=timedelta(seconds=settings.earning_pending_s),
        ),
        currencies=_currencies(settings),
        house_floors=_house_floors(settings),
        user_limits=_user_limits(settings),
        clock_bound=timedelta(seconds=settings.clock_bound_s),
    )


def _completed(settings: Settings, setting: str, table: Mapping[str, int], *besides: str) -> dict[str, int]:
    """With a ceiling for each currency that the table does not name."""
    unknown = sorted(table.keys() - EXPONENTS.keys())
    if unknown:
        raise ValueError(f"{setting} names {', '.join(unknown)}: no currency of ISO 4217 with minor units")
    if not table:
        return {}
    source = TableRates(settings.fx_rates, as_of=utc_now())
    preferred = (settings.user_limits.currency, settings.default_currency, *table)
    named = [one for one in preferred if one in table and is_currency(one)]
    # One that has a rate into another. By itself, each is among its own rates.
    reference = next((one for one in named if len(source.rates_into(one)) > 1), None)
    unnamed = sorted(_currencies(settings) - table.keys())
    if reference is None and unnamed:
        raise ValueError(
            f"{setting} names no currency that WALLET_FX_RATES has a rate for, so that nothing says what the ceilings "
            f"of {', '.join(unnamed[:_NAMED_AT_ONCE])} would be: name these too, add a rate, or name in "
            "WALLET_CURRENCIES the currencies that you deal in"
        )
    reference = reference or settings.default_currency
    rates = source.rates_into(reference)
    return complete(table, (*filter(is_currency, EXPONENTS), *besides), rates, reference)


def _limits(settings: Settings) -> dict[str, Limits]:
    """Each limit by itself: 0 is none, for a currency that is named as for those that go by it."""
    amounts = {
        name: _completed(
            settings,
            "WALLET_LIMITS",
            {currency: getattr(limits, name) for currency, limits in settings.limits.items() if getattr(limits, name)},
        )
        for name in ("per_transaction", "per_day", "per_month")
    }
    named = {currency: Limits(**limits.model_dump()) for currency, limits in settings.limits.items()}
    counts = [limits.count_per_hour for limits in settings.limits.values() if limits.count_per_hour]
    derived = {
        currency: Limits(
            **{name: table.get(currency, 0) for name, table in amounts.items()},
            count_per_hour=min(counts, default=0),
        )
        for currency in filter(is_currency, EXPONENTS)
        if named
    }
    return derived | named


def _currencies(settings: Settings) -> frozenset[str]:
    """Those named, or all that are ordinary money. The first wallet of everybody has to be in one of them."""
    named = frozenset(settings.currencies) or ORDINARY_CURRENCIES
    unknown = sorted(code for code in named if not is_currency(code))
    if unknown:
        raise ValueError(f"WALLET_CURRENCIES names {', '.join(unknown)}: no currency of ISO 4217 with minor units")
    if settings.default_currency not in named:
        raise ValueError(f"WALLET_DEFAULT_CURRENCY is {settings.default_currency}, which WALLET_CURRENCIES lacks")
    return named


def _house_floors(settings: Settings) -> Floors:
    floors: Floors = {
        (account, currency): floor
        for account, by_currency in settings.house_floors.items()
        for currency, floor in by_currency.items()
    }
    strangers = sorted(settings.house_floors.keys() - {*SystemAccount})
    if strangers:
        known = ", ".join(SystemAccount)
        raise ValueError(f"WALLET_HOUSE_FLOORS names {', '.join(strangers)}: the accounts are {known}")
    unknown = sorted({currency for _, currency in floors if not is_currency(currency) and currency != POINTS})
    if unknown:
        raise ValueError(f"WALLET_HOUSE_FLOORS names {', '.join(unknown)}: no currency of ISO 4217 with minor units")
    return floors


def _user_limits(settings: Settings) -> ReferenceLimits:
    """With the rates of the settings' own table. A source that changes has to be put into the policy as it changes."""
    limits = settings.user_limits
    if not is_currency(limits.currency):
        raise ValueError(f"WALLET_USER_LIMITS is in {limits.currency}, which is no ISO 4217 currency")
    rates = TableRates(settings.fx_rates, as_of=utc_now()).rates_into(limits.currency)
    others = _currencies(settings) - {limits.currency}
    needs_rates = limits.model_fields_set - {"count_per_hour"}
    if needs_rates and others and not rates.keys() & others:
        raise ValueError(
            f"WALLET_USER_LIMITS is in {limits.currency}, for which WALLET_FX_RATES has no rate: "
            "payments in other currencies would be refused. Name a currency of the table, or add a pair with this one"
        )
    return ReferenceLimits(limits.currency, Limits(**limits.model_dump(exclude={"currency"})), rates)


def _earning_rule(rule: EarningRuleSettings) -> EarningRule:
    if not is_currency(rule.currency):
        raise ValueError(f"WALLET_EARNING_RULES: {rule.name} is in {rule.currency}, which is no ISO 4217 currency")
    return EarningRule(**rule.model_dump() | {"on": EarningEvent(rule.on)})


def tracing_of(settings: Settings, service_name: str) -> AbstractAsyncContextManager[None]:
    """To be opened before the resources, so that what they do at their end is traced too."""
    return tracing(service_name, endpoint=settings.otlp_endpoint, sample_ratio=settings.trace_sample_ratio)


@asynccontextmanager
async def open_resources(settings: Settings, *, applies_floors: bool = True) -> AsyncIterator[Resources]:
    """`applies_floors` only for the service's own processes: scripts go by the floors that are stored.

    Closes all of it again, the last first, however far it came and whatever does not close: who writes, asks or
    wakes ends before what it does that with.
    """
    arm(settings.crash_at)
    # First, because nothing is open yet where it is refused.
    rates = TableRates(settings.fx_rates, as_of=utc_now())
    mailbox = _mailbox_of(settings)
    async with AsyncExitStack() as stack:
        databases = connect(settings.mongo_url.get_secret_value(), settings)
        stack.push_async_callback(databases.close)
        await bind_documents(databases)
        # Before anything asks what time it is.
        clock_watch = _closing(stack, watch_of(databases.client, settings.clock_bound_s))
        await clock_watch.start()
        event_channel = _closing(stack, EventChannel(settings))
        redis = _closing(stack, QuickRedis(settings))
        jobs = _closing(stack, JobQueue(settings))
        hashing = ThreadPoolExecutor(settings.password_hash_threads, thread_name_prefix="argon2", initializer=give_way)
        stack.callback(hashing.shutdown, wait=False, cancel_futures=True)
        webhook_addresses = _closing(stack, WebhookAddresses(settings))
        breaker = _closing(stack, _breaker_of(settings, redis, jobs))
        breaker.start()
        key_uses = _closing(stack, KeyUses())
        rate_limits = RateLimits(redis)
        ledger = _closing(stack, _ledger_of(settings, databases, jobs, rate_limits, clock_watch))
        if applies_floors:
            await apply_floors(databases.client, ledger.policy.house_floors)
        ledger.start()
        audit_trail = _closing(stack, AuditTrail())
        ended_tokens = _closing(stack, EndedTokens(settings.access_token_lifetime_s))
        event_feeds = _closing(stack, EventFeeds(settings, ended_tokens))
        scrapes = _closing(stack, Scrapes(settings, ledger, breaker, event_feeds, clock_watch))
        scrapes.start()
        _warn_of_stand_ins(settings)
        yield Resources(
            settings=settings,
            databases=databases,
            jobs=jobs,
            ledger=ledger,
            bank=breaker,
            breaker=breaker,
            rates=rates,
            mailbox=mailbox,
            webhook_addresses=webhook_addresses,
            passwords=Passwords(hashing),
            login_guard=LoginGuard(redis, settings),
            key_uses=key_uses,
            audit_trail=audit_trail,
            ended_tokens=ended_tokens,
            rate_limits=rate_limits,
            event_channel=event_channel,
            event_feeds=event_feeds,
            exports=Exports(settings.exports_limit),
            scrapes=scrapes,
            clock_watch=clock_watch,
        )


class _Closable(Protocol):
    async def close(self) -> None: ...


_Opened = TypeVar("_Opened", bound=_Closable)


def _closing(stack: AsyncExitStack, opened: _Opened) -> _Opened:
    stack.push_async_callback(opened.close)
    return opened


def _mailbox_of(settings: Settings) -> Mailbox:
    return SmtpMailbox(settings) if settings.mail == "smtp" else FileMailbox(settings)


def _breaker_of(settings: Settings, redis: QuickRedis, jobs: JobQueue) -> BankBreaker:
    def on_changed(state: BreakerState, retry_after_s: float) -> None:
        # Without waiting for the sweep: the first try, and what waits when it has gone well.
        jobs.wake(Job.DRAIN_OUTBOX, 0.0 if state is BreakerState.CLOSED else retry_after_s)

    # Closest to the bank: what the breaker keeps from it is no call.
    return BankBreaker(ObservedBank(SimulatedBank(settings, jobs)), redis, settings, on_changed)


def _ledger_of(
    settings: Settings, databases: Databases, jobs: JobQueue, rate_limits: RateLimits, clock_watch: ClockWatch
) -> Ledger:
    def on_committed(committed: Committed) -> None:
        if committed.has_outbox_rows:
            jobs.wake(Job.DRAIN_OUTBOX)
        metrics.batch_committed(committed.commands, committed.refused, committed.conflicts, committed.duration_s)
        for currency in committed.exhausted_currencies:
            metrics.house_refused(currency)
        if committed.has_events:
            jobs.wake(Job.DISPATCH_EVENTS)
        log.info(
            "ledger.batch_committed",
            size=committed.commands,
            refused=committed.refused,
            conflicts=committed.conflicts,
            duration_ms=round(committed.duration_s * 1000, 2),
        )

    return Ledger(
        databases.client,
        policy=policy_of(settings),
        batch_limit=settings.ledger_batch_limit,
        queue_limit=settings.ledger_queue_limit,
        user_share=settings.ledger_user_share,
        patience_s=settings.ledger_patience_s,
        on_committed=on_committed,
        let_in=rate_limits.until_answered,
        require_clock=clock_watch.require_right,
    )


def _warn_of_stand_ins(settings: Settings) -> None:
    if settings.env is not Environment.PRODUCTION:
        return
    # Whoever deposits from an account that ends in -success is paid by nobody.
    log.critical("bank.is_simulated")
    for setting in settings.addresses_without_password:
        # Whoever reaches the server can read and change all that is on it.
        log.critical("server.without_password", setting=setting)
    if settings.mail == "file":
        # Nobody gets a mail: codes that confirm payments lie in a file on this machine.
        log.critical("mailbox.is_a_file")


async def check_parts(resources: Resources) -> dict[str, str]:
    """Every part that the service leans on, by name: ok, unavailable, stopped or off; the bank's is its breaker."""
    mongodb, redis = await asyncio.gather(
        _answers("mongodb", resources.databases.client.admin.command("ping")),
        _answers("redis", resources.jobs.ping()),
    )
    bank = resources.breaker.state_now
    return {
        "mongodb": mongodb,
        "redis": redis,
        "ledger": "ok" if resources.ledger.is_running() else "stopped",
        "bank": "ok" if bank is BreakerState.CLOSED else bank.value,
        "clock": "off" if resources.clock_watch.is_wrong() else "ok",
    }


async def find_workers(resources: Resources) -> Presence | None:
    """None where MongoDB, which knows of them, does not answer."""
    del resources  # whose documents are asked: there is one set for a process
    try:
        return await asyncio.wait_for(find_presence(utc_now()), _CHECK_TIMEOUT_S)
    except (PyMongoError, TimeoutError) as error:
        log.warning("health.workers_unknown", error=repr(error))
        return None


async def _answers(part: str, call: Awaitable[Any]) -> str:
    try:
        await asyncio.wait_for(call, _CHECK_TIMEOUT_S)
    except (PyMongoError, RedisError, OSError, TimeoutError) as error:
        log.warning("health.part_missing", part=part, error=repr(error))
        return "unavailable"
    return "ok"
