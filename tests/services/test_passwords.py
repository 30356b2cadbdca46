"""Passwords: hashing off the event loop with a bound, and which ones are taken."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.errors import InvalidFields, Unavailable
from service.services import passwords
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

    async def test_nobody_costs_the_same_work_as_somebody(
        self, hasher: Passwords, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Equal times follow from it; a clock on a busy machine could not tell."""
        checked: list[str] = []
        matches = passwords._matches

        def watch(password: str, password_hash: str) -> bool:
            checked.append(password_hash)
            return matches(password, password_hash)

        monkeypatch.setattr(passwords, "_matches", watch)
        await hasher.verify("violet-kettle-42", await hasher.hash("violet-kettle-41"))
        await hasher.verify("violet-kettle-42", None)
        parameters = {password_hash.rsplit("$", 2)[0] for password_hash in checked}
        assert (len(checked), len(parameters)) == (2, 1)


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
            "1q2w3e4r5t6y", "iloveyou1234", "abcdefghijkl", "a" * 128,
            "abcdefghijklmnopqrstuvwxyz",
        ],
    )  # fmt: skip
    def test_refuses_common_ones(self, password: str) -> None:
        assert refusal_of(password) == "password_common"

    def test_refuses_ones_own_e_mail(self) -> None:
        assert refusal_of("asha.rao@example.com") == "password_common"

    @pytest.mark.parametrize(
        "password",
        [
            "violet-kettle-41",
            "correct horse battery staple",
            "x9$Kq!vTz2pLw8",
            "вечерний-чайник-41",
            "kettle rao 41 wx",
            "StrongPass123",
        ],
    )
    def test_takes_others_and_does_not_mind_a_short_name_in_them(self, password: str) -> None:
        refuse_weak_password(password, "asha@example.com", ("Asha", "Rao"))

    def test_judges_only_the_beginning_since_a_crafted_one_would_take_it_a_second(self) -> None:
        assert refusal_of("a" * 20 + "violet-kettle-41") == "password_common"
