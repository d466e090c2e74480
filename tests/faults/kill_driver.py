"""Kills training runs at random moments and compares what they end with.

    python kill_driver.py PHOTOS OUTPUT KILLS SEED

It imports everything once and forks a process for every run, so that a start costs a
second instead of ten. Writes OUTPUT/kills.json; a run that ends with other numbers
than the one that was never interrupted ends it with an error.
"""

import json
import os
import random
import signal
import sys
import time
from functools import partial
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

import jax
from helpers.configs import fault_config

from multigrain_jax.checkpoint import checkpoint_steps, describe_checkpoint
from multigrain_jax.tasks.train import run

# Every so many kills one waits for a save to begin.
KILLS_PER_SAVE_KILL = 4


def start_child(root: Path, workdir: Path) -> int:
    """Fork a process that trains in `workdir`; returns its id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        log = os.open(workdir.with_suffix(".log"), os.O_CREAT | os.O_APPEND | os.O_RDWR)
        os.dup2(log, 1)
        os.dup2(log, 2)
        # The running average is an item of the digest that is compared.
        config = fault_config(root, log_sample_ids=True, num_epochs=3, ema_decay=0.9)
        run(config, workdir)
        code = 0
    finally:
        os._exit(code)


def ended(pid: int) -> bool:
    """Whether the process has ended; it must have ended well."""
    found, status = os.waitpid(pid, os.WNOHANG)
    if found and status:
        raise SystemExit(f"a run ended with status {status}, see the .log files")
    return found != 0


def kill_when(pid: int, due) -> bool:
    """Kill the process as soon as `due()`; False: it ended before."""
    while not due():
        if ended(pid):
            return False
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return True


def saving(workdir: Path, since: float) -> bool:
    """Whether a save is under way that began after the time `since`."""
    try:
        folders = (workdir / "checkpoints").glob("*orbax-checkpoint-tmp*")
        return any(folder.stat().st_ctime >= since for folder in folders)
    except FileNotFoundError:  # finished between the two looks
        return False


def passed(moment: float) -> bool:
    """Whether a moment is over."""
    return time.time() >= moment


def last_step(path: Path) -> int:
    """The step of the last whole line of a file of JSON lines; 0 without one."""
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return json.loads(lines[-1])["step"] if lines else 0


def outcome(workdir: Path) -> tuple:
    """Digest of all arrays, samples and losses of a finished run."""
    rows = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    losses = [(row["step"], row["train/loss"], row["train/beta"]) for row in rows]
    digest = describe_checkpoint(workdir).digest
    return digest, (workdir / "sample_ids.jsonl").read_text(), losses


def in_child(check) -> None:
    """Run `check` in a process of its own: this one must start no threads."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            check()
            code = 0
        finally:
            os._exit(code)
    if os.waitpid(pid, 0)[1]:
        raise SystemExit("a run that was killed ended with other numbers")


def main(root: Path, output: Path, kills: int, seed: int) -> None:
    """Kill so many runs, one after the other, and write what was seen."""
    rng = random.Random(seed)
    jax.config.update("jax_compilation_cache_dir", str(output / "cache"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    whole = output / "whole"
    seconds = []
    for workdir in (output / "first", whole):  # the second finds everything compiled
        started = time.perf_counter()
        pid = start_child(root, workdir)
        while not ended(pid):
            time.sleep(0.001)
        seconds.append(time.perf_counter() - started)
    records, round_number = [], 0

    def check() -> None:
        assert outcome(workdir) == outcome(whole), workdir

    workdir = output / "round0"
    while len(records) < kills:
        started = time.time()
        moment = started + rng.uniform(0, seconds[-1])
        wait_for_save = len(records) % KILLS_PER_SAVE_KILL == 0

        due = (
            partial(saving, workdir, started)
            if wait_for_save
            else partial(passed, moment)
        )
        if kill_when(start_child(root, workdir), due):
            records.append(
                {
                    "after_seconds": time.time() - started,
                    "reached": last_step(workdir / "metrics.jsonl"),
                    "saved": max(checkpoint_steps(workdir / "checkpoints"), default=0),
                    "in_save": saving(workdir, started),
                }
            )
            continue
        in_child(check)
        round_number += 1
        workdir = output / f"round{round_number}"
    pid = start_child(root, workdir)
    while not ended(pid):
        time.sleep(0.001)
    in_child(check)
    summary = {"seconds_whole": seconds, "rounds": round_number + 1, "kills": records}
    (output / "kills.json").write_text(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
