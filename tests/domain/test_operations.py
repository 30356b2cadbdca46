"""The log of calls to the bank."""

from service.domain.operations import Attempt, BankCall, begin_attempt
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
