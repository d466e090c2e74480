"""metrics.jsonl survives crashes and resumes; events are written."""

import io
import json
import struct
import sys

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from multigrain_jax.errors import InputError
from multigrain_jax.metric_writer import MetricWriter, read_metrics
from multigrain_jax.workdir import METRICS_FILE


def refuse_constant(name):
    raise AssertionError(f"{name} is not JSON")


def read_events(workdir):
    """The events of all files, in the order of the files' first steps."""
    files = sorted(workdir.glob("events.*"), key=lambda f: int(f.name.split(".")[-1]))
    events = []
    for file in files:
        data = io.BytesIO(file.read_bytes())
        while header := data.read(12):  # length, its checksum
            events.append(Event.FromString(data.read(struct.unpack("<Q4x", header)[0])))
            data.read(4)
    return events


def test_a_line_holds_the_step_and_the_metrics(tmp_path):
    writer = MetricWriter(tmp_path)
    writer.write(3, {"epoch": 0.5, "train/loss": np.float32(1.25)})
    writer.write(6, {"epoch": 1.0, "train/loss": 1.0, "learning_rate": 1e-4})
    writer.close()
    lines = (tmp_path / METRICS_FILE).read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": 3, "epoch": 0.5, "train/loss": 1.25},
        {"step": 6, "epoch": 1.0, "train/loss": 1.0, "learning_rate": 1e-4},
    ]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, np.float32(np.nan)])
def test_numbers_that_json_lacks_are_null(tmp_path, value):
    writer = MetricWriter(tmp_path)
    writer.write(1, {"train/loss": value})
    writer.close()
    text = (tmp_path / METRICS_FILE).read_text()
    row = json.loads(text, parse_constant=refuse_constant)
    assert row == {"step": 1, "train/loss": None}


def test_a_resumed_run_replaces_the_later_lines(tmp_path):
    writer = MetricWriter(tmp_path)
    for step in (1, 2, 3, 4):
        writer.write(step, {"train/loss": float(step)})
    writer.close()
    writer = MetricWriter(tmp_path)
    writer.truncate_after(2)
    writer.write(3, {"train/loss": 30.0})
    writer.close()
    rows = read_metrics(tmp_path / METRICS_FILE)
    assert [(row["step"], row["train/loss"]) for row in rows] == [
        (1, 1.0),
        (2, 2.0),
        (3, 30.0),
    ]
    assert not list(tmp_path.glob("*.partial"))


def test_half_a_line_of_a_crash_is_dropped(tmp_path):
    path = tmp_path / METRICS_FILE
    path.write_text('{"step": 1, "train/loss": 2.0}\n{"step": 2, "trai')
    assert [row["step"] for row in read_metrics(path)] == [1]
    writer = MetricWriter(tmp_path)
    writer.write(2, {"train/loss": 1.0})
    writer.close()
    assert [row["step"] for row in read_metrics(path)] == [1, 2]


@pytest.mark.parametrize("line", ["{", "3", "null", '{"epoch": 1}', '{"step": "1"}'])
def test_a_broken_line_in_the_middle_is_named(tmp_path, line):
    path = tmp_path / METRICS_FILE
    path.write_text(f'{{"step": 1}}\n{line}\n{{"step": 3}}\n')
    with pytest.raises(InputError, match=r"metrics\.jsonl: line 2 .*remove the line"):
        read_metrics(path)


def test_events_hold_the_scalars_and_purge_on_resume(tmp_path):
    writer = MetricWriter(tmp_path)
    for step in (1, 2):
        writer.write(step, {"train/loss": step / 2})
    writer.close()
    writer = MetricWriter(tmp_path)
    writer.truncate_after(1)
    writer.write(2, {"train/loss": 7.0})
    writer.close()
    events = read_events(tmp_path)
    scalars = [
        (event.step, value.tag, value.simple_value)
        for event in events
        for value in event.summary.value
    ]
    assert scalars == [
        (1, "train/loss", 0.5),
        (2, "train/loss", 1.0),
        (2, "train/loss", 7.0),
    ]
    purges = [e.step for e in events if e.session_log.status == SessionLog.START]
    assert purges == [2]


class Moves:
    """A bar that nobody sees."""

    def __init__(self, total, **options):
        self.n, self.total = 0, total

    def update(self, count):
        self.n += count
        assert self.n <= self.total

    def write(self, line, file):
        print(line, file=file)


def test_without_a_workdir_nothing_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    writer = MetricWriter(None)
    writer.truncate_after(0)
    writer.write(1, {"train/loss": 0.5})
    writer.close()
    assert not list(tmp_path.iterdir())
    assert "loss 0.5" in capsys.readouterr().out


def test_plain_lines_where_there_is_no_terminal(capsys):
    writer = MetricWriter(None, progress_total=20)
    writer.write(10, {"epoch": 0.5, "train/loss": 0.25, "train/unlisted": 9.0})
    writer.note("a note")
    writer.close()
    captured = capsys.readouterr()
    assert captured.out == "step 10/20  epoch 0.50  loss 0.25\na note\n"
    assert captured.err == ""


def test_a_progress_bar_in_a_terminal(monkeypatch, capsys):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    writer = MetricWriter(None, progress_total=20)
    writer.truncate_after(5)
    writer.write(10, {"epoch": 0.5, "train/loss": 0.25})
    writer.write(10, {"epoch": 0.5, "val/top1": 0.75})
    writer.close()
    assert "10/20" in terminal.getvalue()
    # Above the bar, each on a line of its own.
    assert capsys.readouterr().out == (
        "step 10/20  epoch 0.50  loss 0.25\nstep 10/20  epoch 0.50  val top-1 0.75\n"
    )


def test_the_bar_moves_with_every_step(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr("multigrain_jax.metric_writer.tqdm", Moves)
    writer = MetricWriter(None, progress_total=9)
    writer.truncate_after(5)
    taken = [(batch, writer._bar.n) for batch in writer.ticking("abc", first_step=5)]
    assert taken == [("a", 5), ("b", 6), ("c", 7)]
    writer.write(8, {"train/loss": 1.0})
    assert writer._bar.n == 8


def test_a_line_says_how_long_it_takes(monkeypatch, capsys):
    now = iter([100.0, 110.0, 120.0])
    monkeypatch.setattr("time.monotonic", lambda: next(now))
    writer = MetricWriter(None, progress_total=100)
    for step in (10, 20, 30):
        writer.write(step, {"train/loss": 1.0})
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition("loss 1")[2] for line in lines] == [
        "",
        ", 80 s left",
        ", 70 s left",
    ]


@pytest.mark.parametrize("line", ["[" * 100_000, '{"step": ' + "1" * 5000 + "}"])
def test_any_line_that_is_none_is_named(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n' + line + "\n")
    with pytest.raises(InputError, match="line 2 is "):
        read_metrics(path)


def test_a_huge_file_is_not_read(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(InputError, match="1099511627776 bytes, at most 1024 MiB"):
        read_metrics(path)
