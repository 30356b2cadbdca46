"""What a story is made of: steps, each an example of one operation, in folders."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

# A new key for each sending.
FRESH_KEY: Final = "{{$guid}}"
NOBODY: Final = None
# What may take a while: the bank of the simulation needs up to 10 s, and a machine under load longer.
WAIT_LIMIT: Final = 45
WAIT_S: Final = 1


@dataclass(frozen=True, kw_only=True)
class Wait:
    """Asks again once a second while `member` is one of these, and at most WAIT_LIMIT times."""

    member: str
    while_it_is: tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """An example of one operation, and what has to come of it.

    Strings may hold `{{variables}}`. `keeps` and `expects` name members of the answer, as in `user.id` and `data.0.id`.
    """

    # Method and path as in the OpenAPI document, which may be without the prefix.
    operation: str
    title: str
    # Several, where the state of the stack decides; the first one's shape is tested when it comes.
    status: int | tuple[int, ...] = 200
    # Whose token is sent: that in the variable `<by>_token`.
    by: str | None = field(default="user", kw_only=True)
    # An API key in place of a token, by the name of its variable.
    api_key: str | None = field(default=None, kw_only=True)
    # Path parameters have the variables of their own names unless it is said here.
    path: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    query: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    headers: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    body: Any = field(default=None, kw_only=True)
    # The Idempotency-Key, where the operation knows one; None leaves it out.
    key: str | None = field(default=FRESH_KEY, kw_only=True)
    media_type: str | None = field(default=None, kw_only=True)
    # The code of the problem that is expected.
    error: str | None = field(default=None, kw_only=True)
    expects: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    keeps: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    # More tests: a title and what has to hold, in JavaScript. Where one status is expected, `body` is there.
    tests: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    # JavaScript before it is sent.
    before: str = field(default="", kw_only=True)
    wait: Wait | None = field(default=None, kw_only=True)
    # What the reader should know besides what the operation says of itself.
    note: str = field(default="", kw_only=True)

    @property
    def statuses(self) -> tuple[int, ...]:
        return self.status if isinstance(self.status, tuple) else (self.status,)


@dataclass(frozen=True)
class Folder:
    """Steps in their order. A folder that is named for a tag has to hold an example of each operation with it."""

    name: str
    description: str
    steps: tuple[Step, ...]
