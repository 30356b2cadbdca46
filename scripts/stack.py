"""The embedded stack's command line: `python -m scripts.stack run | up | down | status | logs | exec`."""

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Final

import typer

from scripts.foreground import ALL_LOGS, Foreground
from scripts.server_process import (
    START_LIMIT_S,
    STOP_LIMIT_S,
    EmbeddedServerError,
    tail,
    wait_until,
    write_private,
)
from scripts.service_stack import (
    CHILD_STOP_LIMIT_S,
    READY_LIMIT_S,
    STACK_MARK,
    WORKER,
    Stack,
    stop_leftover_programs,
)
from scripts.stack_environment import ROOT, choose_api_port, data_dir_of, environment_for, settings_around_us

# Two servers, the set-up and the API, each at its worst; seeding hashes a handful of passwords.
UP_LIMIT_S: Final = 2 * START_LIMIT_S + READY_LIMIT_S + 60
DOWN_LIMIT_S: Final = 2 * STOP_LIMIT_S + CHILD_STOP_LIMIT_S + 10
LOG_LINES: Final = 100  # of the past, before following
DEMO_USERS_SHOWN: Final = 5

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


class RunningStack:
    """What a stack leaves in its data directory while it runs: a lock with its process id, and where things are."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self._lock_path = data_dir / "stack.lock"
        self._state_path = data_dir / "stack.json"
        self._lock: int | None = None

    def claim(self) -> bool:
        """Become this directory's stack; False when another one is.

        The lock goes with its process, however that ends, so a stale one cannot stay.
        """
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            return False
        os.truncate(lock, 0)
        os.write(lock, str(os.getpid()).encode())
        self._state_path.unlink(missing_ok=True)
        self._lock = lock
        return True

    def release(self) -> None:
        self._state_path.unlink(missing_ok=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def pid(self) -> int | None:
        """The process that runs this directory's stack; None when there is none."""
        if not self._lock_path.exists():
            return None
        with self._lock_path.open("r+") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return int(file.read())
            return None

    def publish(self, stack: Stack) -> None:
        settings = {name: value for name, value in stack.settings.items() if name != STACK_MARK}
        write_private(self._state_path, json.dumps({"base_url": stack.base_url, "settings": settings}))

    def state(self) -> dict[str, Any] | None:
        """`base_url` and `settings`, once the servers are up and the database is set up."""
        if self.pid() is None or not self._state_path.exists():
            return None
        state: dict[str, Any] = json.loads(self._state_path.read_text())
        return state


def _fail(message: str) -> typer.Exit:
    typer.secho(f"\n{message}", fg=typer.colors.RED, err=True)
    return typer.Exit(1)


def _current() -> RunningStack:
    return RunningStack(data_dir_of(settings_around_us()))


@app.command()
def run(
    *,
    seed: Annotated[bool, typer.Option(help="Create the demo users.")] = True,
    quiet: Annotated[bool, typer.Option(help="Write what the programs say to the log files only.")] = False,
) -> None:
    """Run MongoDB, Redis, the API and a worker until Ctrl-C."""
    settings = settings_around_us()
    running = RunningStack(data_dir_of(settings))
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop_like_ctrl_c)
    if not running.claim():
        raise _fail(_already_running(running))
    failure = None
    try:
        failure = _run_claimed(running, settings, has_seed=seed, is_quiet=quiet)
    except EmbeddedServerError as error:
        failure = str(error)
    except KeyboardInterrupt:
        typer.echo("Stopped while starting.")
    finally:
        running.release()
    if failure is not None:
        raise _fail(failure)


def _run_claimed(running: RunningStack, settings: dict[str, str], *, has_seed: bool, is_quiet: bool) -> str | None:
    """What went wrong, or None when it ran until it was asked to stop."""
    for pid in stop_leftover_programs(running.data_dir):
        typer.echo(f"Ended process {pid}, which an earlier, killed start had left behind.")
    stack = Stack(running.data_dir, settings=settings, api_port=choose_api_port(settings), has_usual_ports=True)
    try:
        typer.echo(f"Starting MongoDB and Redis; their data are in {stack.data_dir}")
        stack.start_servers()
        stack.migrate()
        if has_seed:
            stack.seed()
        running.publish(stack)
        where = _where_things_are(stack, "make down" if is_quiet else "Ctrl-C here, or make down")
        typer.echo("Starting the API and the worker")

        def say_where_things_are() -> None:
            typer.secho(where, fg=typer.colors.GREEN)

        failure = Foreground(stack, when_ready=say_where_things_are, is_quiet=is_quiet).run()
    finally:
        # A second Ctrl-C must not leave servers behind.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        typer.echo("Stopping Redis and MongoDB" if stack.servers else "Stopping")
        stack.stop_all()
    if failure is None:
        typer.echo("Everything has stopped; the data stay for the next start.")
    return failure and f"The stack has stopped: {failure}."


