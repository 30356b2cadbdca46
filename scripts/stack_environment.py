"""What the embedded stack's programs are told: settings from the caller and `.env`, secrets and ports of its own."""

import base64
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from dotenv import dotenv_values

from scripts.embedded import PASSWORD_BYTES, MongoServer
from scripts.server_process import (
    LOOPBACK,
    EmbeddedServer,
    EmbeddedServerError,
    free_port,
    port_is_free,
    private_value,
)

ROOT: Final = Path(__file__).resolve().parent.parent
SERVICE_USER: Final = "wallet_service"
PREFIX: Final = "WALLET_"

DEFAULT_API_PORT: Final = 8000
# Not the servers' usual ports (27017 and 6379), where a developer's own may well listen.
USUAL_MONGO_PORT: Final = 27117
USUAL_REDIS_PORT: Final = 6479
DEFAULT_DATA_DIR: Final = ".wallet-data"

JWT_SECRET_BYTES: Final = 48  # HS256 asks for 32 at least (RFC 7518, section 3.2)
WEBHOOK_SECRET_BYTES: Final = 32  # Standard Webhooks asks for 24 to 64
KEY_BYTES: Final = 32  # AES-256, and the seed of Ed25519


# The house's own money: ten million of each currency of the exchange, at the bank and for the exchange.
HOUSE_MONEY: Final = {"INR": 10**9, "USD": 10**9, "EUR": 10**9, "GBP": 10**9, "JPY": 10**7, "KWD": 10**10}
HOUSE_FLOORS: Final = json.dumps(
    {account: {currency: -amount for currency, amount in HOUSE_MONEY.items()} for account in ("bank", "house:fx")}
)

# Where processes of one program count together; two programs must not.
_OF_ONE_PROGRAM: Final = ("PROMETHEUS_MULTIPROC_DIR",)


def settings_around_us() -> dict[str, str]:
    """WALLET_ settings of `.env` and the environment; the environment wins."""
    in_file = {name: value for name, value in dotenv_values(ROOT / ".env").items() if value}
    in_environment = {name: value for name, value in os.environ.items() if value}
    return {name: value for name, value in (in_file | in_environment).items() if name.startswith(PREFIX)}


def data_dir_of(settings: Mapping[str, str]) -> Path:
    return (ROOT / settings.get("WALLET_DATA_DIR", DEFAULT_DATA_DIR)).resolve()


def port_setting(settings: Mapping[str, str], name: str) -> int | None:
    """The port in a setting, None when it is not set."""
    text = settings.get(name)
    if text is None:
        return None
    if not text.isdecimal() or not 0 < int(text) < 2**16:
        raise EmbeddedServerError(f"{name} has to be a port from 1 to 65535, not {text!r}.")
    return int(text)


def choose_server_port(settings: Mapping[str, str], server: type[EmbeddedServer], usual: int | None) -> int:
    """The port asked for; else the usual one, if there is one; else, or when somebody has that, any free one.

    A port that was asked for is never swapped: the server's start then says that it is taken.
    """
    asked = port_setting(settings, server.port_setting)
    if asked is not None:
        return asked
    if usual is None:
        return free_port()
    if port_is_free(usual):
        return usual
    port = free_port()
    print(f"Port {usual} is taken, so {server.name} listens on {port}. Set {server.port_setting} to choose one.")
    return port


def choose_api_port(settings: Mapping[str, str]) -> int:
    """Never swapped for another: people and scripts expect the API where they were told it is."""
    port = port_setting(settings, "WALLET_PORT") or DEFAULT_API_PORT
    if not port_is_free(port):
        raise EmbeddedServerError(
            f"Port {port} on {LOOPBACK}, meant for the API, is taken by another program. "
            f"Stop that program, or start with another port: WALLET_PORT={port + 1} make run"
        )
    return port


def own_secrets(data_dir: Path) -> dict[str, str]:
    """The stack's secrets, made at its first start and kept beside its data (mode 0600)."""
    folder = data_dir / "secrets"

    def make_webhook_secret() -> str:
        return "whsec_" + base64.b64encode(secrets.token_bytes(WEBHOOK_SECRET_BYTES)).decode()

    def make_key() -> str:
        return base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()

    previous = folder / "jwt-secret-previous"
    return {
        # There only while the key is rotated: see the README.
        **({"WALLET_JWT_SECRET_PREVIOUS": previous.read_text().strip()} if previous.exists() else {}),
        "WALLET_JWT_SECRET": private_value(folder / "jwt-secret", lambda: secrets.token_urlsafe(JWT_SECRET_BYTES)),
        "WALLET_BANK_WEBHOOK_SECRET": private_value(folder / "bank-webhook-secret", make_webhook_secret),
        "WALLET_ENCRYPTION_KEY": private_value(folder / "encryption-key", make_key),
        "WALLET_CHECKPOINT_SIGNING_KEY": private_value(folder / "checkpoint-signing-key", make_key),
    }


def public_half(signing_key: str) -> str:
    """Derives the public key of checkpoints, for programs that do not sign any; both are in base64."""
    key = Ed25519PrivateKey.from_private_bytes(base64.b64decode(signing_key)).public_key()
    return base64.b64encode(key.public_bytes_raw()).decode()


def mongo_settings(mongo: MongoServer, data_dir: Path) -> dict[str, str]:
    """The URLs of the service's own user, whom the set-up creates, and of root, who runs the set-up."""
    password = private_value(
        data_dir / "secrets" / "service-mongo-password", lambda: secrets.token_urlsafe(PASSWORD_BYTES)
    )
    return {"WALLET_MONGO_URL": mongo.url_for(SERVICE_USER, password), "WALLET_MONGO_ADMIN_URL": mongo.admin_url}


def environment_for(settings: Mapping[str, str]) -> dict[str, str]:
    """A child's whole environment: ours, but with exactly these WALLET_ settings."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith((PREFIX, *_OF_ONE_PROGRAM))}
    python_path = [str(ROOT), *filter(None, [inherited.get("PYTHONPATH")])]
    return {
        **inherited,
        **settings,
        "PYTHONPATH": os.pathsep.join(python_path),
        "PYTHONUNBUFFERED": "1",  # a log line is of use when it is written, not when a buffer is full
        "PYTHONNODEBUGRANGES": "1",  # tracebacks without carets under their lines: a megabyte for each process
    }
