"""Commands: plain data and a pure rule each; one class for each thing that the ledger can be asked to do.

A command names the documents that it needs, and decides on them: no I/O, no clock, no randomness. Time and ids are
handed in, so deciding the same command on the same state gives the same result. A new operation is one more class
here beside: `orders.py`, `transfers.py` and so on hold one noun each.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, Protocol, TypeVar

from service.domain.idempotency import IdempotencyClaim
from service.domain.lockdowns import StandingLockdown
from service.domain.outbox import OutboxRow
from service.domain.policy import Policy
from service.domain.records import Record
from service.domain.returns import Return
from service.domain.wallets import Movement, Wallet
from service.errors import WalletServiceError
from service.tracing import current_traceparent

_Kind = TypeVar("_Kind", bound=Record)

_ACCEPTED = 202


class Needs(NamedTuple):
    """The documents that a command names; all of them are read before it is decided."""

    users: tuple[str, ...] = ()
    wallets: tuple[str, ...] = ()
    owned_wallets: tuple[tuple[str, str], ...] = ()  # (user id, currency)
    records: tuple[str, ...] = ()
    owners_of: tuple[str, ...] = ()  # ids of wallets whose users are read too
    all_wallets_of: tuple[str, ...] = ()  # ids of users
    waiting_returns_of: tuple[str, ...] = ()  # ids of wallets of which is read whether a return waits to take from them


class State(Protocol):
    """What a rule may look at: the documents that its command names, as they stand after the commands before it."""

    @property
    def policy(self) -> Policy: ...
    def token_version(self, user_id: str) -> int | None:
        """None for a user who is not there or may not act."""
        ...

    def deactivation_event_id(self, user_id: str) -> str | None:
        """The audit event of the deactivation that stands. None where nobody or an earlier version deactivated them."""
        ...

    def lockdown(self, user_id: str) -> StandingLockdown | None:
        """Returns the lockdown of the user, where the command names them or a wallet of theirs in `owners_of`."""
        ...

    def wallet(self, wallet_id: str) -> Wallet | None: ...
    def wallet_in(self, user_id: str, currency: str) -> Wallet | None: ...
    def wallets_of(self, user_id: str) -> tuple[Wallet, ...]:
        """Returns all of the user's wallets, where the command names them."""
        ...

    def record(self, record_id: str, kind: type[_Kind]) -> _Kind | None: ...
    def waiting_return(self, wallet_id: str) -> Return | None:
        """One of the returns that wait to take from the wallet, where the command names it in `waiting_returns_of`."""
        ...


@dataclass(frozen=True, slots=True)
class Changes:
    """All that a command does. `record` is how its subject stands afterwards, also where nothing changed.

    `wallets` are those that change in other ways than by movements, which come after. `answer` is what the client
    gets, shown from the state afterwards. With an `error`, the command is refused and yet leaves a trace.
    """

    record: Record
    movements: tuple[Movement, ...] = ()
    wallets: tuple[Wallet, ...] = ()
    also: tuple[Record, ...] = ()
    outbox_rows: tuple[OutboxRow, ...] = ()
    done_outbox_ids: tuple[str, ...] = ()
    answer: Callable[[State], Mapping[str, Any]] | None = None
    status_code: int = _ACCEPTED
    error: WalletServiceError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """`claim` is the client's idempotency key, where there is a client.

    `traceparent` is where it was made: what its outbox rows lead to belongs to the same trace.
    """

    now: datetime
    transaction_id: str
    request_id: str | None = None
    claim: IdempotencyClaim | None = None
    traceparent: str | None = field(default_factory=current_traceparent, compare=False)

    @property
    def needs(self) -> Needs:
        raise NotImplementedError

    @property
    def weight(self) -> int:
        """Counts for so many commands in a batch: more than 1 where its writes grow with what it names."""
        return 1

    @property
    def sharer_id(self) -> str | None:
        """The user whose share of the queue it takes. None for what the service does of its own accord."""
        return None

    @property
    def locks_wallets(self) -> bool:
        """Tells whether all wallets that it names are locked first: where what it only reads must not change
        beside it.
        """
        return False

    @property
    def made_id(self) -> str | None:
        """The id of the record that it makes, where a repetition would make a second one; else None."""
        return None

    def answer_made(self, made: Sequence[Record], state: State) -> tuple[int, Mapping[str, Any]]:
        """Status and body for a repeated key whose answer has expired: the records as they stand now."""
        raise NotImplementedError

    def decide(self, state: State) -> Changes:
        """The rule. Raises the WalletServiceError that it is refused with; that changes nothing."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonalCommand(Command):
    """Somebody asks, with a token of that version; None where there was no token, as in the seed."""

    user_id: str
    token_version: int | None

    @property
    def sharer_id(self) -> str | None:
        return None if self.token_version is None else self.user_id


@dataclass(frozen=True, slots=True, kw_only=True)
class CompositeCommand(Command):
    """Several commands under one key, each decided on what those before it left.

    `is_all_or_nothing`: the first refusal is the refusal of the whole.
    """

    parts: Sequence[Command]
    is_all_or_nothing: bool

    @property
    def needs(self) -> Needs:
        return merged_needs([part.needs for part in self.parts])

    @property
    def weight(self) -> int:
        return max(1, len(self.parts))

    @property
    def sharer_id(self) -> str | None:
        return self.parts[0].sharer_id if self.parts else None

    @property
    def made_id(self) -> str | None:
        return self.parts[0].made_id if self.parts else None

    def refusal_of_whole(self, position: int, error: WalletServiceError) -> WalletServiceError:
        """Returns the refusal of the whole, for that of one part."""
        raise NotImplementedError

    def conclude(self, outcomes: Sequence[Mapping[str, Any] | WalletServiceError]) -> tuple[int, Mapping[str, Any]]:
        """Status and body, from each part's answer or refusal."""
        raise NotImplementedError


def merged_needs(all_needs: Sequence[Needs]) -> Needs:
    """Each document once."""
    return Needs(
        users=tuple({name for needs in all_needs for name in needs.users}),
        wallets=tuple({name for needs in all_needs for name in needs.wallets}),
        owned_wallets=tuple({name for needs in all_needs for name in needs.owned_wallets}),
        records=tuple({name for needs in all_needs for name in needs.records}),
        owners_of=tuple({name for needs in all_needs for name in needs.owners_of}),
        all_wallets_of=tuple({name for needs in all_needs for name in needs.all_wallets_of}),
        waiting_returns_of=tuple({name for needs in all_needs for name in needs.waiting_returns_of}),
    )
