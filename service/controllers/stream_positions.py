"""How far somebody has got in each of their wallets, as one text: `wal_…:12,wal_…:7`."""

import re
from collections.abc import Mapping

from service.errors import FieldError, InvalidFields

# More wallets than there are currencies, and less than what proxies let through in one header.
POSITIONS_LENGTH_LIMIT = 7_000
_POSITION = re.compile(r"(wal_[0-9a-f]{1,60}):([0-9]{1,15})")


def positions_text(positions: Mapping[str, int]) -> str:
    return ",".join(f"{wallet_id}:{sequence}" for wallet_id, sequence in positions.items())


def parse_positions(text: str | None) -> dict[str, int] | None:
    """None and nothing alike: from now on. Raises InvalidFields."""
    if not text:
        return None
    parts = [_POSITION.fullmatch(part) for part in text.split(",")] if len(text) <= POSITIONS_LENGTH_LIMIT else [None]
    found = {part[1]: int(part[2]) for part in parts if part is not None}
    if len(found) != len(parts):
        raise InvalidFields(
            fields=(FieldError("/after", "invalid_positions", "Send wallet:number, separated by commas, each once"),)
        )
    return found
