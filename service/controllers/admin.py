"""The books as the house's own people see them, over HTTP."""

from typing import Annotated, Any

from fastapi import Response
from pydantic import ConfigDict, Field

from service.controllers.answers import json_response
from service.controllers.dependencies import OpenResources, require
from service.controllers.routing import api_router
from service.controllers.schemas import PositiveSum, Sum, View
from service.domain.accounts import AccountSum
from service.domain.clock import to_rfc3339
from service.domain.permissions import Permission
from service.services.callers import Caller
from service.services.trial_balance import CurrencyBalance, TrialBalance, draw_up_trial_balance

router = api_router("Admin", prefix="/admin")


class BookedView(View):
    """What was booked in minor units. `balance` is credit less debit."""

    debit: PositiveSum = Field(description="What wallets received from it")
    credit: PositiveSum = Field(description="What wallets gave to it")
    balance: Sum = Field(description="Negative: wallets have received that much more than they gave")


class AccountView(BookedView):
    """Positions: the bank's is its balance with the other sign, a house account's the balance itself."""

    account: str = Field(examples=["bank"])
    floor: Sum | None = Field(description="The lowest that its position may become; null where it has none")
    headroom: Sum | None = Field(
        description="How far the position is above the floor, less open withdrawals and what wallets owe"
    )


class WalletsView(View):
    """All wallets of the currency, whatever their status. `balance` is `available` and `held` together."""

    available: PositiveSum
    held: PositiveSum
    balance: PositiveSum
    wallets: int = Field(ge=0, description="How many there are")


class CurrencyBalanceView(View):
    currency: str = Field(examples=["INR"])
    accounts: list[AccountView]
    between_wallets: BookedView = Field(description="Transfers and their like: its balance is 0 in sound books")
    wallets: WalletsView
    total: Sum = Field(description="Balances of the accounts and of the wallets: 0 in sound books")
    is_balanced: bool


_EXAMPLE: dict[str, Any] = {
    "as_of": "2026-02-24T12:34:56.789Z",
    "sums_through": "2026-02-24T12:00:00.000Z",
    "is_balanced": True,
    "currencies": [
        {
            "currency": "INR",
            "accounts": [
                {
                    "account": "bank",
                    "debit": 1250000,
                    "credit": 250000,
                    "balance": -1000000,
                    "floor": 0,
                    "headroom": 985000,
                },
                {
                    "account": "house:fx",
                    "debit": 0,
                    "credit": 0,
                    "balance": 0,
                    "floor": -500000,
                    "headroom": 500000,
                },
                {"account": "house:rewards", "debit": 0, "credit": 0, "balance": 0, "floor": None, "headroom": None},
                {
                    "account": "house:adjustments",
                    "debit": 5000,
                    "credit": 0,
                    "balance": -5000,
                    "floor": None,
                    "headroom": None,
                },
                {
                    "account": "house:revenue",
                    "debit": 0,
                    "credit": 30000,
                    "balance": 30000,
                    "floor": None,
                    "headroom": None,
                },
            ],
            "between_wallets": {"debit": 48000, "credit": 48000, "balance": 0},
            "wallets": {"available": 960000, "held": 15000, "balance": 975000, "wallets": 42},
            "total": 0,
            "is_balanced": True,
        }
    ],
}


class TrialBalanceView(View):
    """A sum beyond 2^53 - 1 is a string of its digits: most readers of JSON would change those of a number."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    as_of: str = Field(json_schema_extra={"format": "date-time"})
    sums_through: str | None = Field(
        json_schema_extra={"format": "date-time"},
        description="Up to here stored sums were taken, later entries were read; null where no hour is closed yet",
    )
    is_balanced: bool
    currencies: list[CurrencyBalanceView]


@router.get(
    "/trial-balance",
    response_model=TrialBalanceView,
    summary="Every account against every wallet",
)
async def get_trial_balance(
    _user: Annotated[Caller, require(Permission.LEDGER_ADMIN)], resources: OpenResources
) -> Response:
    """What the accounts of the bank and the house and all wallets have, by currency, at one moment."""
    balance = await draw_up_trial_balance(resources.databases.client)
    return json_response(trial_balance_view(balance))


def trial_balance_view(balance: TrialBalance) -> dict[str, Any]:
    return {
        "as_of": to_rfc3339(balance.as_of),
        "sums_through": None if balance.sums_through is None else to_rfc3339(balance.sums_through),
        "is_balanced": balance.is_balanced,
        "currencies": [_currency_view(currency) for currency in balance.currencies],
    }


def _currency_view(currency: CurrencyBalance) -> dict[str, Any]:
    _, available, held, wallets = currency.wallets
    return {
        "currency": currency.currency,
        "accounts": [
            {"account": one.account, **_booked_view(one), **_floor_view(currency, one.account)}
            for one in currency.accounts
        ],
        "between_wallets": _booked_view(currency.between_wallets),
        "wallets": {"available": available, "held": held, "balance": available + held, "wallets": wallets},
        "total": currency.total,
        "is_balanced": currency.is_balanced,
    }


def _floor_view(currency: CurrencyBalance, account: str) -> dict[str, int | None]:
    floor, headroom = currency.floors.get(account, (None, None))
    return {"floor": floor, "headroom": headroom}


def _booked_view(one: AccountSum) -> dict[str, int]:
    return {"debit": one.debit, "credit": one.credit, "balance": one.balance}
