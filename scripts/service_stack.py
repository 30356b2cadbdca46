"""The embedded stack as an object: MongoDB, Redis, API and worker, to be started, stopped and killed one by one.

`python -m scripts.stack` runs it for people; tests and benches use it as it is::

    with Stack(tmp_path, settings={"WALLET_BANK_DELAY_MAX_S": "0.1"}) as stack:
        stack.start_servers()
        stack.migrate()
        stack.start_api()
        stack.start_worker()
        stack.kill("api")       # SIGKILL, with every process of its group
        stack.start_api()
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Self

import httpx

from scripts.embedded import EmbeddedServerError, MongoServer, RedisServer, free_port
from scripts.server_process import (
    LOOPBACK,
    POLL_S,
    EmbeddedServer,
    ending_with_parent,
    has_ended,
    port_is_free,
    set_aside_if_large,
    tail,
    wait_until,
)
from scripts.stack_environment import (
    HOUSE_FLOORS,
    USUAL_MONGO_PORT,
    USUAL_REDIS_PORT,
    choose_server_port,
    environment_for,
    mongo_settings,
    own_secrets,
    public_half,
)

ADMIN_URL: Final = "WALLET_MONGO_ADMIN_URL"
SIGNING_KEY: Final = "WALLET_CHECKPOINT_SIGNING_KEY"
PUBLIC_KEY: Final = "WALLET_CHECKPOINT_PUBLIC_KEY"
API: Final = "api"
WORKER: Final = "worker"
WORKER_METRICS_PORT: Final = "WALLET_WORKER_METRICS_PORT"
WORKERS_OPTION: Final = "--workers"
API_FACTORY: Final = "service.main:create_app"
# For those who ask more often than any client may.
NO_LIMITS: Final = {
    "WALLET_RATE_LIMIT_GLOBAL": "0",
    "WALLET_RATE_LIMIT_ANONYMOUS": "0",
    "WALLET_RATE_LIMIT_USER": "0",
    "WALLET_RATE_LIMIT_ADDRESS": "0",
    "WALLET_RATE_LIMIT_LOGIN": "0",
    "WALLET_RATE_LIMIT_BALANCE": "0",
    "WALLET_RATE_LIMIT_TRANSACTIONS": "0",
    "WALLET_RATE_LIMIT_REPORTS": "0",
    "WALLET_LOGIN_TRIES": "0",
    "WALLET_RECIPIENT_MISSES": "0",
    "WALLET_WEBHOOK_SENDS_PER_HOUR": "0",
    "WALLET_WEBHOOK_DELIVERIES_PER_HOUR": "0",
    "WALLET_CONNECTIONS_PER_ADDRESS": "0",
}
# uvicorn's httptools, with bounds (service/controllers/http_protocol.py).
HTTP_PROTOCOL: Final = "service.controllers.http_protocol:GuardedHttpProtocol"
SOCKET_PROTOCOL: Final = "service.controllers.socket_protocol:GuardedSocketProtocol"

# Longer than the minute for which proxies keep a connection: under one that reuses it at the moment at which it is
# closed here, a request is lost.
KEEP_ALIVE_S: Final = 75
# uvicorn's own patience with open requests; what stops the API has to wait a little longer.
GRACEFUL_STOP_S: Final = 10
CHILD_STOP_LIMIT_S: Final = 20.0
READY_LIMIT_S: Final = 60.0  # a cold start on a slow disk; 3 s is usual
READY_ATTEMPT_S: Final = 2.0  # longer than /readyz waits for MongoDB and Redis
# Marks every process of a stack in its environment, so that the next start recognises what a killed one left behind.
STACK_MARK: Final = "WALLET_STACK_DIR"


def api_options(*, factory: str = API_FACTORY, host: str, port: int) -> list[str]:
    """How uvicorn serves an API, whoever starts it; the image says the same."""
    # fmt: off
    return [
        "--factory", factory,
        "--host", host,
        "--port", str(port),
        "--loop", "uvloop",
        "--http", HTTP_PROTOCOL,
        "--ws", SOCKET_PROTOCOL,
        "--no-access-log",
        "--no-server-header",
        # X-Forwarded-For is read by the service, as WALLET_TRUSTED_PROXIES says.
        "--no-proxy-headers",
        "--timeout-keep-alive", str(KEEP_ALIVE_S),
        "--timeout-graceful-shutdown", str(GRACEFUL_STOP_S),
    ]
    # fmt: on


class ChildFailedError(EmbeddedServerError):
    """A program of ours ended with an error or too early; the message says which and shows the end of its log."""


class Stack:
    """Everything under one data directory. Nothing starts by itself; `stop()` ends all, servers last."""

    def __init__(
        self,
        data_dir: Path,
        *,
        settings: Mapping[str, str] | None = None,
        api_port: int | None = None,
        has_usual_ports: bool = False,
    ) -> None:
        """`settings` are WALLET_ variables for the service; with WALLET_MONGO_URL or WALLET_REDIS_URL among them,
        that server is somebody else's and is not started. The caller's own WALLET_ variables are not looked at.

        Ports are any free ones, unless given in the settings or, for MongoDB and Redis, by `has_usual_ports`.
        """
        self.data_dir = data_dir.resolve()
        self.settings: dict[str, str] = dict(settings or {})
        self.api_port = api_port or free_port()
        self._has_usual_ports = has_usual_ports
        self.mongo: MongoServer | None = None
        self.redis: RedisServer | None = None
        self.children: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def base_url(self) -> str:
        return f"http://{LOOPBACK}:{self.api_port}"

    @property
    def worker_metrics_url(self) -> str | None:
        """None where it is turned off."""
        port = self.settings[WORKER_METRICS_PORT]
        return None if port == "0" else f"http://{LOOPBACK}:{port}/metrics"

    @property
    def servers(self) -> list[EmbeddedServer]:
        return [server for server in (self.mongo, self.redis) if server is not None]

    @property
    def log_dir(self) -> Path:
        return self.data_dir / "logs"

    def log_path(self, name: str) -> Path:
        return self.log_dir / f"{name}.log"

    @property
    def environment(self) -> dict[str, str]:
        """The whole environment of this stack's programs. Only the set-up learns the administrator's URL."""
        return environment_for({name: value for name, value in self.settings.items() if name != ADMIN_URL})

    def environment_of(self, name: str, command: Sequence[str]) -> dict[str, str]:
        """For one program. Several processes of the API count together, in a folder that is new at each start."""
        environment = self.environment
        if WORKERS_OPTION in command:
            folder = self.data_dir / "metrics"
            shutil.rmtree(folder, ignore_errors=True)
            environment["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
        if name == API:
            # The process that answers clients must not be able to sign another history.
            environment.pop(SIGNING_KEY, None)
        if name not in (API, WORKER):
            # A port has one owner: the first worker.
            environment[WORKER_METRICS_PORT] = "0"
        return environment

    def start_servers(self) -> None:
        """MongoDB and Redis, as far as they are ours to start; afterwards `settings` tells where everything is."""
        for folder in (self.data_dir, self.log_dir):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        asked = dict(self.settings)
        if "WALLET_MONGO_URL" not in asked:
            self.mongo = MongoServer(self.data_dir / "mongo", 0)
            self._start_server(self.mongo, USUAL_MONGO_PORT)
            self.settings |= mongo_settings(self.mongo, self.data_dir)
        if "WALLET_REDIS_URL" not in asked:
            self.redis = RedisServer(self.data_dir / "redis", 0)
            self._start_server(self.redis, USUAL_REDIS_PORT)
            self.settings["WALLET_REDIS_URL"] = self.redis.url
        defaults = {
            **own_secrets(self.data_dir),
            "WALLET_BANK_CALLBACK_URL": f"{self.base_url}/webhooks/bank-callback",
            "WALLET_HOUSE_FLOORS": HOUSE_FLOORS,
            WORKER_METRICS_PORT: str(free_port()),
        }
        signing_key = {**defaults, **self.settings}[SIGNING_KEY]
        self.settings = {
            **defaults,
            PUBLIC_KEY: public_half(signing_key),
            **self.settings,
            "WALLET_PORT": str(self.api_port),
            "WALLET_DATA_DIR": str(self.data_dir),
            STACK_MARK: str(self.data_dir),
        }

    def _start_server(self, server: EmbeddedServer, usual_port: int) -> None:
        server.stop_leftover()  # first, or its port would look taken
        usual = usual_port if self._has_usual_ports else None
        server.port = choose_server_port(self.settings, type(server), usual)
        server.start()

    def migrate(self) -> None:
        """Collections, indexes, validators and roles; raises ChildFailedError."""
        self.run_to_end([sys.executable, "-m", "scripts.migrate"], environment_for(self.settings))

    def seed(self, *arguments: str) -> None:
        """The demo users, or what the arguments ask for; raises ChildFailedError."""
        self.run_to_end([sys.executable, "-m", "seed", *arguments])

    def run_to_end(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """Run a program, with the stack's environment unless another is given; what it prints goes where ours does."""
        status = subprocess.run(command, env=environment or self.environment, cwd=self.data_dir, check=False).returncode
        if status != 0:
            shown = " ".join(["python", *command[1:]])
            raise ChildFailedError(f"`{shown}` ended with status {status}; what it said stands above.")

    def api_command(self, *, factory: str = API_FACTORY, processes: int | None = None) -> list[str]:
        if processes is None:
            processes = int(self.settings.get("WALLET_API_PROCESSES", "1"))
        options = api_options(factory=factory, host=LOOPBACK, port=self.api_port)
        command = [sys.executable, "-m", "uvicorn", *options]
        # One worker would be a second process under a supervisor for nothing.
        return [*command, WORKERS_OPTION, str(processes)] if processes > 1 else command

    @staticmethod
    def worker_command() -> list[str]:
        return [sys.executable, "-m", "arq", "workers.main.WorkerSettings"]

    def start_api(self, *, factory: str = API_FACTORY, processes: int | None = None) -> None:
        """Start the API and wait until it is ready."""
        self.start(API, self.api_command(factory=factory, processes=processes))
        self.wait_until_ready()

    def start_worker(self, name: str = WORKER) -> None:
        """Start a worker; give further ones names of their own. It takes jobs about a second later."""
        self.start(name, self.worker_command())

    def start(self, name: str, command: Sequence[str]) -> None:
        """Start a program under a name, in a process group of its own, its output in `log_path(name)`."""
        if self.is_running(name):
            raise EmbeddedServerError(f"{name} runs already")
        self.log_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        set_aside_if_large(self.log_path(name))
        with self.log_path(name).open("ab") as log:
            self.children[name] = subprocess.Popen(
                ending_with_parent(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment_of(name, command),
                cwd=self.data_dir,  # not the repository, so that its .env is not read behind our back
                start_new_session=True,
            )

    def is_running(self, name: str) -> bool:
        child = self.children.get(name)
        return child is not None and child.poll() is None

    def stop(self, name: str) -> None:
        """Ask it to end (SIGTERM), wait, and kill its group if it does not within CHILD_STOP_LIMIT_S."""
        child = self.children[name]
        child.terminate()
        try:
            child.wait(CHILD_STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            print(f"{name} did not stop within {CHILD_STOP_LIMIT_S:.0f} s: killed", file=sys.stderr)
            self.kill(name)
        del self.children[name]

    def kill(self, name: str) -> None:
        """SIGKILL to it and every process it started."""
        child = self.children[name]
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        # Only the first of the group is ours to wait for; the API's other processes have ended when its port is free.
        if name == API and not wait_until(lambda: port_is_free(self.api_port), CHILD_STOP_LIMIT_S):
            raise EmbeddedServerError(f"Port {self.api_port} is still taken after the API was killed.")

    def wait_until_ready(self) -> None:
        """Until `/readyz` answers 200; raises ChildFailedError when the API ends or takes longer than READY_LIMIT_S."""
        deadline = time.monotonic() + READY_LIMIT_S
        while not self.is_ready():
            if not self.is_running(API):
                status = self.children[API].poll()
                raise ChildFailedError(f"The API ended with status {status}.\n{tail(self.log_path(API))}")
            if time.monotonic() > deadline:
                raise ChildFailedError(f"The API is not ready after {READY_LIMIT_S:.0f} s.\n{tail(self.log_path(API))}")
            time.sleep(POLL_S)

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.base_url}/readyz", timeout=READY_ATTEMPT_S).is_success
        except httpx.TransportError:
            return False

    def stop_all(self) -> None:
        """API and workers first, so that no request meets a closed database; then Redis, then MongoDB."""
        for name in list(self.children):
            self.stop(name)
        for server in reversed(self.servers):
            server.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_all()


def stop_leftover_programs(data_dir: Path) -> list[int]:
    """End the APIs and workers of an earlier, killed stack on this data directory; their ids.

    They carry its mark in their environment, which Linux shows. Elsewhere the API's taken port gives them away.
    """
    mark = f"{STACK_MARK}={data_dir.resolve()}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            is_ours = mark in (entry / "environ").read_bytes().split(b"\0")
        except OSError:  # another user's, or just ended
            continue
        if is_ours and int(entry.name) != os.getpid():
            found.append(int(entry.name))
    for pid in found:
        # Not asked first: they lost their log's reader, and every promise of the ledger holds through SIGKILL.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if not wait_until(lambda: all(has_ended(pid) for pid in found), CHILD_STOP_LIMIT_S):
        raise EmbeddedServerError(f"Of the processes {found}, left behind by an earlier start, one does not end.")
    return found
