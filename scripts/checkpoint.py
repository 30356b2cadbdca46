"""Takes a checkpoint now: `python -m scripts.checkpoint`. Ends with 1 where there was nothing to seal.

With `--begin-evidence` an empty copy outside the database is begun with all checkpoints that the database has.
"""

import argparse
import asyncio
import sys

from service.database import bind_documents, connect
from service.domain.checkpoints import Checkpoint
from service.gateways.checkpoint_places import CheckpointFile, PlaceDiffers
from service.services.checkpoints import take_checkpoint
from service.settings import Settings, get_settings

# Somebody else's checkpoint may come first, but hardly every time.
_ATTEMPTS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description="Seals and signs all wallets' heads now.")
    parser.add_argument(
        "--begin-evidence",
        action="store_true",
        help="say that the copy outside the database is empty because it begins now",
    )
    try:
        checkpoint = asyncio.run(_take(get_settings(), begins_evidence=parser.parse_args().begin_evidence))
    except PlaceDiffers as error:
        sys.exit(f"No checkpoint was signed: {error}. See README, Proofs.")
    if checkpoint is None:
        sys.exit("No checkpoint was taken: there are no wallets yet, or others were first each time.")
    print(f"Checkpoint {checkpoint.number}: {checkpoint.wallets} wallets under {checkpoint.root}")


async def _take(settings: Settings, *, begins_evidence: bool = False) -> Checkpoint | None:
    place = CheckpointFile(settings)
    databases = connect(settings.mongo_url.get_secret_value(), settings)
    try:
        await bind_documents(databases)
        for _ in range(_ATTEMPTS):
            checkpoint = await take_checkpoint(databases.client, settings, place, begins_evidence=begins_evidence)
            if checkpoint is not None:
                return checkpoint
        return None
    finally:
        await databases.close()


if __name__ == "__main__":
    main()
