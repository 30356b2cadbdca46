"""The job that applies what the bank reported."""

from typing import Any

from service.services.bank_callbacks import apply_due_callbacks


async def apply_callbacks(context: dict[str, Any]) -> None:
    """Goes on until the inbox is empty."""
    while await apply_due_callbacks(context["resources"].ledger):
        pass
