"""Sums of accounts, and when an hour is over for good."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from service.domain.accounts import (
    ENTRY_ID_AGE,
    AccountSum,
    Correction,
    add_up,
    closed_through,
    corrected_by_then,
    difference,
    hour_of,
)

# Where a hosted cluster left it (database.py sets 5 s).
MONGODBS_OWN_LIFETIME_S = 60


class TestAddingUp:
    def test_keeps_accounts_and_currencies_apart_and_in_order(self) -> None:
        sums = [
            AccountSum("house:fx", "USD", 1, 2),
            AccountSum("bank", "USD", 10, 0),
            AccountSum("house:fx", "INR", 0, 5),
            AccountSum("bank", "USD", 2**70, 3),
        ]
        assert add_up(sums) == [
            AccountSum("house:fx", "INR", 0, 5),
            AccountSum("bank", "USD", 2**70 + 10, 3),
            AccountSum("house:fx", "USD", 1, 2),
        ]

    def test_what_wallets_received_makes_a_balance_negative(self) -> None:
        assert AccountSum("bank", "INR", debit=100, credit=30).balance == -70


class TestCorrections:
    def test_a_difference_is_what_has_to_be_added_where_anything_has(self) -> None:
        due = [AccountSum("bank", "INR", 10, 7), AccountSum("bank", "USD", 5, 5), AccountSum("house:fx", "INR", 1, 0)]
        found = [AccountSum("bank", "INR", 4, 9), AccountSum("bank", "USD", 5, 5), AccountSum("house:fx", "INR", 1, 3)]
        assert difference(due, found) == (AccountSum("bank", "INR", 6, -2), AccountSum("house:fx", "INR", 0, -3))
        assert add_up([*found, *difference(due, found)]) == add_up(due)
        assert difference([], [AccountSum("bank", "INR", 1, 2)]) == (AccountSum("bank", "INR", -1, -2),)
        assert difference([AccountSum("bank", "INR", 4, 0)], []) == (AccountSum("bank", "INR", 4, 0),)

    def test_one_counts_from_the_hour_on_that_it_corrects(self) -> None:
        noon = datetime(2026, 2, 24, 12, tzinfo=UTC)
        first, second = AccountSum("bank", "INR", 6, -2), AccountSum("bank", "USD", 0, 3)
        corrections = [
            Correction(1, noon, (first, second), "A clock", "usr_admin", noon),
            Correction(2, noon + timedelta(hours=1), (second,), "Another", "usr_admin", noon),
        ]
        assert corrected_by_then(corrections, noon - timedelta(milliseconds=1)) == []
        assert corrected_by_then(corrections, noon) == [first, second]
        assert corrected_by_then(corrections, noon + timedelta(hours=1)) == [first, second, second]


class TestTheEndOfAnHour:
    def test_comes_a_quarter_of_an_hour_later(self) -> None:
        noon = datetime(2026, 2, 24, 12, tzinfo=UTC)
        ripe = noon + timedelta(minutes=15)
        assert closed_through(ripe) == noon
        assert closed_through(ripe - timedelta(milliseconds=1)) == noon - timedelta(hours=1)

    def test_leaves_room_for_the_longest_transaction_with_the_oldest_id(self) -> None:
        noon = datetime(2026, 2, 24, 12, tzinfo=UTC)
        longest = timedelta(seconds=MONGODBS_OWN_LIFETIME_S) + ENTRY_ID_AGE
        assert noon - closed_through(noon) > longest

    @pytest.mark.usefixtures("in_kolkata")
    def test_is_the_one_of_utc(self) -> None:
        in_kolkata = datetime(2026, 2, 24, 12, 45, tzinfo=timezone(timedelta(hours=5, minutes=30)))
        assert hour_of(in_kolkata) == datetime(2026, 2, 24, 7, tzinfo=UTC)
