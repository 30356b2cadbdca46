"""Points that were earned: one document for each operation that earned some, shaped like its record in the domain."""

from typing import Any, ClassVar

from beanie import Document

from service.documents.operations import USER_NEWEST
from service.documents.validation import POSITIVE_AMOUNT, validator_of
from service.domain.rewards import Reward


class RewardDocument(Document):
    class Settings:
        name = "rewards"
        indexes: ClassVar = [USER_NEWEST]
        validator: ClassVar[dict[str, Any]] = validator_of(Reward, points=POSITIVE_AMOUNT)
