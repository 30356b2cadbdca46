"""How far below its floor returns explain that an account is: read backwards, from what it has now."""

from scripts.position_rules import Descent

_MINUTE = 60_000
_HOUR = 60 * _MINUTE


def excused(headroom: int, *changes: tuple[int, int, bool]) -> int:
    """Of changes from the newest to the oldest: when, by how much, and whether it could have been refused."""
    descent = Descent(headroom)
    for at_ms, change, is_refusable in changes:
        if not descent.take(at_ms, change, is_refusable=is_refusable):
            break
    return descent.excused


class TestDescent:
    def test_counts_every_return_since_the_account_was_last_at_its_floor(self) -> None:
        changes = (9 * _HOUR, -30, False), (8 * _HOUR, 5, True), (7 * _HOUR, -40, False), (6 * _HOUR, 60, True)
        assert excused(-60, *changes) == 70

    def test_counts_no_return_that_was_made_good_before(self) -> None:
        changes = (9 * _HOUR, -60, True), (8 * _HOUR, 100, True), (7 * _HOUR, -100, False), (6 * _HOUR, 50, True)
        assert excused(-10, *changes) == 0

    def test_counts_a_return_that_another_clock_puts_just_before(self) -> None:
        """The withdrawal was committed first: 20 were there, 10 were left, then the bank took 20 back."""
        newest = 9 * _HOUR
        changes = (newest, -10, True), (newest - _MINUTE, -20, False), (newest - 2 * _MINUTE, 20, True)
        assert excused(-10, *changes) == 20

    def test_counts_all_of_an_account_that_never_was_at_its_floor(self) -> None:
        assert excused(-100, (9 * _HOUR, -30, False), (1 * _HOUR, -40, False)) == 70