def _stop_like_ctrl_c(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _already_running(running: RunningStack) -> str:
    state = running.state()
    where = f" at {state['base_url']}" if state else ""
    return (
        f"A stack runs already on {running.data_dir} (process {running.pid()}){where}.\n"
        f"Stop it with Ctrl-C in its terminal or with `make down`, or start a second one beside it:\n"
        f"  WALLET_DATA_DIR=.wallet-data-2 WALLET_PORT=8001 make run"
    )


def _where_things_are(stack: Stack, how_to_stop: str) -> str:
    addresses = re.findall(r"[\w.+-]+@[\w-]+\.[\w.]+", (ROOT / "CREDENTIALS.md").read_text())
    users = ", ".join(list(dict.fromkeys(addresses))[:DEMO_USERS_SHOWN])
    lines = [
        "",
        f"The wallet service answers at {stack.base_url}",
        f"  API docs     {stack.base_url}/docs",
        f"  metrics      {stack.base_url}/metrics{_of_the_worker(stack)}",
        f"  demo users   {users} (their passwords stand in CREDENTIALS.md)",
        f"  data         {stack.data_dir}",
        f"  logs         {stack.log_dir} (make logs)",
        f"  stop         {how_to_stop}",
        "",
    ]
    return "\n".join(lines)


def _of_the_worker(stack: Stack) -> str:
    return "" if stack.worker_metrics_url is None else f", of the worker {stack.worker_metrics_url}"


@app.command()
def up(*, seed: Annotated[bool, typer.Option(help="Create the demo users.")] = True) -> None:
    """Run the stack in the background; return when it answers."""
    running = _current()
    if running.pid() is not None:
        raise _fail(_already_running(running))
    running.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    output_path = running.data_dir / "up.log"
    command = [sys.executable, "-m", "scripts.stack", "run", "--quiet", "--seed" if seed else "--no-seed"]
    with output_path.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=ROOT, start_new_session=True
        )

    def is_ready_or_dead() -> bool:
        return b"answers at" in output_path.read_bytes() or process.poll() is not None

    if not wait_until(is_ready_or_dead, UP_LIMIT_S):
        process.terminate()
        process.wait(DOWN_LIMIT_S)
        raise _fail(f"The stack was not ready after {UP_LIMIT_S:.0f} s and was stopped.\n{tail(output_path)}")
    typer.echo(output_path.read_text().rstrip())
    if process.poll() is not None:
        raise typer.Exit(1)


@app.command()
def down() -> None:
    """Stop the stack, wherever it was started."""
    running = _current()
    pid = running.pid()
    if pid is None:
        typer.echo(f"No stack runs on {running.data_dir}.")
        return
    os.kill(pid, signal.SIGTERM)
    if not wait_until(lambda: running.pid() is None, DOWN_LIMIT_S):
        raise _fail(f"Process {pid} has not stopped within {DOWN_LIMIT_S:.0f} s; its log is in {running.data_dir}.")
    typer.echo("Stopped; the data stay for the next start.")


@app.command()
def status() -> None:
    """Say whether the stack runs and where; the exit status is 1 when it does not."""
    running = _current()
    state, pid = running.state(), running.pid()
    if pid is None:
        typer.echo(f"No stack runs on {running.data_dir}.")
        raise typer.Exit(1)
    typer.echo(f"Process {pid} runs the stack on {running.data_dir}: {state['base_url'] if state else 'starting'}")


@app.command()
def logs(*, worker: Annotated[bool, typer.Option("--worker", help="The worker's only.")] = False) -> None:
    """Follow what the API and the worker say."""
    path = _current().data_dir / "logs" / f"{WORKER if worker else ALL_LOGS}.log"
    if not path.exists():
        raise _fail(f"There are no logs yet at {path}. Start the stack with make run or make up.")
    os.execvp("tail", ["tail", "-n", str(LOG_LINES), "-F", str(path)])  # noqa: S606, S607 - the system's own tail


@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def exec(command: Annotated[list[str], typer.Argument(help="A program and its arguments.")]) -> None:  # noqa: A001 - the command is called so
    """Run a program with the settings of the running stack, or with ours if they name MongoDB and Redis."""
    settings = settings_around_us()
    running = RunningStack(data_dir_of(settings))
    if state := running.state():
        settings |= state["settings"]
    elif not {"WALLET_MONGO_URL", "WALLET_REDIS_URL"} <= settings.keys():
        raise _fail(
            "No stack runs here. Start it with make run or make up, or set WALLET_MONGO_URL and WALLET_REDIS_URL."
        )
    os.execvpe(command[0], command, environment_for(settings))  # noqa: S606 - what the caller asks for


if __name__ == "__main__":
    app()
