"""A soak refuses measures by which it would prove nothing, and asks for a share of what was due."""

import pytest

from tests.cluster.measures import least_accepted, read_measure


@pytest.mark.parametrize("told", ["0", "-1", "0.0", "nan", "inf", "", "fast"])
def test_a_rate_that_sends_nothing_is_refused(told: str) -> None:
    with pytest.raises(ValueError, match="RATE of the soak has to be a number above 0, not"):
        read_measure("RATE", 30, {"TEST_SOAK_RATE": told})


def test_a_measure_is_what_was_told_or_the_usual_one() -> None:
    assert (read_measure("RATE", 30, {"TEST_SOAK_RATE": "0.5"}), read_measure("RATE", 30, {})) == (0.5, 30)


def test_a_tenth_of_what_is_due_at_the_usual_rate_has_to_be_accepted() -> None:
    assert [least_accepted(1_800, 30), least_accepted(6_000, 100), least_accepted(60, 1)] == [180, 180, 6]
    assert least_accepted(1, 1) == 1
