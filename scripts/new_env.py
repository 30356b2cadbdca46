"""Writes `.env` for Docker Compose: `.env.example` with fresh secrets filled in. Needs nothing but Python."""

import base64
import hashlib
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
# Fields that releases before this one did not write.
_LATER_PASSWORDS: Final = ("WALLET_MONGO_AUDIT_PASSWORD", "WALLET_MONGO_BANK_PASSWORD")


def fill(example: str) -> str:
    """The example with a value after each name that ends in SECRET, KEY, PASSWORD or TOKEN and has none."""

    def add_value(match: re.Match[str]) -> str:
        name = match["name"]
        if name.endswith("_WEBHOOK_SECRET"):
            value = "whsec_" + base64.b64encode(secrets.token_bytes(WEBHOOK_SECRET_BYTES)).decode()
        elif name.endswith("_PUBLIC_KEY"):
            # Belongs to a key that is made here too, and is filled in when that is known.
            value = ""
        elif name.endswith("_KEY"):
            value = base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()
        else:
            value = secrets.token_urlsafe(JWT_SECRET_BYTES if name.endswith("_SECRET") else PASSWORD_BYTES)
        return f"{name}={value}"

    # Compose is for production unless told otherwise; whoever lets this file be made is trying things out.
    example = example.replace("# WALLET_ENV=development", "WALLET_ENV=development")
    filled = re.sub(r"^(?P<name>WALLET_\w+_(?:SECRET|KEY|PASSWORD|TOKEN))=$", add_value, example, flags=re.MULTILINE)
    return add_public_key(filled)


def add_public_key(dotenv: str) -> str:
    """The public half of the key that signs checkpoints, where that is set and its public half is not."""
    seed = re.search(r"^WALLET_CHECKPOINT_SIGNING_KEY=(\S+)$", dotenv, flags=re.MULTILINE)
    if seed is None or re.search(r"^WALLET_CHECKPOINT_PUBLIC_KEY=\S+$", dotenv, flags=re.MULTILINE):
        return dotenv
    line = f"WALLET_CHECKPOINT_PUBLIC_KEY={base64.b64encode(public_key_of(base64.b64decode(seed[1]))).decode()}"
    if re.search(r"^WALLET_CHECKPOINT_PUBLIC_KEY=$", dotenv, flags=re.MULTILINE):
        return re.sub(r"^WALLET_CHECKPOINT_PUBLIC_KEY=$", line, dotenv, flags=re.MULTILINE)
    return dotenv.replace(seed[0], f"{seed[0]}\n{line}", 1)


def add_passwords(dotenv: str) -> str:
    """Passwords of the bank's and the auditor's user of MongoDB, where they are not set, behind the service's."""
    for name in _LATER_PASSWORDS:
        line = f"{name}={secrets.token_urlsafe(PASSWORD_BYTES)}"
        if re.search(rf"^{name}=", dotenv, flags=re.MULTILINE):
            dotenv = re.sub(rf"^{name}=$", line, dotenv, flags=re.MULTILINE)
        else:
            dotenv = re.sub(
                r"^WALLET_MONGO_SERVICE_PASSWORD=.*$", rf"\g<0>\n{line}", dotenv, count=1, flags=re.MULTILINE
            )
    return dotenv


def public_key_of(seed: bytes) -> bytes:
    """Derives the Ed25519 public key of a seed (RFC 8032, section 5.1.5), with Python alone."""
    scalar = int.from_bytes(hashlib.sha512(seed).digest()[:32], "little")
    scalar = scalar & ((1 << 254) - 8) | 1 << 254
    inverse_z = pow((end := _multiply(scalar))[2], -1, _P)
    x, y = end[0] * inverse_z % _P, end[1] * inverse_z % _P
    return (y | (x & 1) << 255).to_bytes(32, "little")


_P: Final = 2**255 - 19
_D: Final = -121665 * pow(121666, -1, _P) % _P
_BASE_Y: Final = 4 * pow(5, -1, _P) % _P
_BASE_X: Final = 15112221349535400772501151409588531511454012693041857206046113283949847762202

Point = tuple[int, int, int, int]


def _multiply(scalar: int) -> Point:
    """The base point, so often."""
    total: Point = (0, 1, 1, 0)
    power: Point = (_BASE_X, _BASE_Y, 1, _BASE_X * _BASE_Y % _P)
    while scalar:
        total = _add(total, power) if scalar & 1 else total
        power, scalar = _add(power, power), scalar >> 1
    return total


def _add(one: Point, other: Point) -> Point:
    """RFC 8032, section 5.1.4, in extended coordinates."""
    a, b = (one[1] - one[0]) * (other[1] - other[0]), (one[1] + one[0]) * (other[1] + other[0])
    c, d = 2 * one[3] * other[3] * _D, 2 * one[2] * other[2]
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _names_in(dotenv: str) -> set[str]:
    return set(re.findall(r"^(WALLET_\w+)=\S", dotenv, flags=re.MULTILINE))


def main() -> None:
    target = ROOT / ".env"
    if target.exists():
        before = target.read_text()
        after = add_passwords(add_public_key(before))
        if after != before:
            target.write_text(after)
            added = sorted(_names_in(after) - _names_in(before))
            print(f"Added {', '.join(added)} to .env.")
            return
        sys.exit(f"{target} is there already and stays as it is.")
    with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:  # noqa: PTH123 - the mode
        file.write(fill((ROOT / ".env.example").read_text()))
    print("Wrote .env with fresh secrets.")


if __name__ == "__main__":
    main()
