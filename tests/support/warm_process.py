"""Commands of Python in processes that begin with torch and the package imported, which costs others 5 s of a core.

They are forked by a server that has imported and computed nothing else: the standard library's forkserver. What a process
does is what `python ARGUMENTS` does, with its own environment, standard streams and end. Where the start itself is tested, a
test starts Python anew.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import IO

import torch

CONTEXT = multiprocessing.get_context("forkserver")
# What gradio imports, not gradio, which takes its folder for temporary files from the environment when it is imported.
SERVING = ("fastapi", "uvicorn", "httpx", "pandas", "typer")
CONTEXT.set_forkserver_preload(["diffrgen.training.run", "diffrgen.explanation", "diffrgen.reporting.reporter", *SERVING])


class WarmProcess:
    """Stands for `subprocess.Popen` of a command whose first word is Python; the output goes to files.

    stdin: subprocess.PIPE gives the attribute `stdin` a pipe that can be closed. start_new_session: the process leads a
    process group of its own.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        stdout: IO,
        stderr: IO | int,
        stdin: int | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        start_new_session: bool = False,
    ) -> None:
        read, self.stdin = CONTEXT.Pipe(duplex=False) if stdin == subprocess.PIPE else (None, None)
        errors = stdout if stderr == subprocess.STDOUT else stderr
        environment = dict(os.environ if env is None else env)
        outputs = (stdout.name, errors.name)
        self._process = CONTEXT.Process(
            target=_run, args=(list(command[1:]), environment, outputs, read, start_new_session, cwd or os.getcwd())
        )
        self._process.start()
        self.pid = self._process.pid
        if read is not None:
            read.close()

    @property
    def returncode(self) -> int | None:
        """The exit status, negative after a signal; None while it runs."""
        return self._process.exitcode

    poll = returncode.fget

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status; subprocess.TimeoutExpired where there is none after so many seconds."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("a warm process", timeout)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, if it runs still."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


def run_warm(command: Sequence[str], *, timeout: float, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, as `subprocess.run` with captured text; it is killed after `timeout` seconds."""
    with tempfile.NamedTemporaryFile() as stdout, tempfile.NamedTemporaryFile() as stderr:
        process = WarmProcess(command, stdout=stdout, stderr=stderr, **options)
        try:
            status = process.wait(timeout)
        finally:
            process.kill()
        texts = [Path(file.name).read_text(encoding="utf-8", errors="replace") for file in (stdout, stderr)]
    return subprocess.CompletedProcess(command, status, *texts)


def _run(
    arguments: list[str],
    environment: dict[str, str],
    outputs: tuple[str, str],
    stdin: Connection | None,
    new_session: bool,
    folder: Path | str,
) -> None:
    """Do in this process what Python does with `arguments`."""
    if new_session:
        os.setsid()
    # Its own processes begin as those of any process, not by the forkserver.
    multiprocessing.set_start_method(None, force=True)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    tempfile.tempdir = None
    torch.set_num_threads(int(environment.get("OMP_NUM_THREADS", torch.get_num_threads())))
    if stdin is not None:
        os.dup2(stdin.fileno(), 0)
    for number, name in enumerate(outputs, start=1):
        file = os.open(name, os.O_WRONLY | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)
    try:
        _interpret(arguments)
    finally:
        # multiprocessing leaves out what other processes do when they end.
        atexit._run_exitfuncs()


def _interpret(arguments: list[str]) -> None:
    """`-c CODE ARGUMENTS`, `-m MODULE ARGUMENTS` or `SCRIPT ARGUMENTS`."""
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    elif arguments[0] == "-c":
        sys.argv = ["-c", *arguments[2:]]
        main = sys.modules["__main__"] = ModuleType("__main__")
        exec(compile(arguments[1], "<string>", "exec"), main.__dict__)
    else:
        sys.argv = arguments
        sys.path.insert(0, str(Path(arguments[0]).parent))
        runpy.run_path(arguments[0], run_name="__main__")
