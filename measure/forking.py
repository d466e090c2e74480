"""Commands in forked processes that have imported everything: each start is short.

The process that is forked (`serve`) runs with the code of a clone, which may be of
another version than this file.
"""

import contextlib
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from measure.commands import ROOT, environment

LIBRARIES = (
    "jax",
    "flax.nnx",
    "grain",
    "orbax.checkpoint",
    "tensorboardX",
    "PIL.Image",
)
# What a process of Python runs when it starts, and a forked one is told to run.
SITE = "sitecustomize.py"


def serve(tasks: Sequence[str]) -> None:
    """Answer requests of `Commands`, one a line; in the child, run what was asked for.

    Args:
        tasks: whose modules are imported before the first request.
    """
    for name in (*LIBRARIES, *(f"multigrain_jax.tasks.{task}" for task in tasks)):
        # Older versions have their tasks elsewhere: these take longer to start.
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    warnings.filterwarnings("ignore", message=".*os.fork.*")
    for line in iter(sys.stdin.readline, ""):
        request = json.loads(line)
        if "poll" in request:
            found, status = os.waitpid(request["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if found else None
        else:
            answer = os.fork()
            if not answer:
                _become(request)
                return
        print(json.dumps(answer), flush=True)


def _become(request: Mapping[str, object]) -> None:
    """Be the command: its output, variables and arguments, to the process's end."""
    os.setsid()
    # A shell has what runs in its background ignore the one, `nohup` the other.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    for number, flags in enumerate((os.O_RDONLY, os.O_WRONLY, os.O_WRONLY)):
        path = (os.devnull, request["stdout"], request["stderr"])[number]
        descriptor = os.open(str(path), flags | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(descriptor, number)
        os.close(descriptor)
    variables = request["variables"]
    assert isinstance(variables, dict)
    os.environ.update(variables)
    arguments = request["arguments"]
    assert isinstance(arguments, list)
    sys.argv = ["multigrain_jax/main.py", *arguments]
    if variables.get("PYTHONPATH"):
        site = Path(variables["PYTHONPATH"].split(os.pathsep)[0]) / SITE
        if site.exists():
            runpy.run_path(str(site))
    runpy.run_module("multigrain_jax.main", run_name="__main__", alter_sys=True)


class Commands:
    """Starts commands of a clone, and knows whether they still run."""

    def __init__(self, clone: Path, tasks: Sequence[str], *, compiled: Path):
        """Start the process that is forked.

        Args:
            clone: whose code runs.
            tasks: the tasks that will be run.
            compiled: the folder of compiled programs.
        """
        self._clone = clone
        self._codes: dict[int, int] = {}
        self._server = subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"from measure.forking import serve; serve({list(tasks)})",
            ],
            cwd=clone,
            env=environment(
                clone,
                PYTHONPATH="",
                JAX_COMPILATION_CACHE_DIR=str(compiled),
                JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
            )
            | {"PYTHONPATH": f"{clone}{os.pathsep}{ROOT}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(
        self,
        words: Sequence[str],
        *,
        stdout: Path,
        stderr: Path,
        variables: Mapping[str, str],
        site: Path | None,
    ) -> int:
        """Start a command; returns its process, whose session is its own.

        Args:
            words: as of `command_line`.
            stdout: where its output goes; a file or a named pipe.
            stderr: where its errors go.
            variables: of its environment, besides the usual ones.
            site: a folder with what is run at the start of it and of its processes.
        """
        paths = [str(path) for path in (site, self._clone) if path]
        return self._ask(
            {
                "arguments": list(words[3:]),
                "stdout": str(stdout),
                "stderr": str(stderr),
                "variables": {**variables, "PYTHONPATH": os.pathsep.join(paths)},
            }
        )

    def poll(self, process: int) -> int | None:
        """The exit code of a process that was started here; None: it runs."""
        if process not in self._codes:
            code = self._ask({"poll": process})
            if code is None:
                return None
            self._codes[process] = code
        return self._codes[process]

    def wait(self, process: int, timeout_s: float) -> int | None:
        """The exit code, or None if there is none after so long."""
        end = time.monotonic() + timeout_s
        while (code := self.poll(process)) is None and time.monotonic() < end:
            time.sleep(0.05)
        return code

    def close(self) -> None:
        """End the process that is forked."""
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait()

    def _ask(self, request: Mapping[str, object]):
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())
