"""Events as their owner reads them: newest first, or on from where they have got to."""

from service.domain.events import Event
from service.errors import NotFound
from service.repositories import events as event_repository
from service.repositories import wallets as wallet_repository
from service.repositories.events import EventFilter

__all__ = ["EventFilter", "list_newest", "read_on"]


async def list_newest(user_id: str, wanted: EventFilter, *, before_id: str | None, limit: int) -> list[Event]:
    """Raises NotFound for a wallet that is not theirs."""
    await _require_own(wanted.wallet_id, user_id)
    return await event_repository.find_newest(user_id, wanted, before_id=before_id, limit=limit)


async def read_on(user_id: str, wanted: EventFilter, *, after_sequence: int, limit: int) -> list[Event]:
    """Of one wallet, in order. Raises NotFound as above."""
    await _require_own(wanted.wallet_id, user_id)
    return await event_repository.find_after(user_id, wanted, after_sequence=after_sequence, limit=limit)


async def _require_own(wallet_id: str | None, user_id: str) -> None:
    if wallet_id is not None and await wallet_repository.find_owned(wallet_id, user_id) is None:
        raise NotFound(f"There is no wallet {wallet_id}")
