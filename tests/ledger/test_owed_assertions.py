"""What the ledger itself asserts of debts: a rule may add them, with their returns, and nothing else."""

import pytest

from service.domain.returns import Return
from service.ledger.debts import assert_debts_explained, owe
from tests.records import build_return, build_wallet

_BEFORE = build_wallet(owed=7, debts=("rtn_0",))
_FIRST, _SECOND = build_return(id="rtn_1", owed=3), build_return(id="rtn_2", owed=5)
_RECORDS: dict[str, Return] = {one.id: one for one in (_FIRST, _SECOND)}


def test_two_returns_at_once_are_explained() -> None:
    assert_debts_explained(_BEFORE, _BEFORE._replace(owed=15, debts=("rtn_0", "rtn_1", "rtn_2")), _RECORDS)


@pytest.mark.parametrize(
    ("owed", "debts", "message"),
    [
        (16, ("rtn_0", "rtn_1", "rtn_2"), "wal_asha owes 9 more, its returns 8"),
        (15, ("rtn_0", "rtn_1"), "wal_asha owes 8 more, its returns 3"),
        (4, (), "wal_asha no longer owes what it owed"),
        (10, ("rtn_1",), "wal_asha no longer owes what it owed"),
        (10, ("rtn_0", "rtn_9"), "wal_asha owes rtn_9, which is no return"),
    ],
)
def test_anything_else_stops_the_commit(owed: int, debts: tuple[str, ...], message: str) -> None:
    with pytest.raises(AssertionError, match=f"^{message}$"):
        assert_debts_explained(_BEFORE, _BEFORE._replace(owed=owed, debts=debts), _RECORDS)


def test_nothing_is_owed_twice() -> None:
    owing, _ = owe(_BEFORE, _FIRST)
    with pytest.raises(AssertionError, match=r"^wal_asha owes rtn_1 already$"):
        owe(owing, _FIRST)
