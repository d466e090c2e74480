"""Descriptors in a bucket: killed at any request, they are whole and go on."""

import shutil
from functools import partial
from pathlib import Path

import pytest
from helpers.configs import small_eval_config
from helpers.photos import noise_photo

from configs import embed
from multigrain_jax.descriptors.folder import read_head
from multigrain_jax.descriptors.repair import find_sound
from multigrain_jax.descriptors.writer import DescriptorWriter
from multigrain_jax.files import settle
from multigrain_jax.tasks.embed import run
from multigrain_jax.tasks.on_bucket import run_on_bucket

make_config = partial(small_eval_config, embed.get_config, rows_per_shard=5)


@pytest.fixture(autouse=True)
def slow_shards(monkeypatch):
    """As if each shard took longer than the pause between two passes."""
    commit = DescriptorWriter._commit

    def commit_and_upload(self):
        commit(self)
        settle(self._folder)

    monkeypatch.setattr(DescriptorWriter, "_commit", commit_and_upload)


def contents(workdir: Path) -> dict[str, bytes]:
    folder = workdir / "descriptors"
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def in_bucket(state: dict[str, bytes], prefix: str) -> dict[str, bytes]:
    start = f"{prefix}/descriptors/"
    return {n.removeprefix(start): d for n, d in state.items() if n.startswith(start)}


def change(photos: Path) -> None:
    """Some photos go, some are replaced, some are new: the index is written anew."""
    paths = sorted(path for path in photos.rglob("*") if path.is_file())
    paths[0].unlink()
    for number, path in enumerate((paths[1], photos / "new.jpg", photos / "newer.jpg")):
        noise_photo(100 + number, (60, 40), brightest=256).save(path)


def test_after_any_request_descriptors_are_whole(
    gcs, states, photo_folder, tiny_checkpoint, tmp_path, monkeypatch
):
    photos, expected = tmp_path / "photos", []
    shutil.copytree(photo_folder, photos)
    config = make_config(photos, tiny_checkpoint)
    for number in range(2):
        monkeypatch.setenv("MULTIGRAIN_CACHE", str(tmp_path / f"machine{number}"))
        run(config, tmp_path / "local")
        run_on_bucket(run, config, gcs.url("run"))
        expected.append(contents(tmp_path / "local"))
        assert in_bucket(states[-1], "run") == expected[-1]
        change(photos)
        if not number:
            first_run = len(states)
    looked_at = 0
    for number, state in enumerate(states):
        found = in_bucket(state, "run")
        if "descriptors.json" not in found:
            continue
        folder = tmp_path / "states" / str(number)
        folder.mkdir(parents=True)
        for name, data in found.items():
            (folder / name).write_bytes(data)
        assert find_sound(folder, read_head(folder), check_digests=True).damage == []
        looked_at += 1
    assert looked_at > 10 and first_run > 5


def test_a_workdir_of_s3_is_one_too(
    s3, photo_folder, tiny_checkpoint, tmp_path, monkeypatch
):
    config = make_config(photo_folder, tiny_checkpoint)
    run(config, tmp_path / "local")
    for number, expected in enumerate((18, 0)):
        monkeypatch.setenv("MULTIGRAIN_CACHE", str(tmp_path / f"machine{number}"))
        assert run_on_bucket(run, config, s3.url("run"))["num_new"] == expected
    for name, data in contents(tmp_path / "local").items():
        assert s3.data(f"run/descriptors/{name}") == data


def test_an_embed_that_is_killed_goes_on_byte_for_byte(
    gcs, states, photo_folder, tiny_checkpoint, tmp_path, monkeypatch
):
    config = make_config(photo_folder, tiny_checkpoint)
    monkeypatch.setenv("MULTIGRAIN_CACHE", str(tmp_path / "first"))
    run_on_bucket(run, config, gcs.url("run"))
    expected = in_bucket(states[-1], "run")
    half = states[len(states) // 2]
    assert "run/descriptors/descriptors.json" in half
    assert in_bucket(half, "run") != expected
    for name, data in half.items():
        if not name.endswith("/.lock"):
            gcs.put(name.replace("run/", "killed/"), data)
    monkeypatch.setenv("MULTIGRAIN_CACHE", str(tmp_path / "second"))
    results = run_on_bucket(run, config, gcs.url("killed"))
    assert results["num_new"] < results["num_images"]
    assert in_bucket(states[-1], "killed") == expected
