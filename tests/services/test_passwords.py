"""Passwords: hashing off the event loop with a bound, and which ones are taken."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

import pytest

from service.errors import InvalidFields, Unavailable
from service.services.passwords import Passwords, refuse_weak_password


@pytest.fixture(scope="module")
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


@pytest.fixture(scope="module")
def hasher(executor: ThreadPoolExecutor) -> Passwords:
    return Passwords(executor)


class TestHashing:
    async def test_is_argon2id_as_owasp_asks_for(self, hasher: Passwords) -> None:
        assert (await hasher.hash("violet-kettle-41")).startswith("$argon2id$v=19$m=19456,t=2,p=1$")

    async def test_verifies_the_password_and_no_other(self, hasher: Passwords) -> None:
        hashed = await hasher.hash("violet-kettle-41")
        assert await hasher.verify("violet-kettle-41", hashed)
        assert not await hasher.verify("violet-kettle-42", hashed)
        assert not await hasher.verify("", hashed)

    async def test_salts(self, hasher: Passwords) -> None:
        assert await hasher.hash("violet-kettle-41") != await hasher.hash("violet-kettle-41")

    async def test_one_password_is_the_same_from_every_keyboard(self, hasher: Passwords) -> None:
        assert await hasher.verify("Zoe\u0308-violet-kettle", await hasher.hash("Zo\u00eb-violet-kettle"))

    async def test_nobody_has_no_password(self, hasher: Passwords) -> None:
        assert not await hasher.verify("violet-kettle-41", None)

    async def test_nobody_takes_as_long_as_somebody(self, hasher: Passwords) -> None:
        hashed = await hasher.hash("violet-kettle-41")

        async def fastest_s(password_hash: str | None) -> float:
            durations_s = []
            for _ in range(7):
                started_s = perf_counter()
                await hasher.verify("violet-kettle-42", password_hash)
                durations_s.append(perf_counter() - started_s)
            return min(durations_s)

        assert await fastest_s(None) == pytest.approx(await fastest_s(hashed), rel=0.5)


class TestTheBound:
    async def test_beyond_a_hundred_waiting_the_next_is_told_to_come_back(self) -> None:
        gate = threading.Event()
        with ThreadPoolExecutor(1) as executor:
            hasher = Passwords(executor)
            executor.submit(gate.wait)
            waiting = [asyncio.create_task(hasher.verify("x", "$argon2id$")) for _ in range(100)]
            await asyncio.sleep(0)
            try:
                with pytest.raises(Unavailable) as refused:
                    await asyncio.wait_for(hasher.hash("violet-kettle-41"), timeout=2)
            finally:
                for task in waiting:
                    task.cancel()
                await asyncio.gather(*waiting, return_exceptions=True)
                gate.set()
            assert refused.value.retry_after_s == 1
            assert await hasher.hash("violet-kettle-41"), "those who left made room"


def refusal_of(password: str, *, email: str = "asha.rao@example.com", names: tuple[str, ...] = ("Asha", "Rao")) -> str:
    with pytest.raises(InvalidFields) as refused:
        refuse_weak_password(password, email, names)
    (field,) = refused.value.fields
    assert field.pointer == "/password"
    assert password not in field.message
    return field.code


class TestThePolicy:
    @pytest.mark.parametrize("password", ["short", "violet-kett", "v1olet-kett" * 12])
    def test_wants_12_to_128_characters(self, password: str) -> None:
        assert refusal_of(password) == "password_length"

    @pytest.mark.parametrize(
        "password",
        [
            "password1234", "P@ssw0rd12345", "123456789012", "qwertyuiop12", "aaaaaaaaaaaa", "letmeinletmein",
            "1q2w3e4r5t6y", "iloveyou1234", "abcdefghijkl", "Welcome2026!", "a" * 128, "1q2w3e4r5t6y7u8i9o0p",
            "abcdefghijklmnopqrstuvwxyz",
        ],
    )  # fmt: skip
    def test_refuses_common_ones(self, password: str) -> None:
        assert refusal_of(password) == "password_common"

    @pytest.mark.parametrize(
        "password", ["asha.rao@example.com", "ASHA.RAO@EXAMPLE.COM-41x", "my-ASHA-kettle-41", "kettle asha.rao 41"]
    )
    def test_refuses_ones_with_the_name_or_e_mail_in_them(self, password: str) -> None:
        assert refusal_of(password) == "password_personal"

    def test_looks_at_each_part_of_a_name(self) -> None:
        assert refusal_of("violet-kettle-maria-41", names=("Anna Maria", "Li")) == "password_personal"

    @pytest.mark.parametrize(
        "password",
        [
            "violet-kettle-41",
            "correct horse battery staple",
            "x9$Kq!vTz2pLw8",
            "вечерний-чайник-41",
            "kettle rao 41 wx",
        ],
    )
    def test_takes_others_and_does_not_mind_a_short_name_in_them(self, password: str) -> None:
        refuse_weak_password(password, "asha@example.com", ("Asha", "Rao"))

    @pytest.mark.parametrize(
        "password", ["4@8({[<369&#!1/|0$5+7%2" * 5, "4@8({[<369&#!1/|0$5+" * 6, "4@8({[<369&#!1/|0$5+abcegilostxz"]
    )
    def test_a_password_made_to_be_slow_is_judged_in_a_moment(self, password: str) -> None:
        started_s = perf_counter()
        refuse_weak_password(password, "asha@example.com", ())
        # As a whole the first two would take 0.4 to 0.8 s.
        assert perf_counter() - started_s < 0.2
