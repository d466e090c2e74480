"""A reader that goes, or was never there, does not end a process."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from multigrain_jax.terminal import lets_others_fail

SCRIPT = """
import sys
from multigrain_jax.terminal import outlive_readers
outlive_readers()
for number in range(20_000):
    print("a line that fills the pipe, and then some", number, flush=number % 7 == 0)
    print("the other one too", file=sys.stderr)
open(sys.argv[1], "x").write("done")
"""


@pytest.mark.parametrize("closed", ["| head -1", ">&-", "2>&-", ">&- 2>&-", "2>&1 | :"])
def test_a_process_goes_on_without_its_readers(tmp_path, closed):
    path = tmp_path / "file"
    command = f'"$0" -c "$1" "$2" {closed}'
    subprocess.run(
        ["bash", "-c", command, sys.executable, SCRIPT, str(path)],
        check=False,
        capture_output=True,
        timeout=60,
    )
    # No line of the output has landed there.
    assert path.read_text() == "done"


def test_an_error_comes_after_what_was_said_before_it():
    script = """
import sys
from multigrain_jax.terminal import outlive_readers
outlive_readers()
print("what was done")
print("error: what was wrong", file=sys.stderr)
"""
    words = [sys.executable, "-c", script]
    both = subprocess.run(
        words, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60
    ).stdout
    assert both == b"what was done\nerror: what was wrong\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("full", [">", "2>", "&>"])
def test_a_process_goes_on_whose_output_has_no_room(tmp_path, full):
    """As where the output goes to a file on the disk that is full."""
    path = tmp_path / "file"
    command = f'"$0" -c "$1" "$2" {full}/dev/full'
    words = ["bash", "-c", command, sys.executable, SCRIPT, str(path)]
    done = subprocess.run(words, check=False, capture_output=True, timeout=60)
    assert (done.returncode, path.read_text()) == (0, "done")
    for stream in (done.stdout, done.stderr):
        assert stream.count(b"\n") in (0, 20_000)


def test_a_process_goes_on_whose_terminal_is_closed(tmp_path):
    path = tmp_path / "file"
    terminal, end = os.openpty()
    command = [sys.executable, "-c", SCRIPT, str(path)]
    with subprocess.Popen(command, stdout=end, stderr=end) as process:
        os.close(end)
        assert os.read(terminal, 100)
        os.close(terminal)
        assert process.wait(60) == 0
    assert path.read_text() == "done"


def test_what_has_a_reader_arrives(tmp_path):
    script = SCRIPT.replace("20_000", "3")
    command = [sys.executable, "-c", script, str(tmp_path / "file")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == len(done.stderr.splitlines()) == 3


LOGGING = """
import os, sys
from logging import getLogger
from absl import logging
from multigrain_jax.terminal import outlive_readers, quiet_libraries
before = sys.stderr
outlive_readers()
quiet_libraries()
logging.error("an error")
try:
    raise OSError("no room")
except OSError as error:
    logging.exception("raised an exception: %s", error)
class Loop:
    def __del__(self):
        raise RuntimeError("Event loop is closed")
loop = Loop()
del loop
bridge = getLogger("jax._src.xla_bridge")
bridge.warning("An NVIDIA GPU may be present on this machine, but a CUDA-enabled")
bridge.warning("another warning")
print("by the older name", file=before, flush=True)
print("by the newer name", file=sys.stderr)
class Other:
    def __del__(self):
        raise RuntimeError("another error")
other = Other()
del other
"""


def test_what_libraries_log_is_one_line_and_no_stack():
    command = [sys.executable, "-c", LOGGING]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = done.stderr.splitlines()
    assert lines[0].endswith("an error") and lines[1].endswith(":another warning")
    assert lines[2:4] == ["by the older name", "by the newer name"]
    # What nobody knows of is not kept quiet.
    assert lines[4].startswith("Exception ignored in") and "another" in lines[-1]


LEAVING = """
import multiprocessing, os
from multigrain_jax.terminal import quiet_libraries
quiet_libraries()
semaphore = multiprocessing.get_context("spawn").Semaphore()
os._exit(3)
"""


def test_leaving_at_once_warns_of_no_semaphores():
    command = [sys.executable, "-c", LEAVING]
    # Ends when the process that clears them has closed its standard error.
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (3, "")
    warned = [*command[:2], LEAVING.replace("quiet_libraries()\n", "")]
    done = subprocess.run(warned, capture_output=True, text=True, check=False)
    assert "resource_tracker" in done.stderr


def test_no_message_steers_the_terminal():
    """Errors that nobody expects among them; a bar's way up is let through."""
    script = (
        "import sys\n"
        "from multigrain_jax.terminal import outlive_readers\n"
        "outlive_readers()\n"
        "print('a \\x1b[2J b \\x9b c \\u202e d \\udcff e \\r f \\t ä')\n"
        "sys.stdout.write('\\n\\x1b[A')\n"
        "raise OSError('\\x1b]0;title\\x07')\n"
    )
    done = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", script], capture_output=True, check=False
    )
    line = "a \\x1b[2J b \\x9b c \\u202e d \\udcff e \r f \t ä\n"
    assert done.stdout.decode() == line + "\n\x1b[A"
    assert done.stderr.decode().splitlines()[-1] == "OSError: \\x1b]0;title\\x07"
    assert b"\x1b" not in done.stderr


@pytest.mark.parametrize("end", [0, 2, 3, ValueError("unexpected")])
def test_a_host_that_fails_does_not_wait_for_the_others(end, monkeypatch, capsys):
    monkeypatch.setattr(os, "_exit", sys.exit)

    @lets_others_fail(failures=(1, 2))
    def main(argv):
        if isinstance(end, Exception):
            raise end
        return end

    def ended():
        try:
            return main([])
        except BaseException as error:
            return error

    assert ended() == end  # alone
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    found = ended()
    if end in (0, 3):
        assert found == end
        return
    assert isinstance(found, SystemExit)
    assert found.code == (2 if end == 2 else 1)
    assert ("ValueError: unexpected" in capsys.readouterr().err) == (end != 2)
