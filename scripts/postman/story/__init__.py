"""The story: who takes part, and what they do, folder by folder in the order of a run."""

from typing import Final

from scripts.postman.story import accounts, house, payments, people, workflows
from scripts.postman.story.refusals import REFUSALS

DESCRIPTION: Final = """\
An example of every operation of the wallet service, each with tests, and workflows across them.

**Run it whole** with the collection runner, or with `make postman`: each time it makes two users of its own, Priya and
Tomas, and so can be run again, a few times a day: what the demo users may send in a day is limited. They do what takes
an admin or a service; CREDENTIALS.md lists them.

**Try single requests** after the first three folders have been run once: they keep tokens and ids in the environment.
An access token holds for 15 minutes; then run them again.

Amounts are minor units: 10000 is 100.00 INR. Each request that moves money has an `Idempotency-Key` of its own.
"""

ENVIRONMENT_NAME: Final = "Wallet service (local)"

# What CREDENTIALS.md lists, for demonstration only, and pass phrases for the users that the collection makes.
ENVIRONMENT: Final = {
    "base_url": "http://127.0.0.1:8000",
    "demo_email": "asha@example.com",
    "demo_password": "copper-lantern-meadow-41",
    "admin_email": "ines@example.com",
    "admin_password": "granite-violin-orchard-86",
    "second_admin_email": "jonas@example.com",
    "second_admin_password": "saddle-quartz-lagoon-37",
    "service_email": "relay@example.com",
    "service_password": "ember-compass-glacier-64",
    "demo_app_email": "vera@example.com",
    "demo_app_password": "lichen-harbour-sonnet-52",
    # The secret of vera's authenticator app: the scripts compute its codes.
    "totp_secret": "KZSXEYJHOMQGC5LUNBSW45DJMNQXI33S",
    "user_password": "juniper-anchor-mosaic-27",
    "friend_password": "thistle-beacon-pagoda-93",
    "friend_new_password": "lantern-otter-walnut-61",
    # A public address of nobody's concern: its endpoint is disabled before anything could be sent there.
    "webhook_url": "https://192.0.43.8/wallet-events",
    # Fill it in with the stack's own, and the bank's callback is accepted instead of refused.
    "bank_webhook_secret": "",
}

STORY: Final = (
    workflows.MAIN,
    workflows.OTHERS,
    workflows.LARGE_PAYMENT,
    people.HEALTH,
    people.AUTHENTICATION,
    people.SESSIONS,
    people.PASSWORDS,
    people.USERS,
    accounts.WALLETS,
    payments.DEPOSITS,
    payments.WITHDRAWALS,
    payments.TRANSFERS,
    payments.APPROVALS,
    people.SECOND_FACTOR,
    payments.HOLDS,
    payments.MULTI_CURRENCY,
    accounts.LIMITS,
    accounts.EVENTS,
    house.ADJUSTMENTS,
    house.REVERSALS,
    house.OUTCOMES,
    accounts.PROOFS,
    house.ADMIN,
    house.POINTS_AND_VOUCHERS,
    house.DEAD_LETTERS,
    house.API_KEYS,
    house.PROPOSALS,
    people.WEBHOOK_ENDPOINTS,
    house.WEBHOOKS,
    REFUSALS,
    house.USER_ADMINISTRATION,
)
