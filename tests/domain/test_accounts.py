"""Sums of accounts, and when an hour is over for good."""

from datetime import UTC, datetime, timedelta, timezone

from service.domain.accounts import ENTRY_ID_AGE, AccountSum, add_up, closed_through, hour_of

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

    def test_is_the_one_of_utc(self) -> None:
        in_kolkata = datetime(2026, 2, 24, 12, 45, tzinfo=timezone(timedelta(hours=5, minutes=30)))
        assert hour_of(in_kolkata) == datetime(2026, 2, 24, 7, tzinfo=UTC)
