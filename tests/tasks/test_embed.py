"""The task `embed`: equal to photos one by one, whatever the folder goes through."""

import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from helpers.configs import small_eval_config
from helpers.descriptors import stored_descriptors
from helpers.photos import noise_photo
from PIL import Image

import multigrain_jax
from configs import embed
from multigrain_jax.descriptors.folder import (
    OK,
    REPLACED,
    VANISHED,
    read_head,
    shard_path,
)
from multigrain_jax.descriptors.index_file import read_index
from multigrain_jax.descriptors.writer import DescriptorWriter
from multigrain_jax.errors import InputError
from multigrain_jax.tasks import embed as run_module
from multigrain_jax.tasks.embed import run


@pytest.fixture
def photos(photo_folder, tmp_path):
    """A folder of its own, with a photo on its side and two bad files."""
    root = tmp_path / "photos"
    shutil.copytree(photo_folder, root)
    exif = Image.Exif()
    exif[0x0112] = 6
    sideways = noise_photo(0, (60, 40), brightest=256)
    sideways.save(root / "sideways.jpg", exif=exif, quality=95)
    (root / "empty.jpg").write_bytes(b"")
    whole = (root / "sideways.jpg").read_bytes()
    (root / "train" / 'cut, "off".jpg').write_bytes(whole[: len(whole) // 2])
    return root


make_config = partial(
    small_eval_config,
    embed.get_config,
    rows_per_shard=5,
    descriptor_dtype="float32",
)


def statuses(workdir):
    folder = workdir / "descriptors"
    rows = read_index(folder, read_head(folder).num_rows)
    return [(os.path.basename(row.image.path), row.status) for row in rows]


def contents(workdir):
    folder = workdir / "descriptors"
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("mode", ["rect", "square"])
def test_descriptors_equal_those_of_photos_one_by_one(
    photos, tiny_checkpoint, tmp_path, mode
):
    results = run(make_config(photos, tiny_checkpoint, test_mode=mode), tmp_path / "w")
    assert json.loads((tmp_path / "w" / "results.json").read_text()) == results
    assert results["num_images"] == 19
    assert results["num_unreadable"] == 2
    model = multigrain_jax.load_model(tiny_checkpoint)
    found = stored_descriptors(tmp_path / "w")
    assert len(found) == 19
    for path, descriptor in found.items():
        with Image.open(path) as photo:
            pixels = model.preprocess(photo, 48, mode)
        expected = model(pixels[None]).normalized_embedding[0]
        np.testing.assert_allclose(descriptor, expected, atol=2e-6)
    bad = {name: status for name, status in statuses(tmp_path / "w") if status != OK}
    assert bad.keys() == {"empty.jpg", 'cut, "off".jpg'}
    assert "empty file" in bad["empty.jpg"]
    skipped = (tmp_path / "w" / "skipped.txt").read_text().splitlines()
    assert sorted(line.split("/")[-1].split(":")[0] for line in skipped) == sorted(bad)


def test_a_second_run_embeds_only_what_is_new(photos, tiny_checkpoint, tmp_path):
    config, workdir = make_config(photos, tiny_checkpoint), tmp_path / "w"
    run(config, workdir)
    before = contents(workdir)
    assert run(config, workdir)["num_new"] == 0
    assert contents(workdir) == before
    old = statuses(workdir)

    shutil.copy(photos / "sideways.jpg", photos / "new.jpg")
    (photos / "empty.jpg").unlink()
    shutil.copy(photos / "sideways.jpg", photos / "train" / 'cut, "off".jpg')
    results = run(config, workdir)
    assert results["num_new"] == 2
    assert results["num_images"] == 21
    assert results["num_unreadable"] == 0
    assert results["num_outdated"] == 2
    changed = {"empty.jpg": VANISHED, 'cut, "off".jpg': REPLACED}
    assert statuses(workdir)[: len(old)] == [
        (name, changed.get(name, status)) for name, status in old
    ]
    assert sorted(statuses(workdir)[len(old) :]) == [
        ('cut, "off".jpg', OK),
        ("new.jpg", OK),
    ]
    first = np.load(shard_path(workdir / "descriptors", 0))
    assert first.tobytes() in before["shard-00000.npy"]


def test_another_size_goes_to_a_folder_of_its_own(
    photos, tiny_checkpoint, tmp_path, capsys
):
    workdir, size = tmp_path / "w", {"test_size": 64}
    run(make_config(photos, tiny_checkpoint), workdir)
    before = contents(workdir)
    assert run(make_config(photos, tiny_checkpoint, **size), workdir)["num_new"] == 21
    assert contents(workdir) == before
    digest = read_head(workdir / "descriptors").settings.model_digest
    other = workdir / f"tiny-64-{digest[:8]}"
    assert f"these go to {other}" in capsys.readouterr().out
    assert read_head(other / "descriptors").settings.test_size == 64
    assert (other / "results.json").exists()
    assert run(make_config(photos, tiny_checkpoint, **size), workdir)["num_new"] == 0
    # The name does not tell these two apart.
    square = make_config(photos, tiny_checkpoint, test_mode="square", **size)
    assert run(square, workdir)["num_new"] == 21
    assert (workdir / f"tiny-64-{digest[:8]}-2" / "descriptors").is_dir()


def test_a_second_root_is_added_and_nothing_of_the_first_is_gone(
    photos, tiny_checkpoint, tmp_path
):
    more, workdir = tmp_path / "photos more", tmp_path / "w"
    shutil.copytree(photos / "train", more)
    run(make_config(photos, tiny_checkpoint), workdir)
    results = run(make_config(more, tiny_checkpoint), workdir)
    assert (results["num_images"], results["num_outdated"]) == (37, 0)
    assert read_head(workdir / "descriptors").roots == (str(photos), str(more))
    (more / 'cut, "off".jpg').unlink()
    results = run(make_config(more, tiny_checkpoint), workdir)
    assert (results["num_new"], results["num_outdated"]) == (0, 1)
    # A part of a folder says nothing of the others.
    (photos / "val").mkdir()
    shutil.copy(photos / "sideways.jpg", photos / "val")
    config = make_config(photos, tiny_checkpoint, data={"split": "val"})
    results = run(config, workdir)
    assert (results["num_new"], results["num_outdated"]) == (1, 1)


def test_a_moved_collection_keeps_its_descriptors(photos, tiny_checkpoint, tmp_path):
    run(make_config(photos, tiny_checkpoint), tmp_path / "w")
    before = stored_descriptors(tmp_path / "w")
    moved = photos.rename(tmp_path / "elsewhere")
    results = run(make_config(moved, tiny_checkpoint), tmp_path / "w")
    assert (results["num_new"], results["num_outdated"]) == (0, 0)
    after = stored_descriptors(tmp_path / "w")
    assert {path.replace(str(moved), str(photos)) for path in after} == before.keys()
    assert all(os.path.exists(path) for path in after)


def test_what_could_not_be_read_once_is_read_by_the_next_run(
    photos, tiny_checkpoint, tmp_path, monkeypatch
):
    config, read_bytes = make_config(photos, tiny_checkpoint), Path.read_bytes

    def refuse(path):
        if path.name == "sideways.jpg":
            raise PermissionError(13, "Permission denied")
        return read_bytes(path)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", refuse)
        assert run(config, tmp_path / "w")["num_unreadable"] == 3
        assert run(config, tmp_path / "w")["num_new"] == 0
    results = run(config, tmp_path / "w")
    assert (results["num_new"], results["num_unreadable"]) == (1, 2)
    assert run(config, tmp_path / "w")["num_new"] == 0


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("descriptor_dtype", "int8", "found 'int8', expected one of float32, float16"),
        ("rows_per_shard", 0, "rows_per_shard: found 0"),
        ("pooling_exponent", (1.0, 2.0), "pooling_exponent: found several"),
        ("test_size", (64, 48, 64), r"48, 64\), expected different ones"),
        ("init_from", None, "init_from: found nothing"),
    ],
)
def test_configs_that_cannot_work_are_refused(
    photos, tiny_checkpoint, tmp_path, key, value, message
):
    config = make_config(photos, tiny_checkpoint)
    with config.ignore_type():
        config[key] = value
    with pytest.raises(InputError, match=message):
        run(config, tmp_path / "w")


