"""The log of calls to the bank."""

import pytest

from service.domain.operations import ATTEMPTS_KEPT, Attempt, BankCall, begin_attempt, rejection
from tests.records import at, build_operation

_SUBMIT, _FIND = BankCall.SUBMIT, BankCall.FIND


def _log_after(*log: Attempt, answered: int | None) -> tuple[Attempt, ...]:
    """One more look-up at minute 9, by whoever knows that a submission was answered by 'accepted'."""
    operation = build_operation(attempt_log=log)
    return begin_attempt(operation, _FIND, at(9), "accepted", None if answered is None else at(answered))


class TestAnAnswer:
    def test_is_that_of_the_submission_that_it_names(self) -> None:
        calls = Attempt(at(1), _SUBMIT), Attempt(at(2), _SUBMIT), Attempt(at(2), _FIND), Attempt(at(3), _FIND)
        assert _log_after(*calls, answered=2) == (
            calls[0],
            calls[1]._replace(outcome="accepted", ended_at=at(9)),
            calls[2],
            calls[3]._replace(outcome="unknown", ended_at=at(9)),
            Attempt(at(9), _FIND),
        )

    def test_is_nobodys_where_two_began_at_that_moment(self) -> None:
        calls = Attempt(at(1), _SUBMIT), Attempt(at(1), _SUBMIT)
        ended = calls[1]._replace(outcome="unknown", ended_at=at(9))
        assert _log_after(*calls, answered=1) == (calls[0], ended, Attempt(at(9), _FIND))

    def test_is_that_of_the_last_call_where_it_names_none(self) -> None:
        calls = Attempt(at(1), _SUBMIT), Attempt(at(2), _SUBMIT)
        ended = calls[1]._replace(outcome="accepted", ended_at=at(9))
        assert _log_after(*calls, answered=None) == (calls[0], ended, Attempt(at(9), _FIND))


class TestWhatIsKept:
    """The last calls, and before them the last order that may still be on its way."""

    @pytest.mark.parametrize("before", [ATTEMPTS_KEPT - 2, ATTEMPTS_KEPT - 1])
    def test_is_all_of_a_few(self, before: int) -> None:
        calls = [Attempt(at(number), _FIND, "unknown", at(number)) for number in range(before)]
        kept = begin_attempt(build_operation(attempt_log=tuple(calls)), _FIND, at(99), "unknown")
        assert kept == (*calls, Attempt(at(99), _FIND))

    @pytest.mark.parametrize(("first", "second", "kept_one"), [(True, True, 1), (True, False, 0), (False, False, 1)])
    def test_is_of_many_the_last_ones(self, *, first: bool, second: bool, kept_one: int) -> None:
        early = [
            Attempt(at(number), _SUBMIT, "unknown" if is_open else rejection("busy"), at(number))
            for number, is_open in enumerate((first, second))
        ]
        later = [Attempt(at(10 + number), _FIND, "unknown", at(10 + number)) for number in range(ATTEMPTS_KEPT - 2)]
        kept = begin_attempt(build_operation(attempt_log=(*early, *later)), _FIND, at(99), "unknown")
        assert kept == (early[kept_one], *later, Attempt(at(99), _FIND))
        assert len(kept) == ATTEMPTS_KEPT
