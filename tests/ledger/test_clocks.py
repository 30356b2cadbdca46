"""Wallets that a clock which was wrong has touched: their time is theirs, and nobody else's."""

from datetime import UTC, datetime, timedelta

from service.domain.limits import Limits
from service.domain.policy import Policy
from service.domain.wallets import new_wallet
from tests.books import Books, assert_chain
from tests.factories import deposit_of, settlement_of, transfer_of

_NOW = datetime(2026, 2, 24, 12, 34, 56, 789000, tzinfo=UTC)
_AHEAD = _NOW + timedelta(minutes=10)
_LIMITS = Limits(per_day=100_000)
# Another one than is usual: what the service is told to tolerate holds for wallets, too.
_BOUND = timedelta(seconds=30)


def make_books() -> Books:
    """`ahead` was touched by a clock that was ten minutes ahead; all have 1,000."""
    names = ("ahead", "b", "c")
    wallets = {f"wal_{name}": new_wallet(f"wal_{name}", f"usr_{name}", "INR", _NOW) for name in names}
    wallets["wal_ahead"] = wallets["wal_ahead"]._replace(updated_at=_AHEAD)
    books = Books({f"usr_{name}": 0 for name in names}, wallets, Policy(limits={"INR": _LIMITS}, clock_bound=_BOUND))
    for wallet in list(books.wallets.values()):
        books.run([request := deposit_of(wallet, 1_000, now=_NOW)])
        books.run([settlement_of(books.operations[request.operation_id], now=_NOW)])
    return books


def pay(books: Books, sender: str, recipient: str, now: datetime) -> datetime:
    """When the transfer is said to have been made."""
    command = transfer_of(books.wallets[sender], books.wallets[recipient], 10, now=now)
    (decided,) = books.run([command])
    assert not decided.refused
    assert_chain(books)
    return books.transfers[command.transfer_id].created_at


class TestAWalletThatIsAhead:
    def test_does_not_pass_its_time_on_to_those_who_pay_into_it(self) -> None:
        books = make_books()
        assert pay(books, "wal_b", "wal_ahead", _NOW) == _NOW + _BOUND
        assert books.wallets["wal_b"].updated_at == _NOW + _BOUND
        # Nor do they pass on what they have of it: with each second there is less.
        later = _NOW + timedelta(seconds=1)
        pay(books, "wal_c", "wal_b", later)
        assert books.wallets["wal_c"].updated_at == _NOW + _BOUND
        assert books.wallets["wal_c"].updated_at - later < _BOUND

    def test_does_not_pass_its_time_on_to_those_whom_it_pays(self) -> None:
        books = make_books()
        pay(books, "wal_ahead", "wal_b", _NOW)
        assert books.wallets["wal_b"].updated_at == _NOW
        assert books.entries["wal_b"][-1].created_at == _NOW

    def test_never_runs_backwards_itself(self) -> None:
        books = make_books()
        assert pay(books, "wal_ahead", "wal_b", _NOW) == _AHEAD
        pay(books, "wal_b", "wal_ahead", _NOW)
        assert {entry.created_at for entry in books.entries["wal_ahead"]} == {_AHEAD}
        assert books.wallets["wal_ahead"].updated_at == _AHEAD
        # When that time has come it goes on like any other.
        later = _AHEAD + timedelta(seconds=1)
        assert pay(books, "wal_b", "wal_ahead", later) == later
        assert books.wallets["wal_ahead"].updated_at == later

    def test_keeps_what_it_counts_for_its_limits(self) -> None:
        """A window that began by its own time does not begin anew for a command of before."""
        books = make_books()
        for _ in range(2):
            pay(books, "wal_ahead", "wal_b", _NOW)
        assert books.wallets["wal_ahead"].usage.day_amount == 20

    def test_that_is_ahead_by_less_than_the_bound_is_waited_for(self) -> None:
        books, soon = make_books(), _NOW + timedelta(seconds=20)
        books.wallets["wal_b"] = books.wallets["wal_b"]._replace(updated_at=soon)
        assert pay(books, "wal_c", "wal_b", _NOW) == soon
