"""Writes `.env` for Docker Compose: `.env.example` with fresh secrets filled in. Needs nothing but Python."""

import base64
import os
import re
import secrets
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
JWT_SECRET_BYTES: Final = 48  # HS256 asks for 32 at least (RFC 7518, section 3.2)
WEBHOOK_SECRET_BYTES: Final = 32  # Standard Webhooks asks for 24 to 64
KEY_BYTES: Final = 32  # AES-256, and the seed of Ed25519
PASSWORD_BYTES: Final = 24  # 192 bits: beyond guessing


def fill(example: str) -> str:
    """The example with a value after each name that ends in SECRET, KEY, PASSWORD or TOKEN and has none."""

    def add_value(match: re.Match[str]) -> str:
        name = match["name"]
        if name.endswith("_WEBHOOK_SECRET"):
            value = "whsec_" + base64.b64encode(secrets.token_bytes(WEBHOOK_SECRET_BYTES)).decode()
        elif name.endswith("_KEY"):
            value = base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()
        else:
            value = secrets.token_urlsafe(JWT_SECRET_BYTES if name.endswith("_SECRET") else PASSWORD_BYTES)
        return f"{name}={value}"

    # Compose is for production unless told otherwise; whoever lets this file be made is trying things out.
    example = example.replace("# WALLET_ENV=development", "WALLET_ENV=development")
    return re.sub(r"^(?P<name>WALLET_\w+_(?:SECRET|KEY|PASSWORD|TOKEN))=$", add_value, example, flags=re.MULTILINE)


def main() -> None:
    target = ROOT / ".env"
    if target.exists():
        sys.exit(f"{target} is there already and stays as it is.")
    with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:  # noqa: PTH123 - the mode
        file.write(fill((ROOT / ".env.example").read_text()))
    print("Wrote .env with fresh secrets.")


if __name__ == "__main__":
    main()
