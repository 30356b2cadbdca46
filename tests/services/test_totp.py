"""The second factor against the real database: one use for each code, few tries, nothing readable kept."""

import asyncio
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import uuid4

import pyotp
import pytest
from pydantic import SecretStr

from service.controllers.auth import locksmith_of
from service.database import Databases, session_in_transaction
from service.documents import User
from service.domain.clock import utc_now
from service.domain.sealed import Sealed
from service.domain.step_up import Challenge
from service.domain.totp import TRIES, TRIES_WINDOW
from service.errors import (
    InternalError,
    InvalidCode,
    TooManyAttempts,
    TotpAlreadyActive,
    TotpNotEnrolled,
    Unauthenticated,
    WrongPassword,
)
from service.repositories import totp_enrolments as enrolment_repository
from service.repositories.totp_enrolments import Activation, NewApp
from service.services import totp
from service.services.callers import Caller
from service.services.totp import Consumed, SentCodes, UsedCode
from service.startup import Resources
from tests.factories import PASSWORD, make_user
from tests.logs import own_logs
from tests.payer import enrolment_code

_TIMES = 20
_STEP = timedelta(seconds=30)


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = utc_now()

    def go_on(self, span: timedelta) -> None:
        self.now += span


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("service.services.totp.utc_now", lambda: clock.now)
    return clock


class Enrolled(NamedTuple):
    user: User
    token: Caller
    app: pyotp.TOTP
    recovery_codes: list[str]

    def code(self, moment: datetime) -> str:
        return self.app.at(moment)

    def wrong_code(self, moment: datetime) -> str:
        """Of none of the steps around the moment."""
        right = {self.app.at(moment, counter_offset=away) for away in (-1, 0, 1)}
        return next(code for code in (f"{number:06d}" for number in range(4)) if code not in right)


def token_of(user: User) -> Caller:
    return Caller(user.id, tuple(user.roles), user.token_version)


async def begin(resources: Resources, user: User, password: str = PASSWORD) -> pyotp.TOTP:
    begun = await totp.begin_enrolment(locksmith_of(resources), token_of(user), password, None)
    return pyotp.TOTP(begun.secret)


async def enrol(resources: Resources, clock: Clock) -> Enrolled:
    """Somebody whose app is active and has not shown its next code yet."""
    user = await make_user(resources.databases)
    app = await begin(resources, user)
    codes = await activate(resources, token_of(user), app.at(clock.now))
    clock.go_on(_STEP)
    return Enrolled(user, token_of(user), app, codes)


async def activate(resources: Resources, token: Caller, code: str) -> list[str]:
    """With the code that was mailed for the app that is pending, if one is."""
    enrolment = await enrolment_repository.find(token.user_id)
    is_pending = enrolment is not None and enrolment.challenge is not None
    mailed = await enrolment_code(token.user_id, resources.settings) if is_pending else "123456"
    return await totp.activate(locksmith_of(resources), token, SentCodes(code, mailed), None)


async def consume_factor(user_id: str, code: str, resources: Resources, use: str | None = None) -> Consumed:
    """For a request of its own, unless it says which."""
    sent = UsedCode(user_id, code, use or uuid4().hex, None)
    return await totp.consume_factor(resources.databases.client, sent, resources.settings)


async def kept(databases: Databases, user: User) -> dict[str, Any]:
    row = await databases.wallet["totp_enrolments"].find_one({"_id": user.id})
    assert row is not None
    return row


