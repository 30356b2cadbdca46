"""Points that were earned, over HTTP."""

from typing import Annotated

from fastapi import Query, Response
from pydantic import Field

from service.controllers.dependencies import OpenResources, require
from service.controllers.pagination import PageQuery, open_page, page_of
from service.controllers.routing import api_router
from service.controllers.schemas import PageView, View
from service.domain.permissions import Permission
from service.domain.rewards import RewardStatus, reward_view
from service.services import rewards
from service.services.callers import Caller

router = api_router("Points and vouchers")


class RewardView(View):
    """Points for one operation. `rules` says which rule gave how many of them."""

    id: str = Field(examples=["rwd_0198c0ffee0070008000000000000001"])
    status: RewardStatus = Field(description="`lapsed`: the wallet for points was closed")
    points: int = Field(ge=1, examples=[10])
    rules: dict[str, int] = Field(examples=[{"deposits": 10}])
    operation_id: str = Field(examples=["dep_0198c0ffee0070008000000000000001"])
    wallet_id: str
    transaction_id: str
    created_at: str = Field(json_schema_extra={"format": "date-time"}, examples=["2026-02-24T12:34:56.789Z"])


@router.get(
    "/rewards",
    response_model=PageView[RewardView],
    summary="The points that one has earned, newest operation first",
    description="By operation: how many points, and which rules gave them.",
)
async def list_rewards(
    query: Annotated[PageQuery, Query()],
    user: Annotated[Caller, require(Permission.REWARDS_READ)],
    resources: OpenResources,
) -> Response:
    page = open_page(query, resources.settings, "rewards", user.user_id, str)
    found = await rewards.list_rewards(user.user_id, before_id=page.position, limit=page.limit_and_one)
    return page_of(found, page, lambda reward: reward.id, reward_view)
