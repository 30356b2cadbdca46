"""The job that takes due orders to the bank."""

from typing import Any

from service.services.settlement import pursue_due_orders


async def submit_orders(context: dict[str, Any]) -> None:
    """Goes on until nothing is due; the next nudge or the sweep brings whatever comes later."""
    while await pursue_due_orders(context["desk"]):
        pass
