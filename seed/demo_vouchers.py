"""The vouchers that CREDENTIALS.md lists, put into the catalogue by its admin."""

import json
from hashlib import sha256
from typing import Final

from seed.demo_users import DEMO_USERS
from seed.deposits import NEVER, SeedFailed
from service.domain.idempotency import IdempotencyClaim
from service.errors import IdempotencyKeyReused
from service.ledger.committer import Ledger
from service.repositories import users as user_repository
from service.services.orders import Requester
from service.services.vouchers import VoucherOrder, create_voucher

_CREATED: Final = 201

DEMO_VOUCHERS: Final = (
    VoucherOrder("A cup of coffee", "Any size, in any of our shops", 100, 500, None, None, None, is_active=True),
    VoucherOrder("A day at the museum", "For two, on any day but Monday", 750, 20, 1, None, None, is_active=True),
)


async def ensure_vouchers(ledger: Ledger) -> list[str]:
    """Puts in what no earlier run did; what was changed or redeemed since stays as it is. Returns their ids."""
    admin_email, *_ = [user.registration.email for user in DEMO_USERS if "admin" in user.roles]
    admin = await user_repository.find_by_email(admin_email)
    if admin is None:
        raise SeedFailed(f"There is no {admin_email} to keep the vouchers")
    ids = []
    for order in DEMO_VOUCHERS:
        fingerprint = sha256(json.dumps(order).encode()).hexdigest()
        claim = IdempotencyClaim(f"{admin.id}:seed-voucher-{order.title}", fingerprint, NEVER)
        try:
            answer = await create_voucher(ledger, Requester(admin.id, None), order, claim, None)
        except IdempotencyKeyReused:
            # An earlier version of the seed put it in with other words.
            continue
        body = json.loads(answer.body)
        if answer.status_code != _CREATED:
            raise SeedFailed(f"The voucher {order.title} was refused: {body['message']}")
        ids.append(body["id"])
    return ids
