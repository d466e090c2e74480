"""Descriptors in a bucket are opened as those of a folder, of one complete state."""

import json

import numpy as np
import pytest
from helpers.descriptor_folders import SETTINGS, embed, stamps

from multigrain_jax import bucket_copies
from multigrain_jax.descriptors.folder import DESCRIPTOR_FOLDER, HEAD_FILE, INDEX_FILE
from multigrain_jax.descriptors.in_bucket import on_this_machine
from multigrain_jax.descriptors.index import DescriptorIndex
from multigrain_jax.errors import InputError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MULTIGRAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(bucket_copies, "PAUSE_S", 0.0)


@pytest.fixture
def run(tmp_path):
    """A workdir of `embed`."""
    embed(tmp_path / "run" / DESCRIPTOR_FOLDER, stamps(12))
    (tmp_path / "run" / "config.json").write_text("{}")
    (tmp_path / "run" / "report.html").write_text("a page")
    return tmp_path / "run"


def contents(index):
    rows = np.flatnonzero(index.live)
    return index.paths(rows), index.read(0, len(index)).tolist()


@pytest.mark.parametrize("scheme", ["gcs", "s3"])
def test_a_workdir_and_its_folder_are_opened(run, scheme, request):
    bucket = request.getfixturevalue(scheme)
    bucket.put_folder(run, "some/run")
    expected = contents(DescriptorIndex.open(run))
    for place in ("some/run", f"some/run/{DESCRIPTOR_FOLDER}", "some/run/"):
        index = DescriptorIndex.open(bucket.url() + "/" + place)
        index.verify()
        assert contents(index) == expected
        folder = index.opened.folder
        assert str(folder) == bucket.url(f"some/run/{DESCRIPTOR_FOLDER}")
        assert json.loads((folder.parent / "config.json").read_text()) == {}
        assert not (folder.parent / "report.html").exists()


def test_of_several_settings_the_newest_is_copied_and_said(run, gcs, capsys, tmp_path):
    other = SETTINGS._replace(test_size=32)
    embed(tmp_path / "other" / DESCRIPTOR_FOLDER, stamps(6), settings=other)
    gcs.put_folder(run, "run")
    gcs.put_folder(tmp_path / "other", "run/tiny-32")
    index = DescriptorIndex.open(gcs.url("run"))
    assert index.settings == other
    said = capsys.readouterr().out
    newest = f"{gcs.url('run/tiny-32')} (tiny, 32 pixels) is opened, the newest"
    assert f"{newest}; others are {gcs.url('run/descriptors')} (tiny, 64" in said
    # Of others the shards come when they are asked for.
    index = DescriptorIndex.open(gcs.url("run"), fits=lambda made: made == SETTINGS)
    assert contents(index) == contents(DescriptorIndex.open(run))
    index = DescriptorIndex.open(gcs.url(f"run/{DESCRIPTOR_FOLDER}"))
    assert index.settings == SETTINGS


def test_a_folder_that_grows_meanwhile_is_one_of_its_states(run, gcs, tmp_path):
    gcs.put_folder(run, "run")
    before = contents(DescriptorIndex.open(gcs.url("run")))
    embed(run / DESCRIPTOR_FOLDER, stamps(30))
    after = contents(DescriptorIndex.open(run))
    # What a head names is there before the head.
    parts = sorted((run / DESCRIPTOR_FOLDER).iterdir())
    for path in sorted(parts, key=lambda path: path.name == HEAD_FILE):
        gcs.put(f"run/{DESCRIPTOR_FOLDER}/{path.name}", path.read_bytes())
        found = contents(DescriptorIndex.open(gcs.url("run")))
        assert found == (after if path.name == HEAD_FILE else before)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("no head", r"gs://\S+/run\S*: a folder of descriptors was expected.*gs://"),
        ("no index", r"gs://\S+/index.csv"),
        ("cut shard", r"gs://\S+/shard-00000.npy: \d+ bytes found"),
        ("nothing", r"gs://\S+/nothing\S*: a folder of descriptors was expected"),
    ],
)
def test_damage_is_told_of_the_address(run, gcs, damage, message):
    gcs.put_folder(run, "run")
    folder = f"run/{DESCRIPTOR_FOLDER}"
    if damage == "cut shard":
        gcs.put(f"{folder}/shard-00000.npy", b"cut")
    elif damage != "nothing":
        gcs.delete(f"{folder}/{HEAD_FILE if damage == 'no head' else INDEX_FILE}")
    with pytest.raises(InputError, match=message) as caught:
        DescriptorIndex.open(gcs.url("nothing" if damage == "nothing" else "run"))
    assert "cache" not in str(caught.value)


def test_a_path_of_this_machine_stays_as_it_is(tmp_path):
    assert on_this_machine(tmp_path) == tmp_path