class TestEnrolling:
    async def test_counts_once_a_code_of_the_app_was_sent(self, resources: Resources, clock: Clock) -> None:
        user = await make_user(resources.databases)
        app = await begin(resources, user)
        assert await consume_factor(user.id, app.at(clock.now), resources) is Consumed.NOT_ENROLLED
        codes = await activate(resources, token_of(user), app.at(clock.now))
        assert len(set(codes)) == 10
        clock.go_on(_STEP)
        assert await consume_factor(user.id, app.at(clock.now), resources) is Consumed.TOTP

    async def test_uses_its_first_code_up(self, resources: Resources, clock: Clock) -> None:
        person = await enrol(resources, clock)
        first = person.code(clock.now - _STEP)
        assert await consume_factor(person.user.id, first, resources) is Consumed.WRONG

    async def test_keeps_neither_the_secret_nor_a_recovery_code_nor_logs_them(
        self, resources: Resources, clock: Clock
    ) -> None:
        with own_logs() as logs:
            person = await enrol(resources, clock)
            await consume_factor(person.user.id, person.recovery_codes[0], resources)
            await totp.disable(locksmith_of(resources), person.token, PASSWORD, person.code(clock.now), None)
        assert [line["event"] for line in logs] == [
            "totp.enrolled",
            "totp.activated",
            "totp.recovery_code_used",
            "totp.disabled",
        ]
        again = await enrol(resources, clock)
        written = repr(await kept(resources.databases, again.user)) + repr(logs)
        secrets = [person.app.secret, again.app.secret, person.code(clock.now), PASSWORD]
        for secret in (*secrets, *person.recovery_codes, *again.recovery_codes):
            assert secret not in written
            assert secret.replace("-", "") not in written

    async def test_begun_again_forgets_the_secret_before(self, resources: Resources, clock: Clock) -> None:
        user = await make_user(resources.databases)
        first, second = await begin(resources, user), await begin(resources, user)
        with pytest.raises(InvalidCode):
            await activate(resources, token_of(user), first.at(clock.now))
        await activate(resources, token_of(user), second.at(clock.now))

    async def test_cannot_replace_an_app_that_is_active(self, resources: Resources, clock: Clock) -> None:
        person = await enrol(resources, clock)
        before = await kept(resources.databases, person.user)
        with pytest.raises(TotpAlreadyActive):
            await begin(resources, person.user)
        with pytest.raises(TotpAlreadyActive):
            await activate(resources, person.token, person.code(clock.now))
        assert await kept(resources.databases, person.user) == before

    async def test_that_lost_a_race_with_an_activation_replaces_nothing(
        self, resources: Resources, clock: Clock
    ) -> None:
        person = await enrol(resources, clock)
        late = NewApp("another", Sealed("00000000", b""), Challenge("", "0" * 64, clock.now, 5))
        async with session_in_transaction(resources.databases.client) as session:
            assert not await enrolment_repository.start(person.user.id, late, clock.now, session=session)
        assert await consume_factor(person.user.id, person.code(clock.now), resources) is Consumed.TOTP

    async def test_activated_many_times_at_once_gives_recovery_codes_once_and_they_hold(
        self, resources: Resources, clock: Clock
    ) -> None:
        user = await make_user(resources.databases)
        app = await begin(resources, user)
        code = app.at(clock.now)
        answers = await asyncio.gather(
            *(activate(resources, token_of(user), code) for _ in range(4)), return_exceptions=True
        )
        (codes,) = [answer for answer in answers if isinstance(answer, list)]
        assert await consume_factor(user.id, codes[0], resources) is Consumed.RECOVERY

    async def test_that_was_activated_or_begun_anew_in_between_is_not_activated(
        self, resources: Resources, clock: Clock
    ) -> None:
        user = await make_user(resources.databases)
        await begin(resources, user)
        stale = await enrolment_repository.find(user.id)
        await begin(resources, user)
        fresh = await enrolment_repository.find(user.id)
        assert stale is not None
        assert fresh is not None
        first = Activation(1, [], None)
        async with session_in_transaction(resources.databases.client) as session:
            activated = [
                await enrolment_repository.activate(read, first, clock.now, session=session)
                for read in (stale, fresh, fresh)
            ]
        assert activated == [False, True, False]

    async def test_asks_for_the_right_password(self, resources: Resources, clock: Clock) -> None:
        assert clock.now
        user = await make_user(resources.databases)
        with pytest.raises(WrongPassword):
            await begin(resources, user, "another-password-12")
        with pytest.raises(TotpNotEnrolled):
            await activate(resources, token_of(user), "123456")

    async def test_is_not_for_a_token_that_was_revoked(self, resources: Resources, clock: Clock) -> None:
        person = await enrol(resources, clock)
        old = person.token._replace(token_version=person.token.token_version - 1)
        for attempt in (
            totp.begin_enrolment(locksmith_of(resources), old, PASSWORD, None),
            activate(resources, old, person.code(clock.now)),
            totp.renew_recovery_codes(locksmith_of(resources), old, person.code(clock.now), None),
            totp.disable(locksmith_of(resources), old, PASSWORD, person.code(clock.now), None),
        ):
            with pytest.raises(Unauthenticated):
                await attempt


