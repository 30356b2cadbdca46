"""The users that CREDENTIALS.md lists, with their passwords and starting balances."""

from typing import Final, NamedTuple
from uuid import uuid4

from seed.deposits import StartingBalance, deposit_once
from service.domain.clock import utc_now
from service.domain.sealed import SealedField
from service.errors import EmailTaken, WalletExists
from service.repositories import totp_enrolments as enrolment_repository
from service.repositories import users as user_repository
from service.services.orders import Requester
from service.services.sealing import seal
from service.services.users import Registration, register_user
from service.services.wallets import get_balances, open_wallet
from service.startup import Resources


class DemoUser(NamedTuple):
    """`balances` in minor units by currency; a wallet comes with each, empty where it is 0."""

    registration: Registration
    roles: tuple[str, ...]
    balances: dict[str, int]
    # The secret of an app that is active from the start; a new one takes a mailed code and a day.
    totp_secret: str | None = None


def _user(first_name: str, last_name: str, password: str, balances: dict[str, int], *more_roles: str) -> DemoUser:
    registration = Registration(first_name, last_name, f"{first_name.lower()}@example.com", password)
    return DemoUser(registration, ("user", *more_roles), balances)


DEMO_USERS: Final = (
    _user("Asha", "Rao", "copper-lantern-meadow-41", {"INR": 10_000_000, "USD": 250_000}),
    _user("Bo", "Lind", "velvet-harbor-tundra-58", {"INR": 2_500_000}),
    _user("Chen", "Wei", "marble-cricket-signal-73", {"INR": 30_000}),
    _user("Dina", "Haddad", "walnut-comet-ferry-19", {"INR": 0}),
    _user("Ines", "Moreno", "granite-violin-orchard-86", {"INR": 0}, "admin"),
    # Large adjustments take two admins.
    _user("Jonas", "Weber", "saddle-quartz-lagoon-37", {"INR": 0}, "admin"),
    _user("Relay", "Service", "ember-compass-glacier-64", {"INR": 0}, "service"),
    _user("Vera", "Okoye", "lichen-harbour-sonnet-52", {"INR": 0})._replace(
        totp_secret="KZSXEYJHOMQGC5LUNBSW45DJMNQXI33S"  # noqa: S106 for demonstration, in CREDENTIALS.md
    ),
)


class Seeded(NamedTuple):
    demo_user: DemoUser
    is_new: bool


async def seed_demo_users(resources: Resources) -> list[Seeded]:
    """Makes what is missing of them and their balances; who is there already stays as they are."""
    seeded = []
    for demo_user in DEMO_USERS:
        user_id, is_new = await _ensure_user(demo_user, resources)
        for currency in demo_user.balances:
            await _ensure_wallet(user_id, currency, resources)
        wanted = demo_user.balances.items()
        balances = [StartingBalance(user_id, amount, currency) for currency, amount in wanted if amount]
        if demo_user.totp_secret is not None:
            await _ensure_app(user_id, demo_user.totp_secret, resources)
        await deposit_once(balances, resources.ledger, resources.settings)
        seeded.append(Seeded(demo_user, is_new))
    return seeded


async def _ensure_user(demo_user: DemoUser, resources: Resources) -> tuple[str, bool]:
    email = demo_user.registration.email
    # Looked for first: a registration hashes the password before it finds the e-mail taken.
    known = await user_repository.find_by_email(email)
    if known is not None:
        # Seeded before addresses were proven.
        await user_repository.verify_email(known.id, utc_now())
        return known.id, False
    try:
        user, _wallet = await register_user(
            resources.databases.client,
            resources.passwords,
            resources.settings,
            demo_user.registration,
            demo_user.roles,
            is_verified=True,
        )
    except EmailTaken:
        # A second seed at the same moment.
        return await _ensure_user(demo_user, resources)
    return user.id, True


async def _ensure_app(user_id: str, secret: str, resources: Resources) -> None:
    """One that was given up stays so."""
    if await enrolment_repository.find(user_id) is not None:
        return
    now = utc_now()
    sealed = seal(resources.settings, secret, SealedField.TOTP_SECRET, user_id)
    await enrolment_repository.insert_active(user_id, uuid4().hex, sealed, now)


async def _ensure_wallet(user_id: str, currency: str, resources: Resources) -> None:
    if any(wallet.currency == currency for wallet in await get_balances(user_id)):
        return
    try:
        await open_wallet(resources.databases.client, Requester(user_id, None), currency, resources.ledger.policy)
    except WalletExists:
        # A second seed at the same moment has done it.
        return
