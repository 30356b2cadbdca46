"""Earning rules: which fit, what they give, and where they end."""

from datetime import UTC, datetime
from typing import Any

import pytest

from service.domain.entries import EntryType
from service.domain.operations import Operation, OperationStatus, OperationType
from service.domain.rewards import EarningEvent, EarningRoom, EarningRule, earned_points, net_new_amount, reward_id
from service.domain.sealed import Sealed

_NOW = datetime(2026, 2, 24, 12, 34, 56, 789000, tzinfo=UTC)
_RULE = EarningRule(
    name="rent", on=EarningEvent.WITHDRAWAL, currency="INR", per_amount=100, points=2, maximum_points=10, minimum=150
)


def make_withdrawal(**overrides: Any) -> Operation:
    fields: dict[str, Any] = {
        "id": "wdr_1",
        "type": OperationType.WITHDRAWAL,
        "user_id": "usr_1",
        "wallet_id": "wal_1",
        "amount": 250,
        "currency": "INR",
        "status": OperationStatus.SUCCESS,
        "account_sealed": Sealed("00000000", b"sealed"),
        "account_masked": "•••• 0001",
        "category": None,
        "description": None,
        "metadata": {},
        "failure_code": None,
        "failure_message": None,
        "bank_reference": None,
        "attempts": 1,
        "request_id": None,
        "created_at": _NOW,
        "updated_at": _NOW,
    }
    return Operation(**(fields | overrides))


class TestARule:
    @pytest.mark.parametrize(
        ("amount", "points"), [(149, 0), (150, 2), (199, 2), (200, 4), (599, 10), (600, 10), (2**53 - 1, 10)]
    )
    def test_gives_points_for_each_whole_part_within_its_bounds(self, amount: int, points: int) -> None:
        assert _RULE.points_for(make_withdrawal(amount=amount)) == points

    @pytest.mark.parametrize(
        "other", [{"currency": "USD"}, {"type": OperationType.DEPOSIT, "id": "dep_1"}], ids=["currency", "event"]
    )
    def test_gives_nothing_for_what_it_does_not_mean(self, other: dict[str, Any]) -> None:
        assert _RULE.points_for(make_withdrawal(**other)) == 0

    def test_may_mean_one_category_only(self) -> None:
        rule = _RULE._replace(category="rent")
        assert rule.points_for(make_withdrawal(category="rent")) == 4
        assert rule.points_for(make_withdrawal(category="food")) == 0
        assert rule.points_for(make_withdrawal()) == 0


class TestRulesTogether:
    def test_add_up_and_say_which_gave_what(self) -> None:
        rules = (
            _RULE,
            _RULE._replace(name="usd", currency="USD"),
            _RULE._replace(name="festival", points=1, minimum=0),
        )
        assert earned_points(rules, make_withdrawal()) == {"rent": 4, "festival": 2}


class TestTheRewardsId:
    def test_is_that_of_its_operation_under_another_prefix(self) -> None:
        assert reward_id("dep_0198c0ffee") == "rwd_0198c0ffee"


class TestTheRoom:
    """A rule of 2 points for each 100, and one of 1 point for each 50."""

    _RULES = (_RULE, EarningRule("more", EarningEvent.WITHDRAWAL, "INR", per_amount=50, points=1, maximum_points=9))

    @pytest.mark.parametrize(
        ("amount", "points", "given"),
        [
            (250, 100, {"rent": 4, "more": 5}),
            (900, 100, {"rent": 4, "more": 5}),
            (149, 100, {"rent": 2, "more": 2}),
            (49, 100, {}),
            (0, 100, {}),
            (250, 8, {"rent": 4, "more": 4}),
            (250, 4, {"rent": 4}),
            (250, 3, {"rent": 3}),
            (250, 0, {}),
        ],
    )
    def test_bounds_the_amount_that_earns_and_the_points(self, amount: int, points: int, given: dict[str, int]) -> None:
        assert earned_points(self._RULES, make_withdrawal(), EarningRoom(7, amount, points)) == given

    def test_is_not_asked_for_where_there_is_none(self) -> None:
        assert earned_points(self._RULES, make_withdrawal()) == {"rent": 4, "more": 5}

    def test_leaves_a_minimum_to_the_whole_amount(self) -> None:
        assert earned_points((_RULE,), make_withdrawal(amount=150), EarningRoom(7, 100, 100)) == {"rent": 2}


class TestNewMoney:
    @pytest.mark.parametrize(
        ("sums", "before", "counted", "new"),
        [
            ({}, 0, 0, 0),
            ({"DEPOSIT": 500}, 0, 0, 500),
            ({"DEPOSIT": 500}, 0, 200, 300),
            ({"DEPOSIT": 500}, 0, 501, 0),
            ({"DEPOSIT": 1_000, "WITHDRAWAL_SETTLEMENT": 500}, 0, 500, 0),
            ({"DEPOSIT": 1_000, "WITHDRAWAL": 500, "WITHDRAWAL_SETTLEMENT": 400}, 0, 0, 600),
            ({"DEPOSIT": 500, "WITHDRAWAL_SETTLEMENT": 500}, 500, 0, 500),
            ({"DEPOSIT": 500, "WITHDRAWAL_SETTLEMENT": 500}, 499, 0, 499),
            ({"DEPOSIT": 500, "TRANSFER_OUT": 300}, 0, 0, 200),
            ({"DEPOSIT": 500, "TRANSFER_IN": 300}, 0, 0, 500),
            ({"DEPOSIT": 500, "TRANSFER_IN": 300, "TRANSFER_OUT": 300}, 0, 0, 200),
            ({"DEPOSIT": 1_000, "DEPOSIT_RETURN": 400}, 900, 0, 600),
            ({"DEPOSIT": 500, "WITHDRAWAL_SETTLEMENT": 200, "WITHDRAWAL_RETURN": 200}, 0, 0, 500),
            ({"DEPOSIT": 500, "TRANSFER_OUT": 200, "REVERSAL_IN": 200}, 0, 0, 500),
        ],
    )
    def test_is_what_came_in_less_what_left_and_what_has_earned(
        self, sums: dict[str, int], before: int, counted: int, new: int
    ) -> None:
        assert net_new_amount({EntryType(name): amount for name, amount in sums.items()}, before, counted) == new