class TestOneUse:
    @pytest.mark.parametrize("_time", range(_TIMES))
    async def test_of_parallel_uses_of_one_code_one_wins(self, resources: Resources, clock: Clock, _time: int) -> None:
        person = await enrol(resources, clock)
        code = person.code(clock.now)
        outcomes = await asyncio.gather(*(consume_factor(person.user.id, code, resources) for _ in range(TRIES)))
        assert sorted(outcomes) == [Consumed.TOTP] + [Consumed.WRONG] * (TRIES - 1)

    @pytest.mark.parametrize("_time", range(_TIMES))
    async def test_of_parallel_uses_of_one_recovery_code_one_wins(
        self, resources: Resources, clock: Clock, _time: int
    ) -> None:
        person = await enrol(resources, clock)
        code = person.recovery_codes[3]
        outcomes = await asyncio.gather(*(consume_factor(person.user.id, code, resources) for _ in range(TRIES)))
        assert sorted(outcomes) == [Consumed.RECOVERY] + [Consumed.WRONG] * (TRIES - 1)
        assert len((await kept(resources.databases, person.user))["recovery_hashes"]) == 9

    @pytest.mark.parametrize("_time", range(_TIMES))
    async def test_a_code_serves_a_payment_or_new_recovery_codes_at_the_same_moment_but_not_both(
        self, resources: Resources, clock: Clock, _time: int
    ) -> None:
        person = await enrol(resources, clock)
        code = person.code(clock.now) if _time % 2 else person.recovery_codes[0]
        renewed, consumed = await asyncio.gather(
            totp.renew_recovery_codes(locksmith_of(resources), person.token, code, None),
            consume_factor(person.user.id, code, resources),
            return_exceptions=True,
        )
        assert isinstance(renewed, list) != (consumed in (Consumed.TOTP, Consumed.RECOVERY))

    async def test_an_earlier_code_is_refused_once_a_later_one_was_used(
        self, resources: Resources, clock: Clock
    ) -> None:
        person = await enrol(resources, clock)
        clock.go_on(_STEP)
        earlier, later = person.code(clock.now - _STEP), person.code(clock.now)
        assert await consume_factor(person.user.id, later, resources) is Consumed.TOTP
        assert await consume_factor(person.user.id, earlier, resources) is Consumed.WRONG

    async def test_codes_a_step_early_or_late_are_taken(self, resources: Resources, clock: Clock) -> None:
        person = await enrol(resources, clock)
        clock.go_on(_STEP)
        for away in (-_STEP, timedelta(), _STEP):
            code = person.code(clock.now + away)
            assert await consume_factor(person.user.id, code, resources) is Consumed.TOTP

    async def test_a_code_of_somebody_else_is_wrong(self, resources: Resources, clock: Clock) -> None:
        person, other = await enrol(resources, clock), await enrol(resources, clock)
        for code in (other.code(clock.now), other.recovery_codes[0]):
            assert await consume_factor(person.user.id, code, resources) is Consumed.WRONG

    async def test_nobody_without_an_app_is_asked(self, resources: Resources, clock: Clock) -> None:
        assert clock.now
        user = await make_user(resources.databases)
        assert await consume_factor(user.id, "123456", resources) is Consumed.NOT_ENROLLED

    @pytest.mark.parametrize("code", ["", "0", "x" * 64, "\0", "१२३४५६", "----------------"])
    async def test_whatever_is_sent_is_just_wrong(self, resources: Resources, clock: Clock, code: str) -> None:
        person = await enrol(resources, clock)
        assert await consume_factor(person.user.id, code, resources) is Consumed.WRONG


