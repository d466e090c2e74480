"""Every fault before every task: how the real command ends.

    python measure/fault_matrix.py
    python measure/fault_matrix.py --tasks embed search --faults "disk full"

On Linux; by root also with disks that are full. Prints a table of exit codes (a minus
is a signal) and of what they come with, and ends with exit code 1 where a command was
silent about a fault that changed its results, hung, or left a traceback, several lines
of errors or processes. Another version's clone is tried with --clone.
"""

import argparse
import json
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from measure.commands import ROOT
from measure.fault_stage import TASKS, Stage
from measure.faults import FAULTS
from measure.machine import print_machine
from multigrain_jax.terminal import outlive_readers


def show(cells: dict[tuple[str, str], str], tasks: Sequence[str]) -> str:
    """The cells as a table: a line for each fault, a column for each task."""
    lines = ["| fault | " + " | ".join(tasks) + " |", "|---" * (len(tasks) + 1) + "|"]
    for fault in dict.fromkeys(fault for fault, _ in cells):
        row = [cells.get((fault, task), "") for task in tasks]
        lines.append(f"| {fault} | " + " | ".join(row) + " |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Go through the matrix and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clone", type=Path, default=ROOT, help="the version to try")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=list(FAULTS))
    parser.add_argument("--logs", type=Path, help="a folder for what they print")
    options = parser.parse_args(arguments)
    print_machine(["jax", "orbax-checkpoint", "grain"])
    cells: dict[tuple[str, str], str] = {}
    with tempfile.TemporaryDirectory() as base:
        stage = Stage(Path(base), options.clone, logs=options.logs)
        try:
            stage.build(options.tasks)
            for fault in options.faults:
                for task in options.tasks:
                    stage.reset()
                    try:
                        found = FAULTS[fault](stage, task)
                    except Exception:
                        found = "NOT TRIED"
                        traceback.print_exc()
                    cells[fault, task] = found
                    line = {"fault": fault, "task": task, "outcome": found}
                    print(json.dumps(line), file=sys.stderr, flush=True)
        finally:
            stage.close()
    print(show(cells, options.tasks), flush=True)
    if any(found != found.lower() for found in cells.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    outlive_readers()
    main()
