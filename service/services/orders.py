"""What a person asks for, as the controllers hand it over."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from service.domain.operations import mask_account
from service.domain.sealed import SealedField
from service.services.sealing import seal
from service.settings import Settings


class Requester(NamedTuple):
    """Who asks. `token_version` is that of the token they came with; None where there was none, as in the seed."""

    user_id: str
    token_version: int | None


class Order(NamedTuple):
    """`amount` in minor units of `currency`; `account` is the source or destination at the bank."""

    amount: int
    currency: str
    account: str
    category: str | None
    description: str | None
    metadata: Mapping[str, str]

    def sealed_for(self, operation_id: str, settings: Settings) -> dict[str, Any]:
        """As commands take it: the account readable by nobody but the service."""
        fields = self._asdict()
        account = fields.pop("account")
        sealed = seal(settings, account, SealedField.ACCOUNT, operation_id)
        return fields | {"account_sealed": sealed, "account_masked": mask_account(account)}
