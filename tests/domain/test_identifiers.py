"""Ids and the time in them."""

from datetime import UTC, datetime, timedelta

import pytest

from service.domain.clock import utc_now
from service.domain.identifiers import IdWindow, Prefix, first_id_at, made_at, new_id


class TestTheTimeOfAnId:
    def test_parts_the_ids_made_before_from_those_made_since(self) -> None:
        before = utc_now()
        identifier = new_id(Prefix.ENTRY)
        after = utc_now() + timedelta(milliseconds=1)
        assert first_id_at(Prefix.ENTRY, before) <= identifier < first_id_at(Prefix.ENTRY, after)
        made = made_at(identifier)
        assert made is not None
        assert before <= made < after

    def test_is_to_the_millisecond(self) -> None:
        now = utc_now()
        assert made_at(first_id_at(Prefix.ENTRY, now) + "7" * 20) == now

    @pytest.mark.parametrize(
        "identifier",
        ["", "ent_", "ent_second", "ent_0198c0ffee00", f"ent_0x{'0' * 30}", f"ent_{'f' * 32}", f"{'0' * 32}"],
    )
    def test_is_none_where_nobody_made_it(self, identifier: str) -> None:
        assert made_at(identifier) is None


class TestTheTimeInWhichAnIdMayBeMade:
    NOON = datetime(2026, 2, 24, 12, tzinfo=UTC)
    MINUTE = timedelta(minutes=1)
    WINDOW = IdWindow.around(Prefix.ENTRY, NOON, before=MINUTE, after=MINUTE)

    def made(self, at: datetime) -> str:
        return first_id_at(Prefix.ENTRY, at) + "7" * 20

    def test_leaves_an_id_within_it_alone(self) -> None:
        for at in (self.NOON - self.MINUTE, self.NOON, self.NOON + self.MINUTE - timedelta(milliseconds=1)):
            assert self.WINDOW.admit(self.made(at)) == self.made(at)

    def test_gives_one_outside_it_the_time_of_its_middle_and_the_same_digits(self) -> None:
        for at in (self.NOON - self.MINUTE - timedelta(milliseconds=1), self.NOON + self.MINUTE):
            assert self.WINDOW.admit(self.made(at)) == self.made(self.NOON)

    def test_refuses_what_tells_no_time(self) -> None:
        with pytest.raises(ValueError, match="tells no time"):
            self.WINDOW.admit("ent_!")