class TestTries:
    async def test_after_five_wrong_ones_even_the_right_one_has_to_wait(
        self, resources: Resources, clock: Clock
    ) -> None:
        person = await enrol(resources, clock)
        for wrong in (person.wrong_code(clock.now), "AAAA-AAAA-AAAA-AAAA", "x", "000", person.wrong_code(clock.now)):
            assert await consume_factor(person.user.id, wrong, resources) is Consumed.WRONG
        clock.go_on(timedelta(minutes=5))
        for code in (person.code(clock.now), person.recovery_codes[0]):
            with pytest.raises(TooManyAttempts) as refused:
                await consume_factor(person.user.id, code, resources)
            assert refused.value.retry_after_s == 600
        clock.go_on(timedelta(minutes=10))
        assert await consume_factor(person.user.id, person.code(clock.now), resources) is Consumed.TOTP

    async def test_a_right_one_gives_all_tries_back(self, resources: Resources, clock: Clock) -> None:
        person = await enrol(resources, clock)
        for _ in range(3):
            for _ in range(TRIES - 1):
                await consume_factor(person.user.id, "wrong", resources)
            assert await consume_factor(person.user.id, person.code(clock.now), resources) is Consumed.TOTP
            clock.go_on(_STEP)

    async def test_a_right_one_gives_them_back_to_a_process_whose_clock_is_behind(
        self, resources: Resources, clock: Clock
    ) -> None:
        person = await enrol(resources, clock)
        for _ in range(TRIES - 1):
            await consume_factor(person.user.id, "wrong", resources)
        assert await consume_factor(person.user.id, person.code(clock.now), resources) is Consumed.TOTP
        clock.go_on(-timedelta(seconds=1))
        assert await consume_factor(person.user.id, "wrong", resources) is Consumed.WRONG
        assert await consume_factor(person.user.id, "wrong", resources) is Consumed.WRONG

    async def test_after_a_right_one_the_quarter_of_an_hour_begins_anew(
        self, resources: Resources, clock: Clock
    ) -> None:
        person = await enrol(resources, clock)
        await consume_factor(person.user.id, "wrong", resources)
        clock.go_on(timedelta(minutes=14))
        assert await consume_factor(person.user.id, person.code(clock.now), resources) is Consumed.TOTP
        for _ in range(TRIES):
            await consume_factor(person.user.id, "wrong", resources)
        clock.go_on(timedelta(minutes=2))
        with pytest.raises(TooManyAttempts):
            await consume_factor(person.user.id, "wrong", resources)

    async def test_wrong_ones_of_long_ago_do_not_count(self, resources: Resources, clock: Clock) -> None:
        person = await enrol(resources, clock)
        for _ in range(TRIES - 1):
            await consume_factor(person.user.id, "wrong", resources)
        clock.go_on(TRIES_WINDOW)
        for _ in range(TRIES):
            assert await consume_factor(person.user.id, "wrong", resources) is Consumed.WRONG
        with pytest.raises(TooManyAttempts):
            await consume_factor(person.user.id, "wrong", resources)

    @pytest.mark.parametrize("_time", range(_TIMES))
    async def test_at_once_they_are_no_more_than_one_after_the_other(
        self, resources: Resources, clock: Clock, _time: int
    ) -> None:
        person = await enrol(resources, clock)
        outcomes = await asyncio.gather(
            *(consume_factor(person.user.id, "wrong", resources) for _ in range(3 * TRIES)),
            return_exceptions=True,
        )
        assert sum(outcome is Consumed.WRONG for outcome in outcomes) == TRIES
        assert sum(isinstance(outcome, TooManyAttempts) for outcome in outcomes) == 2 * TRIES

    async def test_wrong_passwords_count_too_and_beginning_anew_gives_none_back(
        self, resources: Resources, clock: Clock
    ) -> None:
        assert clock.now
        user = await make_user(resources.databases)
        for left in reversed(range(TRIES)):
            with pytest.raises(WrongPassword) as refused:
                await begin(resources, user, "another-password-12")
            assert refused.value.facts == {"tries_left": left}
        with pytest.raises(TooManyAttempts):
            await begin(resources, user)

    async def test_of_a_pending_app_are_bounded_as_well(self, resources: Resources, clock: Clock) -> None:
        user = await make_user(resources.databases)
        app = await begin(resources, user)
        for _ in range(TRIES):
            with pytest.raises(InvalidCode):
                await activate(resources, token_of(user), "12345")
        with pytest.raises(TooManyAttempts):
            await activate(resources, token_of(user), app.at(clock.now))


