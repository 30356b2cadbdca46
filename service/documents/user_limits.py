"""What holds for all of a user's wallets: shaped like its record in the domain."""

from typing import Any, ClassVar

from beanie import Document

from service.documents.validation import TEXT, validator_of
from service.domain.user_limits import UserLimits


class UserLimitsDocument(Document):
    class Settings:
        name = "user_limits"
        indexes: ClassVar[list[Any]] = []
        validator: ClassVar[dict[str, Any]] = validator_of(UserLimits, user_id=TEXT)
