"""Spending over HTTP: what went out of a wallet, by month and category."""

from typing import Annotated

from fastapi import Query as QueryParameters
from fastapi import Response
from pydantic import Field

from service.controllers.answers import json_response
from service.controllers.dependencies import require
from service.controllers.pagination import Query
from service.controllers.routing import api_router
from service.controllers.schemas import View, problem_responses
from service.controllers.wallets import WalletId
from service.domain.permissions import Permission
from service.domain.spending import spending_view
from service.errors import SearchTooLong, TooManyCategories, TotalOverflow
from service.services import spending
from service.services.callers import Caller
from service.services.spending import MONTHS_LIMIT

router = api_router("Wallets")

# What the service can have anything of, as with times.
_MONTH_PATTERN = r"^(19[7-9][0-9]|2[01][0-9][0-9])-(0[1-9]|1[0-2])$"


class SpendingQuery(Query):
    from_month: Annotated[
        str, Field(pattern=_MONTH_PATTERN, description="The first month, in UTC", examples=["2026-01"])
    ]
    to_month: Annotated[
        str,
        Field(
            pattern=_MONTH_PATTERN,
            description=f"The last month, which counts as well; at most {MONTHS_LIMIT} in all",
            examples=["2026-11"],
        ),
    ]


class SpentView(View):
    """Minor units. `spent` is `paid` less `returned`: below 0 where more came back than was paid."""

    spent: int = Field(examples=[25000])
    paid: int = Field(ge=0, examples=[30000])
    returned: int = Field(ge=0, examples=[5000])
    paid_count: int = Field(ge=0, examples=[3])
    returned_count: int = Field(ge=0, examples=[1])


class CategorySpentView(SpentView):
    category: str | None = Field(description="null: what has none", examples=["rent"])


class MonthSpentView(SpentView):
    month: str = Field(examples=["2026-01"])
    categories: list[CategorySpentView] = Field(description="Those on which most was spent first")


class SpendingView(View):
    wallet_id: str = Field(examples=["wal_0198c0ffee0070008000000000000001"])
    currency: str = Field(examples=["INR"])
    from_month: str = Field(examples=["2026-01"])
    to_month: str = Field(examples=["2026-11"])
    months: list[MonthSpentView] = Field(description="Every month of the range, oldest first")


@router.get(
    "/wallets/{wallet_id}/spending",
    response_model=SpendingView,
    responses=problem_responses(TooManyCategories, TotalOverflow, SearchTooLong),
    summary="What was spent, by month and category",
)
async def get_spending(
    wallet_id: WalletId,
    query: Annotated[SpendingQuery, QueryParameters()],
    user: Annotated[Caller, require(Permission.WALLETS_READ)],
) -> Response:
    """Counted are WITHDRAWAL, TRANSFER_OUT, HOLD_CAPTURE and DEBIT, less WITHDRAWAL_REFUND and REVERSAL_IN.

    Each counts in the month of its own entry: a withdrawal when it is accepted, its refund when it comes back. What is
    only held, exchanged into another currency or redeemed does not count. Months are UTC's.
    """
    wallet, months = await spending.get_spending(wallet_id, user.user_id, query.from_month, query.to_month)
    body = {
        "wallet_id": wallet.id,
        "currency": wallet.currency,
        "from_month": query.from_month,
        "to_month": query.to_month,
        "months": [spending_view(month) for month in months],
    }
    return json_response(body)
