"""Passwords: which ones are taken, and their hashing off the event loop in a bounded pool."""

import asyncio
import os
import secrets
import sys
import threading
import unicodedata
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from passlib.hash import argon2  # type: ignore[import-untyped]  # libpass ships no types

from service.errors import FieldError, InvalidFields, Unavailable

MIN_LENGTH = 12
MAX_LENGTH = 128

# OWASP's Password Storage Cheat Sheet: argon2id with 19 MiB, two passes, one lane.
_ARGON2 = argon2.using(type="ID", memory_cost=19 * 1024, time_cost=2, parallelism=1)
# About two seconds of work for two threads; who comes later had better come back.
_WAITING_LIMIT = 100
_RETRY_AFTER_S = 1

# Below 10^6 guesses zxcvbn calls a password "very guessable" (Wheeler, USENIX Security 2016): that is where the lists
# of common ones are. Where more is wanted, a second factor gives more than a stricter rule here.
_LOWEST_SCORE = 2
# Crafted passwords cost zxcvbn seconds, with the interpreter locked: it tries every way to read symbols as letters.
# So many characters cost at most about what one hash costs; the rest can only make a good password better.
_JUDGED_LENGTH = 20
# Fewer where many of them are symbols that may stand for letters: each further one doubles the ways to read them.
_JUDGED_LENGTH_OF_SYMBOLS = 14
_SYMBOLS = frozenset("4@8({[<369!1|0$5+7%2")
_SYMBOLS_LIMIT = 5

# A tenth of what others get of a processor that all want (sched(7)); with the least there is, nobody could log in
# while the service is busy.
_NICENESS = 10

_Result = TypeVar("_Result")


def give_way() -> None:
    """For each hashing thread, at its start: whatever else wants the processor comes first.

    Otherwise two threads that hash all the time take most of two processors, and every other request waits for one.
    """
    # Elsewhere a thread has no niceness of its own.
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


class Passwords:
    """Hashes and verifies with argon2id. The executor's threads are the bound on how much of the machine it takes."""

    def __init__(self, executor: ThreadPoolExecutor) -> None:
        self._executor = executor
        self._waiting = 0
        self._dummy_hash = _hash(secrets.token_urlsafe())

    async def hash(self, password: str) -> str:
        """The hash in PHC format, parameters and salt included. Raises Unavailable where too many are waiting."""
        return await self._run(lambda: _hash(password))

    async def verify(self, password: str, password_hash: str | None) -> bool:
        """Takes the same time where there is no hash to compare with, so that it does not tell who has an account.

        Raises Unavailable where too many are waiting.
        """
        matches = await self._run(lambda: _matches(password, password_hash or self._dummy_hash))
        return matches and password_hash is not None

    async def _run(self, work: Callable[[], _Result]) -> _Result:
        if self._waiting >= _WAITING_LIMIT:
            raise Unavailable("Too many people are logging in at this moment", retry_after_s=_RETRY_AFTER_S)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        finally:
            self._waiting -= 1


def _hash(password: str) -> str:
    hashed: str = _ARGON2.hash(_normal(password))
    return hashed


def _matches(password: str, password_hash: str) -> bool:
    matches: bool = _ARGON2.verify(_normal(password), password_hash)
    return matches


def _normal(password: str) -> str:
    """One password is one password on every keyboard (NIST SP 800-63B, section 5.1.1.2)."""
    return unicodedata.normalize("NFKC", password)


def refuse_weak_password(password: str, email: str, names: Iterable[str], pointer: str = "/password") -> None:
    """Raises InvalidFields where the password is too short, too long, or one that others would guess early.

    `pointer` is where it stands in the request.
    """
    if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
        raise _refusal(pointer, "password_length", f"Choose {MIN_LENGTH} to {MAX_LENGTH} characters")
    own_words = {word.casefold() for text in (email, email.partition("@")[0], *names) for word in (text, *text.split())}
    if _is_common(password, own_words):
        raise _refusal(
            pointer, "password_common", "The password is too easy to guess; a few unrelated words are better"
        )


def _is_common(password: str, own_words: Iterable[str]) -> bool:
    # Its dictionaries take a megabyte, which processes that nobody registers at can do without.
    from zxcvbn_rs_py import zxcvbn  # noqa: PLC0415

    judged = password[:_JUDGED_LENGTH]
    if len(_SYMBOLS.intersection(judged)) > _SYMBOLS_LIMIT:
        judged = judged[:_JUDGED_LENGTH_OF_SYMBOLS]
    return int(zxcvbn(judged, list(own_words)).score) < _LOWEST_SCORE


def _refusal(pointer: str, code: str, message: str) -> InvalidFields:
    return InvalidFields(fields=(FieldError(pointer, code, message),))
