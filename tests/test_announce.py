"""What a run says first and last, and how little it can say."""

import json
import os
import shlex
from pathlib import Path

import jax
import pytest
from ml_collections import ConfigDict

from multigrain_jax.announce import NEXT, epilogue, run_announced
from multigrain_jax.commands.tasks import COMMANDS, translate
from multigrain_jax.main import TASKS
from multigrain_jax.terminal import tell_result


@pytest.fixture
def task():
    """A task that prints a line and a warning, and writes a page."""

    def run(config, workdir):
        print("a line\nWARNING: look out\nanother")
        (workdir / "report.html").touch()
        return {"num_images": 3, "seconds": 0.5}

    return run


def announced(task, folder, *, quiet=False, as_json=False):
    config = ConfigDict({"task": "embed"})
    what = "what it does."
    run_announced(task, config, folder, what=what, quiet=quiet, as_json=as_json)


def test_the_first_and_the_last_lines(task, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    announced(task, tmp_path)
    first, *_, page, hint, _, last = capsys.readouterr().out.splitlines()
    assert first == f"embed: what it does. Results go to {tmp_path}"
    assert page == "see report.html"
    assert hint == f"next: multigrain search PHOTO {tmp_path}"
    assert last == f"      multigrain browse {tmp_path}"


def test_quiet_is_warnings_alone(task, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("multigrain_jax.progress._Asked.quiet", False)
    announced(task, tmp_path, quiet=True)
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "WARNING: look out\n")


def test_quiet_keeps_photos_that_cannot_be_read(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("multigrain_jax.progress._Asked.quiet", False)
    announced(lambda *_: {"num_unreadable": 0}, tmp_path, quiet=True)
    announced(lambda *_: {"num_unreadable": 2}, tmp_path, quiet=True)
    warning = "WARNING: unreadable photos: 2; skipped.txt says why\n"
    assert capsys.readouterr().err == warning


@pytest.mark.parametrize("quiet", [False, True])
def test_results_are_one_object(task, tmp_path, monkeypatch, capsys, quiet):
    monkeypatch.setattr("multigrain_jax.progress._Asked.quiet", False)
    announced(task, tmp_path, quiet=quiet, as_json=True)
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"num_images": 3, "seconds": 0.5}
    assert "WARNING: look out\n" in printed.err
    assert ("a line\n" in printed.err) is not quiet


@pytest.mark.parametrize("quiet", [False, True])
@pytest.mark.parametrize("as_json", [False, True])
def test_a_server_prints_its_address_at_once(
    tmp_path, monkeypatch, capsys, quiet, as_json
):
    monkeypatch.setattr("multigrain_jax.progress._Asked.quiet", False)
    seen = []

    def serve(config, workdir):
        print("3 photos")
        tell_result("address", "http://127.0.0.1:8000")
        seen.extend(capsys.readouterr().out.splitlines())
        return {}

    announced(serve, tmp_path, quiet=quiet, as_json=as_json)
    if as_json:
        assert json.loads("".join(seen)) == {"address": "http://127.0.0.1:8000"}
    else:
        assert seen[-1] == "http://127.0.0.1:8000"
        assert (len(seen) == 1) == quiet
    assert (capsys.readouterr().out == "") == (quiet or as_json)


def test_an_older_page_is_not_pointed_at(tmp_path):
    page = tmp_path / "report.html"
    page.touch()
    os.utime(page, (1000, 1000))
    assert epilogue("whiten", tmp_path, database=None, since=2000) == [
        f"next: multigrain embed PHOTOS --init-from {tmp_path}"
    ]


def test_what_was_trained_without_classes_is_not_asked_for_them(tmp_path):
    lines = epilogue("train", tmp_path, database=None, since=0.0, names=False)
    assert lines == [f"next: multigrain embed PHOTOS --init-from {tmp_path}"]


def test_addresses_in_buckets_stay_as_they_are():
    lines = epilogue("embed", "gs://bucket/run", database=None, since=0.0)
    assert lines[0] == "next: multigrain search PHOTO gs://bucket/run"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_null(value, tmp_path, capsys):
    announced(lambda *_: {"loss": value}, tmp_path, as_json=True)
    assert json.loads(capsys.readouterr().out) == {"loss": None}


def test_descriptors_made_otherwise_are_searched_where_they_are(tmp_path):
    inside = tmp_path / "resnet18-96-0123abcd"
    inside.mkdir()
    for place, moment in ((tmp_path, 1000), (inside, 2000)):
        (place / "results.json").touch()
        os.utime(place / "results.json", (moment, moment))
    for since, place in ((1500, inside), (2500, tmp_path)):
        lines = epilogue("embed", tmp_path, database=None, since=since)
        assert lines[0] == f"next: multigrain search PHOTO {place}"


def test_a_folder_of_photos_is_to_be_embedded(tmp_path):
    photos = str(tmp_path)
    lines = epilogue("near_duplicates", Path("/w"), database=photos, since=0.0)
    assert lines == [f"next: multigrain embed {photos} --init-from CHECKPOINT"]
    (tmp_path / "descriptors").mkdir()
    (tmp_path / "descriptors" / "descriptors.json").touch()
    lines = epilogue("near_duplicates", Path("/w"), database=photos, since=0.0)
    assert lines == [f"next: multigrain browse {photos}"]


@pytest.mark.parametrize("name", NEXT)
def test_what_is_to_be_tried_next_is_a_command(name):
    assert name in TASKS
    lines = epilogue(name, Path("/a b"), database="/c d", since=0.0)
    assert lines[0].startswith("next: ")
    for line in lines:
        program, command, *words = shlex.split(line.removeprefix("next: "))
        assert program == "multigrain"
        assert translate(command, COMMANDS[command], words)
        assert {"/a b", "/c d", "CHECKPOINT"} & set(words)


def test_a_run_on_one_host_looks_for_no_devices(task, tmp_path, monkeypatch, capsys):
    """Finding duplicates without a network takes no hold of a GPU."""
    monkeypatch.setattr(jax, "process_index", lambda: pytest.fail("devices"))
    announced(task, tmp_path)
    assert "next: multigrain search PHOTO" in capsys.readouterr().out
