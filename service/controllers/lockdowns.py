"""Lockdowns over HTTP, for admins: stop a theft in one act, lift it in two."""

from typing import Annotated, Any

from asgi_correlation_id import correlation_id
from fastapi import Depends, Path, Response
from pydantic import ConfigDict, Field

from service.controllers.answers import json_response
from service.controllers.dependencies import OpenResources, require
from service.controllers.fields import Reason
from service.controllers.requests import StrictModel
from service.controllers.routing import api_router
from service.controllers.schemas import View, problem_responses
from service.domain.clock import to_rfc3339
from service.domain.lockdowns import LockdownStatus
from service.domain.permissions import Permission
from service.domain.wallets import Freeze, WalletStatus
from service.errors import AccountDeactivated, Forbidden, IllegalTransition, LedgerBusy, OwnAccount, SecondAdminRequired
from service.services.callers import Caller
from service.services.lockdowns import Lockdowns, LockdownState, get_lockdown

router = api_router("User administration", prefix="/admin/users/{user_id}/lockdown")

_UserId = Annotated[str, Path(max_length=64, examples=["usr_0198c0ffee0070008000000000000001"])]
_Admin = Annotated[Caller, require(Permission.USERS_ADMIN)]

_LIFT_EXAMPLE: dict[str, Any] = {
    "proposed_by": "usr_0198c0ffee0070008000000000000002",
    "reason": "The owner came to the branch with a passport",
    "proposed_at": "2026-02-25T09:00:00.000Z",
    "approved_by": None,
    "approved_at": None,
}
_EXAMPLE: dict[str, Any] = {
    "user_id": "usr_0198c0ffee0070008000000000000001",
    "status": "lift_proposed",
    "locked_by": "usr_0198c0ffee0070008000000000000003",
    "reason": "Reported a stolen password",
    "locked_at": "2026-02-24T12:34:56.789Z",
    "lift": _LIFT_EXAMPLE,
    "wallets": [
        {
            "wallet_id": "wal_0198c0ffee0070008000000000000001",
            "currency": "INR",
            "status": "frozen",
            "frozen": "both",
        }
    ],
}


class LockdownRequest(StrictModel):
    reason: Annotated[Reason, Field(examples=["Reported a stolen password"])]


class LiftRequest(StrictModel):
    reason: Annotated[Reason, Field(examples=["The owner came to the branch with a passport"])]


class LiftView(View):
    proposed_by: str
    reason: str
    proposed_at: str = Field(json_schema_extra={"format": "date-time"})
    approved_by: str | None
    approved_at: str | None = Field(json_schema_extra={"format": "date-time"})


class LockedWalletView(View):
    wallet_id: str
    currency: str
    status: WalletStatus
    frozen: Freeze | None = Field(description="Which way a frozen wallet is shut: in, out or both")


class LockdownView(View):
    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    user_id: str
    status: LockdownStatus = Field(
        description="`none`: not locked down. `incomplete` and `lifting`: the service ended in the middle; the same "
        "request again finishes it"
    )
    locked_by: str | None
    reason: str | None
    locked_at: str | None = Field(json_schema_extra={"format": "date-time"})
    lift: LiftView | None = Field(description="The proposal to lift it, where there is one")
    wallets: list[LockedWalletView]


def _lockdowns(resources: OpenResources) -> Lockdowns:
    return Lockdowns(resources.databases.client, resources.ledger, resources.ended_tokens)


_Lockdowns = Annotated[Lockdowns, Depends(_lockdowns)]


@router.get(
    "",
    response_model=LockdownView,
    responses=problem_responses(Forbidden),
    summary="How a user's lockdown stands",
    description="With every wallet of the user: one that is not shut both ways is where a lockdown is incomplete.",
)
async def get_user_lockdown(user_id: _UserId, _user: _Admin) -> Response:
    return _shape(await get_lockdown(user_id))


@router.post(
    "",
    response_model=LockdownView,
    responses=problem_responses(Forbidden, OwnAccount, AccountDeactivated, LedgerBusy),
    summary="Stop everything of a user",
    description="Deactivates the user, ends their sessions, revokes their API keys, freezes all their wallets both "
    "ways, and keeps from the bank every withdrawal that it has not accepted. Needs no key: once more finishes what "
    "was left half done, and drops a proposal to lift it. Nobody does it to their own account.",
)
async def lock_down_user(body: LockdownRequest, user_id: _UserId, user: _Admin, lockdowns: _Lockdowns) -> Response:
    return _shape(await lockdowns.lock_down(user, user_id, body.reason, correlation_id.get()))


@router.post(
    "/lift",
    response_model=LockdownView,
    responses=problem_responses(Forbidden, OwnAccount, IllegalTransition),
    summary="Propose to lift a lockdown",
    description="Another admin approves it. A later proposal takes the place of an earlier one.",
)
async def propose_lift(body: LiftRequest, user_id: _UserId, user: _Admin, lockdowns: _Lockdowns) -> Response:
    return _shape(await lockdowns.propose_lift(user, user_id, body.reason, correlation_id.get()))


@router.post(
    "/lift/approve",
    response_model=LockdownView,
    responses=problem_responses(
        Forbidden, OwnAccount, SecondAdminRequired, AccountDeactivated, IllegalTransition, LedgerBusy
    ),
    summary="Approve the lift of a lockdown",
    description="By another admin than the one who proposed it. The wallets are as they were before, and the user can "
    "log in again; API keys stay revoked. A wallet stays frozen while something is owed in it or a break of its books "
    "is open. Once more finishes what was left half done.",
)
async def approve_lift(user_id: _UserId, user: _Admin, lockdowns: _Lockdowns) -> Response:
    return _shape(await lockdowns.approve_lift(user, user_id, correlation_id.get()))


def _shape(state: LockdownState) -> Response:
    lockdown, lift = state.user.lockdown, None
    if lockdown is not None and lockdown.lift_proposed_at is not None:
        approved_at = lockdown.lift_approved_at
        lift = {
            "proposed_by": lockdown.lift_proposed_by,
            "reason": lockdown.lift_reason,
            "proposed_at": to_rfc3339(lockdown.lift_proposed_at),
            "approved_by": lockdown.lift_approved_by,
            "approved_at": None if approved_at is None else to_rfc3339(approved_at),
        }
    return json_response(
        {
            "user_id": state.user.id,
            "status": state.status,
            "locked_by": None if lockdown is None else lockdown.locked_by,
            "reason": None if lockdown is None else lockdown.reason,
            "locked_at": None if lockdown is None else to_rfc3339(lockdown.locked_at),
            "lift": lift,
            "wallets": [
                {
                    "wallet_id": wallet.id,
                    "currency": wallet.currency,
                    "status": wallet.status,
                    "frozen": wallet.freeze,
                }
                for wallet in state.wallets
            ],
        }
    )
