"""The sweep: finds by itself what a lost job, an emptied Redis or a dead worker left behind."""

from typing import Any

from workers.bank_callbacks import apply_callbacks
from workers.bank_orders import submit_orders
from workers.bank_simulation import run_bank


async def sweep(context: dict[str, Any]) -> None:
    await apply_callbacks(context)
    await submit_orders(context)
    await run_bank(context)