class TestRecoveryCodes:
    async def test_each_works_once(self, resources: Resources, clock: Clock) -> None:
        person = await enrol(resources, clock)
        for code in person.recovery_codes:
            assert await consume_factor(person.user.id, code.lower(), resources) is Consumed.RECOVERY
        assert (await kept(resources.databases, person.user))["recovery_hashes"] == []
        assert await consume_factor(person.user.id, person.recovery_codes[0], resources) is Consumed.WRONG

    async def test_new_ones_replace_the_old(self, resources: Resources, clock: Clock) -> None:
        person = await enrol(resources, clock)
        fresh = await totp.renew_recovery_codes(locksmith_of(resources), person.token, person.code(clock.now), None)
        assert len({*fresh, *person.recovery_codes}) == 20
        assert await consume_factor(person.user.id, person.recovery_codes[0], resources) is Consumed.WRONG
        assert await consume_factor(person.user.id, person.code(clock.now), resources) is Consumed.WRONG
        assert await consume_factor(person.user.id, fresh[0], resources) is Consumed.RECOVERY

    async def test_one_of_them_is_enough_to_get_new_ones_but_no_wrong_code(
        self, resources: Resources, clock: Clock
    ) -> None:
        person = await enrol(resources, clock)
        before = await kept(resources.databases, person.user)
        with pytest.raises(InvalidCode):
            await totp.renew_recovery_codes(locksmith_of(resources), person.token, person.wrong_code(clock.now), None)
        assert (await kept(resources.databases, person.user))["recovery_hashes"] == before["recovery_hashes"]
        fresh = await totp.renew_recovery_codes(locksmith_of(resources), person.token, person.recovery_codes[0], None)
        assert len(fresh) == 10


class TestDisabling:
    async def test_needs_both_the_password_and_a_code(self, resources: Resources, clock: Clock) -> None:
        person = await enrol(resources, clock)
        before = await kept(resources.databases, person.user)

        async def disable(password: str, code: str) -> None:
            await totp.disable(locksmith_of(resources), person.token, password, code, None)

        with pytest.raises(WrongPassword):
            await disable("another-password-12", person.code(clock.now))
        with pytest.raises(InvalidCode):
            await disable(PASSWORD, person.wrong_code(clock.now))
        after = await kept(resources.databases, person.user)
        assert {**after, "tries": 0, "tries_until": None} == {**before, "tries": 0, "tries_until": None}
        await disable(PASSWORD, person.code(clock.now))
        assert await consume_factor(person.user.id, person.code(clock.now), resources) is (Consumed.NOT_ENROLLED)

    async def test_works_with_a_recovery_code_and_leaves_nothing_behind(
        self, resources: Resources, clock: Clock
    ) -> None:
        person = await enrol(resources, clock)
        await totp.disable(locksmith_of(resources), person.token, PASSWORD, person.recovery_codes[9], None)
        row = await kept(resources.databases, person.user)
        assert (row["status"], row["sealed_secret"], row["recovery_hashes"]) == ("none", None, [])
        with pytest.raises(TotpNotEnrolled):
            await totp.disable(locksmith_of(resources), person.token, PASSWORD, "123456", None)
        app = await begin(resources, person.user)
        assert app.secret != person.app.secret


