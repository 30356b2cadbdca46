"""Runs the API and the worker in the foreground under honcho: prints and keeps what they say, stops them together."""

import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final, TextIO

import honcho.manager  # type: ignore[import-untyped] # honcho has no types
from honcho.printer import Printer  # type: ignore[import-untyped] # honcho has no types

from scripts.server_process import set_aside_if_large
from scripts.service_stack import API, CHILD_STOP_LIMIT_S, READY_LIMIT_S, WORKER, Stack

WATCH_S: Final = 0.2  # how long a dead server or a Ctrl-C may stay unnoticed
ALL_LOGS: Final = "stack"


class Foreground:
    """One run: until a signal, or until anything of the stack ends by itself."""

    def __init__(self, stack: Stack, *, when_ready: Callable[[], None], is_quiet: bool = False) -> None:
        """`when_ready` is called once, when the API answers; `is_quiet` writes to the log files only."""
        self._stack = stack
        self._when_ready = when_ready
        self._failure: str | None = None
        self._is_asked_to_stop = threading.Event()
        self._is_over = threading.Event()
        # honcho's 5 s are less than what the API and the worker take to finish what they began.
        honcho.manager.KILL_WAIT = CHILD_STOP_LIMIT_S
        printer = _Tee(stack.log_dir, None if is_quiet else sys.stdout)
        self._manager = _Manager(printer, after_start=self._watch_from_now)
        for name, command in ((API, stack.api_command()), (WORKER, stack.worker_command())):
            # `exec`, so that signals reach the program and not a shell.
            self._manager.add_process(
                name, f"exec {shlex.join(command)}", env=stack.environment_of(name, command), cwd=str(stack.data_dir)
            )

    def run(self) -> str | None:
        """Block until everything has stopped; None when that was asked for, else what went wrong."""
        self._manager.loop()
        self._is_over.set()
        if self._failure is None and not self._is_asked_to_stop.is_set():
            names = " and ".join(self._manager.ended_first)
            self._failure = f"{names} ended by itself (status {self._manager.returncode}); why stands above"
        return self._failure

    def _watch_from_now(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._note_signal)
        threading.Thread(target=self._watch, daemon=True).start()

    def _note_signal(self, _number: int, _frame: FrameType | None) -> None:
        # No more than a flag: a handler that prints may interrupt a print, which Python refuses.
        self._is_asked_to_stop.set()

    def _watch(self) -> None:
        """Beside honcho's loop: servers that die, readiness, and requests to stop."""
        waited_s, is_ready = 0.0, False
        while not self._is_over.wait(WATCH_S):
            waited_s += WATCH_S
            dead = [server for server in self._stack.servers if not server.is_running]
            if dead:
                self._failure = f"{dead[0].name} has ended; its log is {dead[0].log_path}"
            elif not is_ready and not self._is_asked_to_stop.is_set():
                is_ready = self._stack.is_ready()
                if is_ready:
                    self._when_ready()
                elif waited_s > READY_LIMIT_S:
                    self._failure = f"the API is not ready after {READY_LIMIT_S:.0f} s; its log stands above"
            # honcho cannot stop what it has not heard the id of.
            if (self._failure or self._is_asked_to_stop.is_set()) and self._manager.has_started:
                self._manager.terminate()
                return


class _Manager(honcho.manager.Manager):  # type: ignore[misc] # honcho has no types
    """honcho's, with our signal handlers in place of its own, and a memory of who ended first."""

    def __init__(self, printer: "_Tee", *, after_start: Callable[[], None]) -> None:
        super().__init__(printer)
        self._after_start = after_start
        self.ended_first: list[str] = []

    @property
    def has_started(self) -> bool:
        return bool(self._all_started())

    def terminate(self) -> None:
        # honcho calls this as soon as it hears that one has ended.
        if not self._terminating:
            self.ended_first = [name for name, process in self._processes.items() if "returncode" in process]
        super().terminate()

    def _start(self) -> None:
        super()._start()
        self._after_start()


class _Tee:
    """A printer for honcho: coloured lines to the terminal, plain ones to a file each and to one for all."""

    def __init__(self, log_dir: Path, terminal: TextIO | None) -> None:
        self.width = 0
        self._log_dir = log_dir
        self._terminal = terminal
        self._files: dict[str, TextIO] = {}
        self._lock = threading.Lock()  # honcho's loop and the watching thread both print

    def write(self, message: Any) -> None:  # noqa: ANN401 - honcho has no types
        with self._lock:
            for output in (self._terminal, self._file(ALL_LOGS)):
                if output is not None:
                    Printer(output, width=self.width).write(message)
            if message.name in (API, WORKER):
                Printer(self._file(message.name), prefix=False).write(message)

    def _file(self, name: str) -> TextIO:
        if name not in self._files:
            path = self._log_dir / f"{name}.log"
            set_aside_if_large(path)
            self._files[name] = open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a")  # noqa: PTH123, SIM115 - the mode; open as long as we run
        return self._files[name]
