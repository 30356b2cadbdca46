"""What the simulated bank plans for an order: endings, rates, and what will come of each behaviour."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.domain.money import MAX_AMOUNT_MINOR
from service.gateways.bank import BankOrder, OrderKind
from service.gateways.bank_behaviours import CONDUCTS, Behaviour, Habits, journal_row, next_due, progress_of
from service.settings import Settings

_NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def _settings(**overrides: Any) -> Settings:
    return Settings(_env_file=None, **overrides)


def _row(behaviour: Behaviour, amount: int = 500) -> dict[str, Any]:
    order = BankOrder("wdr_1", OrderKind.PAYOUT, amount, "INR", "bank-account-0001")
    return journal_row(order, behaviour, _NOW, 3.0, _settings(bank_late_s=20, bank_return_after_s=259_200))


def _said(behaviour: Behaviour, amount: int = 500) -> list[tuple[float, str, int, bool]]:
    """When (seconds from now), what, of how much, and whether of this order."""
    return [
        (
            (report["due_at"] - _NOW).total_seconds(),
            report["payload"].get("status", report["payload"]["type"]),
            report["payload"]["amount"],
            report["payload"]["reference"] == "wdr_1",
        )
        for report in _row(behaviour, amount)["reports"]
    ]


class TestHabits:
    @pytest.mark.parametrize("behaviour", Behaviour)
    def test_an_accounts_ending_forces_each_behaviour(self, behaviour: Behaviour) -> None:
        habits = Habits(_settings(bank_success_rate=0.0))
        assert habits.behaviour(f"savings-{behaviour}") is behaviour

    def test_rates_decide_for_all_others(self) -> None:
        rates = {"silent": 0.25, "returned": 0.25}
        habits = Habits(_settings(bank_rates=rates, bank_timeout_rate=0, bank_error_rate=0, bank_success_rate=0.5))
        counted = Counter(habits.behaviour("bank-account-0001") for _ in range(4_000))
        # 1000, 1000, 1000, 500, 500: no run of the test comes near these bounds.
        assert set(counted) == {"silent", "returned", "success", "decline", "insufficient-funds"}
        assert all(800 < counted[Behaviour(name)] < 1_200 for name in ("silent", "returned", "success"))

    def test_by_default_the_bank_is_well_behaved(self) -> None:
        habits = Habits(_settings(bank_timeout_rate=0, bank_error_rate=0, bank_success_rate=1))
        assert {habits.behaviour("bank-account-0001") for _ in range(1_000)} == {Behaviour.SUCCESS}

    def test_names_that_the_bank_does_not_know_and_rates_above_1_are_refused_at_the_start(self) -> None:
        with pytest.raises(ValueError, match="knows no sulky"):
            Habits(_settings(bank_rates={"sulky": 0.1}))
        with pytest.raises(ValueError, match="above 1"):
            Habits(_settings(bank_rates={"silent": 0.6, "late": 0.6}))


class TestPlans:
    def test_what_is_said_when_of_each_behaviour_that_is_no_plain_success(self) -> None:
        days = 259_200 + 3
        assert _said(Behaviour.SUCCESS) == [(3, "success", 500, True)]
        assert _said(Behaviour.DECLINE) == [(3, "failed", 500, True)]
        assert _said(Behaviour.SILENT) == _said(Behaviour.SILENT_DECLINE) == []
        assert _said(Behaviour.LATE) == [(23, "success", 500, True)]
        assert _said(Behaviour.PAID_500) == _said(Behaviour.CALLBACK_FIRST) == [(0, "success", 500, True)]
        assert _said(Behaviour.SUCCESS_THEN_FAILED) == [(3, "success", 500, True), (23, "failed", 500, True)]
        assert _said(Behaviour.FAILED_THEN_SUCCESS) == [(3, "failed", 500, True), (23, "success", 500, True)]
        assert _said(Behaviour.OTHER_AMOUNT) == [(3, "success", 501, True)]
        assert _said(Behaviour.UNKNOWN_REFERENCE) == [(3, "success", 500, False), (3, "success", 500, True)]
        assert _said(Behaviour.RETURNED) == [(3, "success", 500, True), (days, "payment.returned", 500, True)]
        assert _said(Behaviour.OUT_OF_ORDER) == [(3, "payment.returned", 500, True), (23, "success", 500, True)]

    def test_another_amount_is_one_that_a_callback_may_have(self) -> None:
        assert _said(Behaviour.OTHER_AMOUNT, MAX_AMOUNT_MINOR)[0][2] == MAX_AMOUNT_MINOR - 1

    def test_a_duplicate_keeps_its_webhook_id_or_takes_a_new_one(self) -> None:
        same, anew = (
            [report["webhook_id"] for report in _row(behaviour)["reports"]]
            for behaviour in (Behaviour.DUPLICATE, Behaviour.DUPLICATE_ANEW)
        )
        assert same == ["msg_wdr_1", "msg_wdr_1"]
        assert anew == ["msg_wdr_1", "msg_wdr_1_2"]

    def test_is_worked_off_step_by_step(self) -> None:
        row = _row(Behaviour.RETURNED)
        assert progress_of(row, _NOW) == (False, False, [])
        at = _NOW + timedelta(seconds=3)
        assert progress_of(row, at) == (True, False, row["reports"][:1])
        done = row | {"executed_at": at, "reports": row["reports"][1:]}
        later = next_due(done, at)
        assert later == _NOW + timedelta(days=3, seconds=3)
        assert progress_of(done, later) == (False, True, row["reports"][1:])
        assert next_due(done, later) is None

    def test_only_what_is_taken_has_a_conduct_of_its_own_afterwards(self) -> None:
        never = {behaviour for behaviour, conduct in CONDUCTS.items() if not conduct.is_taken}
        assert never == {Behaviour.INVALID_ACCOUNT, Behaviour.UNAVAILABLE, Behaviour.TIMEOUT}
        assert set(CONDUCTS) == set(Behaviour)