class TestTheKey:
    async def test_another_one_opens_no_secret_and_says_so_to_the_log_only(
        self, resources: Resources, clock: Clock
    ) -> None:
        person = await enrol(resources, clock)
        another_key = {"encryption_key": SecretStr("eHh4" * 10 + "eHg=")}
        other = resources._replace(settings=resources.settings.model_copy(update=another_key))
        with own_logs() as logs, pytest.raises(InternalError):
            await consume_factor(person.user.id, person.code(clock.now), other)
        assert [line["event"] for line in logs] == ["totp.secret_unreadable"]
        with pytest.raises(InternalError):
            await consume_factor(person.user.id, person.recovery_codes[0], other)

    async def test_may_change_while_apps_and_recovery_codes_stay(self, resources: Resources, clock: Clock) -> None:
        person = await enrol(resources, clock)
        keys = {
            "encryption_key": SecretStr("eHh4" * 10 + "eHg="),
            "encryption_key_previous": resources.settings.encryption_key,
        }
        changing = resources._replace(settings=resources.settings.model_copy(update=keys))
        assert await consume_factor(person.user.id, person.code(clock.now), changing) is Consumed.TOTP
        assert await consume_factor(person.user.id, person.recovery_codes[0], changing) is Consumed.RECOVERY

    async def test_a_secret_moved_to_another_user_does_not_open(self, resources: Resources, clock: Clock) -> None:
        person, thief = await enrol(resources, clock), await enrol(resources, clock)
        enrolments = resources.databases.wallet["totp_enrolments"]
        stolen = (await kept(resources.databases, thief.user))["sealed_secret"]
        await enrolments.update_one({"_id": person.user.id}, {"$set": {"sealed_secret": stolen}})
        with pytest.raises(InternalError):
            await consume_factor(person.user.id, thief.code(clock.now), resources)


class TestTheSameRequestAgain:
    """One that was not answered must not cost a code."""

    async def test_finds_its_code_good_still(self, resources: Resources, clock: Clock) -> None:
        person = await enrol(resources, clock)
        user_id = person.user.id
        code = person.code(clock.now)
        for _ in range(2 * TRIES):
            assert await consume_factor(user_id, code, resources, "this request") is Consumed.TOTP
        assert await consume_factor(user_id, code, resources, "another") is Consumed.WRONG
        for _ in range(2):
            assert await consume_factor(user_id, person.recovery_codes[0], resources, "a third") is Consumed.RECOVERY
        assert await consume_factor(user_id, person.recovery_codes[0], resources, "another") is Consumed.WRONG
        assert len((await kept(resources.databases, person.user))["recovery_hashes"]) == 9

    async def test_does_not_once_another_code_was_used(self, resources: Resources, clock: Clock) -> None:
        person = await enrol(resources, clock)
        code = person.code(clock.now)
        assert await consume_factor(person.user.id, code, resources, "this request") is Consumed.TOTP
        assert await consume_factor(person.user.id, person.recovery_codes[0], resources) is Consumed.RECOVERY
        assert await consume_factor(person.user.id, code, resources, "this request") is Consumed.WRONG

    async def test_does_not_with_recovery_codes_that_were_replaced_since(
        self, resources: Resources, clock: Clock
    ) -> None:
        person = await enrol(resources, clock)
        old = person.recovery_codes[0]
        assert await consume_factor(person.user.id, old, resources, "this request") is Consumed.RECOVERY
        await totp.renew_recovery_codes(locksmith_of(resources), person.token, person.code(clock.now), None)
        assert await consume_factor(person.user.id, old, resources, "this request") is Consumed.WRONG

    async def test_does_not_after_the_codes_time_or_with_another_code(self, resources: Resources, clock: Clock) -> None:
        person = await enrol(resources, clock)
        code = person.code(clock.now)
        assert await consume_factor(person.user.id, code, resources, "this request") is Consumed.TOTP
        wrong = person.wrong_code(clock.now)
        assert await consume_factor(person.user.id, wrong, resources, "this request") is Consumed.WRONG
        clock.go_on(3 * _STEP)
        assert await consume_factor(person.user.id, code, resources, "this request") is Consumed.WRONG
