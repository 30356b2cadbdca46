"""What services and staff do to other people's money stands on record: who did it, in an audit event."""

from collections.abc import Iterator
from sys import modules

from service.domain.operations import Operation
from service.domain.permissions import Permission
from service.ledger import approvals, conversions, holds, orders, transfers, vouchers
from service.ledger.audit_events import AuditedCommand
from service.ledger.commands import PersonalCommand
from service.repositories import records as record_repository
from tests.factories import asking_of, freeze
from tests.security.routes import Route
from tests.security.target import Target
from tests.security.world import ADMIN, SERVICE, USER, Person, send

# Whoever may call these moves money that is not theirs, or changes what others' points buy.
_PERMISSIONS = {Permission.ADJUSTMENTS_WRITE, Permission.ADJUSTMENTS_ADMIN, Permission.CATALOGUE_ADMIN}
_HOLDS = {"POST /api/v1/holds/{hold_id}/capture", "POST /api/v1/holds/{hold_id}/release"}
# Where the world has nothing that waits; their own tests and the state machine look for the event.
_SEEN_ELSEWHERE = {
    "POST /api/v1/adjustments/{adjustment_id}/approve",
    "POST /api/v1/adjustments/{adjustment_id}/reject",
    "POST /api/v1/admin/returns/{return_id}/collect",
}
# About one's own money only: the rule refuses everybody else.
_OWN_MONEY: set[type[PersonalCommand]] = {
    orders.RequestDeposit,
    orders.RequestWithdrawal,
    transfers.RequestTransfer,
    holds.RequestHold,
    conversions.ConvertMoney,
    vouchers.RedeemVoucher,
    approvals.ConfirmPayment,
    approvals.CancelPayment,
}


def _concrete(kind: type[PersonalCommand]) -> Iterator[type[PersonalCommand]]:
    """Those of the service without subclasses: the others are bases, and tests have defective ones.

    A dataclass with slots leaves the class that it was made of.
    """
    ours = [one for one in kind.__subclasses__() if one.__module__.startswith("service.")]
    kinds = [one for one in ours if getattr(modules[one.__module__], one.__name__, None) is one]
    if not kinds:
        yield kind
    for one in kinds:
        yield from _concrete(one)


async def _ids(target: Target, route: Route, person: Person) -> dict[str, str]:
    """Of what is somebody else's, in a state in which the route does something."""
    world = target.world
    if str(route) in _HOLDS:
        third = world.third
        return {"hold_id": await third.make("/holds", amount=1_000, currency="INR", wallet_id=third.wallet.id)}
    if "/blocked-withdrawals/" in route.path:
        owner = await world.person(USER)
        asked = await owner.make("/withdrawals", amount=1_000, currency="INR", destination="bank-account-0001")
        operation = await record_repository.find(asked, Operation)
        assert operation is not None
        await freeze(world.databases, owner.wallet, world.admin.user)
        await world.resources.ledger.change(asking_of(operation), Operation)
        return {"operation_id": asked}
    return await person.ids_for(route)


async def _call(target: Target, route: Route, role: str) -> list[str]:
    """As this role, on money of others; what is missing on record afterwards."""
    person = await target.world.person(role)
    ids, body = await _ids(target, route, person), await person.body_for(route)
    if route.path.endswith("/blocked-withdrawals/{operation_id}/release"):
        body["force"] = True
    answer = await send(target.api, route, person.headers, ids=ids, body={} if str(route) in _HOLDS else body)
    if str(route) in _SEEN_ELSEWHERE and answer.status_code == 409:
        return []
    assert answer.is_success, f"{route} as {role}: {answer.text}"
    found = await target.world.databases.wallet["audit_events"].find_one(
        {"request_id": answer.headers["X-Request-ID"], "actor_id": person.user.id}
    )
    return [] if found is not None else [f"{route} as {role}"]


class TestOthersMoney:
    async def test_is_moved_by_no_route_without_an_audit_event_of_who_did_it(self, target: Target) -> None:
        unrecorded, called = [], 0
        for route in target.routes:
            if route.method == "GET" or (route.permission not in _PERMISSIONS and str(route) not in _HOLDS):
                continue
            roles = target.world.roles_of(route) & {SERVICE, ADMIN}
            for role in sorted(roles):
                unrecorded += await _call(target, route, role)
                called += 1
        assert unrecorded == []
        assert called

    async def test_held_for_a_guest_and_captured_by_a_service_shows_the_service(self, target: Target) -> None:
        world = target.world
        service = await world.person(SERVICE)
        held = await world.third.make("/holds", amount=1_000, currency="INR", wallet_id=world.third.wallet.id)
        captured = await service.post(f"/holds/{held}/capture")
        assert captured["status"] == "captured"
        hold = await world.databases.wallet["holds"].find_one({"_id": held})
        event = await world.databases.wallet["audit_events"].find_one({"subject_id": held})
        assert hold is not None
        assert event is not None
        assert (hold["ended_by"], event["actor_id"], event["action"]) == (
            service.user.id,
            service.user.id,
            "hold.captured",
        )

    def test_is_moved_by_audited_commands_alone(self) -> None:
        unaudited = {kind for kind in _concrete(PersonalCommand) if not issubclass(kind, AuditedCommand)}
        assert unaudited == _OWN_MONEY, "Does it move others' money? Then it has to be an AuditedCommand"