KILLED = """
import os, random, signal, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import jax
jax.config.update("jax_compilation_cache_dir", sys.argv[5])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
from configs import embed
from multigrain_jax.tasks import embed as run_embed

class Slow(run_embed.DescriptorWriter):
    def add(self, *arguments):
        print("a batch", flush=True)
        super().add(*arguments)
        time.sleep(0.02)

def run():
    run_embed.DescriptorWriter = Slow
    config = embed.get_config()
    config.init_from, config.data.root = sys.argv[2], sys.argv[3]
    config.test_size, config.batch_size, config.rows_per_shard = 48, 8, 5
    run_embed.run(config, Path(sys.argv[4]))

# Everything is imported once; a child of this process is killed within a batch.
rng = random.Random(0)
for _ in range(10):
    said, saying = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.dup2(saying, 1)
            run()
        finally:
            os._exit(1)
    os.close(saying)
    with open(said) as lines:
        while (line := lines.readline()) != "a batch\\n":
            assert line, "it ended before its first batch"
        time.sleep(rng.uniform(0, 0.12))
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
"""


def test_two_at_once_leave_what_one_does(photos, tiny_checkpoint, tmp_path):
    config = make_config(photos, tiny_checkpoint)
    run(config, tmp_path / "one")
    refused = []

    class Meeting(DescriptorWriter):
        def add(self, *arguments):
            """Another one starts between any two batches."""
            super().add(*arguments)
            with pytest.raises(InputError, match=f"in use by process {os.getpid()}"):
                run(config, tmp_path / "two")
            refused.append(arguments)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(run_module, "DescriptorWriter", Meeting)
        run(config, tmp_path / "two")
    assert len(refused) >= 3
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


@pytest.mark.slow
def test_ten_kills_change_no_byte(photos, tiny_checkpoint, tmp_path):
    for number in range(300):
        photo = next((photos / "train").rglob("0.png"))
        shutil.copy(photo, photos / f"more{number}.png")
    repository = os.path.dirname(os.path.dirname(multigrain_jax.__file__))
    cut = tmp_path / "cut"
    arguments = (repository, tiny_checkpoint, photos, cut, tmp_path / "compiled")
    subprocess.run([sys.executable, "-c", KILLED, *map(str, arguments)], check=True)
    before = len(statuses(cut))
    assert 0 < before < 321
    config = make_config(photos, tiny_checkpoint, descriptor_dtype="float16")
    assert run(config, cut)["num_new"] == 321 - before
    run(config, tmp_path / "whole")
    assert contents(cut) == contents(tmp_path / "whole")


def test_several_sizes_are_averaged_and_kept_apart(photos, tiny_checkpoint, tmp_path):
    workdir = tmp_path / "w"
    config = make_config(photos, tiny_checkpoint, test_size=(64, 48))
    results = run(config, workdir)
    assert (results["num_images"], results["num_unreadable"]) == (19, 2)
    # Each bad file is told of once.
    assert len((workdir / "skipped.txt").read_text().splitlines()) == 2
    model = multigrain_jax.load_model(tiny_checkpoint)
    for path, descriptor in stored_descriptors(workdir).items():
        total = np.zeros_like(descriptor)
        with Image.open(path) as photo:
            for size in (48, 64):
                pixels = model.preprocess(photo, size, "rect")
                total += np.asarray(model(pixels[None]).embedding[0])
        expected = total / np.linalg.norm(total)
        np.testing.assert_allclose(descriptor, expected, atol=2e-6)
    settings = read_head(workdir / "descriptors").settings
    assert (settings.test_size, settings.test_sizes) == (64, (48, 64))
    # The order of the sizes is no other way to make them.
    before = contents(workdir)
    assert run(config, workdir)["num_new"] == 0
    other = make_config(photos, tiny_checkpoint, test_size=[48, 64])
    assert run(other, workdir)["num_new"] == 0
    assert contents(workdir) == before
    # One of them is: it goes to a folder of its own.
    run(make_config(photos, tiny_checkpoint, test_size=64), workdir)
    assert contents(workdir) == before
    (own,) = (path.parent for path in workdir.glob("tiny-64-*/descriptors"))
    assert read_head(own / "descriptors").settings.test_sizes == ()


def test_at_several_sizes_a_run_goes_on_with_the_same_bits(
    photos, tiny_checkpoint, tmp_path, monkeypatch
):
    config = make_config(photos, tiny_checkpoint, test_size=(64, 40))
    run(config, tmp_path / "whole")
    real = run_module.embed_plan

    def cut_off(*args, **options):
        batches = real(*args, **options)
        yield next(batches)
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "embed_plan", cut_off)
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "cut")
    monkeypatch.undo()
    assert 0 < run(config, tmp_path / "cut")["num_new"] < 21
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
