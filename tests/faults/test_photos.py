"""Folders of odd photos, through the tasks: nothing is lost, and nothing is silent."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.configs import small_eval_config
from PIL import Image

from configs import embed, eval_imagenet, search
from multigrain_jax.data.decoding import VIEWER
from multigrain_jax.descriptors.index import DescriptorIndex
from multigrain_jax.inference import load_model
from multigrain_jax.tasks import embed as embed_task
from multigrain_jax.tasks import search as search_task

CASES = Path(__file__).parents[1] / "cases"
NOTED = {
    "anim.webp": "the first frame that is not plain is shown, 2 of 3",
    "badcrc_text.png": "read, parts beside its pixels are damaged",
    "badicc.jpg": "its colour profile cannot be used",
    "eoi_missing.jpg": "read, end missing",
    "grey12in16.png": "uses a sixteenth of its range",
}


def embed_config(root, checkpoint, **changes):
    config = small_eval_config(embed.get_config, root, checkpoint)
    config.descriptor_dtype = "float32"
    config.update(changes)
    return config


@pytest.fixture(scope="module")
def embedded(tmp_path_factory, tiny_checkpoint):
    """The cases and what is passed over beside them, embedded; root and workdir."""
    folder = tmp_path_factory.mktemp("odd")
    root = folder / "photos"
    shutil.copytree(CASES, root / "cases")
    for name in ("cases/1.mov", "cases/2.mov", "cases/._1.jpg", "@eaDir/1.jpg"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).touch()
    (root / "empty").mkdir()
    embed_task.run(embed_config(root, tiny_checkpoint), folder / "workdir")
    return root, folder / "workdir"


def lines(path):
    return path.read_text(encoding="utf-8").splitlines()


def descriptors_of(workdir):
    index = DescriptorIndex.open(workdir)
    rows = np.flatnonzero(index.live)
    names = [Path(path).name for path in index.paths(rows)]
    return dict(zip(names, index.read(0, len(index))[rows], strict=True))


def test_all_that_can_be_read_is_embedded_and_the_rest_is_listed(embedded):
    root, workdir = embedded
    found = descriptors_of(workdir)
    assert set(found) == {path.name for path in CASES.iterdir()} - {"trunc.jpg"}
    (skipped,) = lines(workdir / "skipped.txt")
    assert skipped.startswith(f"{root}/cases/trunc.jpg: ") and "truncated" in skipped
    notes = lines(workdir / "notes.txt")
    for name, note in NOTED.items():
        assert sum(f"/{name}: {note}" in line for line in notes) == 1
    over = [
        f"{root}: passed over 2 .mov: videos: save pictures of them",
        f"{root}: passed over 1 .* (data.exclude)",
        f"{root}: passed over 1 @eaDir (data.exclude)",
        f"{root}: passed over the folder 'empty': no image in it; remove it, or "
        "convert what it holds",
    ]
    assert [line for line in notes if "passed over" in line] == over
    assert len(notes) == len(over) + len(NOTED)
    results = json.loads((workdir / "results.json").read_text())
    assert results["num_images"] == len(found) and results["num_unreadable"] == 1
    assert results["num_notes"] == len(notes) and results["passed_over"] == over


def test_the_same_photo_has_the_same_descriptor_whatever_it_is_stored_as(embedded):
    found = descriptors_of(embedded[1])
    for name in ("UPPER.JPEG", "double_exif.jpg", "orient9.jpg", "other.jpe"):
        assert found[name] @ found["plain.jpg"] > 0.9999
    for name in ("gps00.jpg", "exif_badoffset.jpg", "orient_ascii.jpg"):
        np.testing.assert_array_equal(found[name], found["orient6.jpg"])
    assert found["logo_rgba.png"] @ found["logo_white.jpg"] > 0.999
    assert found["rgb16.png"] @ found["other.bmp"] > 0.9999


def test_preprocess_sees_what_embed_sees(embedded, tiny_checkpoint):
    model, found = load_model(tiny_checkpoint), descriptors_of(embedded[1])
    for name in ("logo_rgba.png", "png_exif6.png", "anim.webp", "eoi_missing.jpg"):
        with Image.open(CASES / name) as image:
            pixels = model.preprocess(image, 48, "rect")
        own = np.asarray(model(pixels[None]).normalized_embedding[0])
        assert own @ found[name] > 0.9999, name


def test_queries_are_decoded_as_their_database(embedded, tmp_path):
    root, workdir = embedded
    config = search.get_config()
    config.update({"database": str(workdir), "queries": str(root), "num_neighbours": 3})
    results = search_task.run(config, tmp_path / "found")
    assert results["num_queries"] == len(descriptors_of(workdir))
    notes = [lines(folder / "notes.txt") for folder in (tmp_path / "found", workdir)]
    assert sorted(notes[0]) == sorted(notes[1])
    found = descriptors_of(workdir)
    table = lines(tmp_path / "found" / "results.csv")
    first = {Path(row.split(",")[0]).name: row for row in reversed(table[1:])}
    nearest = first["logo_rgba.png"].split(",")
    assert Path(nearest[2]).name == "logo_white.jpg"
    expected = found["logo_rgba.png"] @ found["logo_white.jpg"]
    assert float(nearest[3]) == pytest.approx(float(expected), abs=1e-4)


def test_the_record_of_the_decoding_stands_with_the_descriptors(
    embedded, tiny_checkpoint, tmp_path, capsys
):
    root, workdir = embedded
    copy = tmp_path / "copy"
    shutil.copytree(workdir, copy)
    head = copy / "descriptors" / "descriptors.json"
    values = json.loads(head.read_text())
    assert values["decoding"] == dataclasses.replace(VIEWER, fast=True).record()
    other = embed_config(root, tiny_checkpoint, data={"background": "black"})
    embed_task.run(other, copy)
    said = capsys.readouterr().out
    assert "made otherwise: these go to" in said
    assert "(what differs: decoding)\n" in said
    assert json.loads(head.read_text()) == values
    (apart,) = copy.glob("*/descriptors/descriptors.json")
    assert "#000000" in json.loads(apart.read_text())["decoding"]


def test_an_older_folder_goes_on_as_it_began(tiny_checkpoint, tmp_path, capsys):
    root, workdir = tmp_path / "photos", tmp_path / "workdir"
    root.mkdir()
    shutil.copy(CASES / "plain.jpg", root)
    as_before = {"decoding": "upright", "decode": "exact"}
    embed_task.run(embed_config(root, tiny_checkpoint, data=as_before), workdir)
    head = workdir / "descriptors" / "descriptors.json"
    values = json.loads(head.read_text())
    assert values.pop("decoding") == "upright"
    # As it was written before there was a record, and before digests.
    for name in ("digest", "shards", "blocks", "blocks_before", "roots"):
        values.pop(name, None)
    head.write_text(json.dumps({**values, "format_version": 1}))
    shutil.copy(CASES / "logo_rgba.png", root)
    embed_task.run(embed_config(root, tiny_checkpoint), workdir)
    assert "photos are decoded as 'upright' has it" in capsys.readouterr().out
    assert json.loads(head.read_text())["decoding"] is None
    drawing = descriptors_of(workdir)["logo_rgba.png"]
    # Black on black, as it always was there; and so a query is.
    black = tmp_path / "black.png"
    Image.new("RGB", (96, 64)).save(black)
    config = search.get_config()
    config.update({"database": str(workdir), "queries": str(black)})
    search_task.run(config, tmp_path / "found")
    row = lines(tmp_path / "found" / "results.csv")[1].split(",")
    assert Path(row[2]).name == "logo_rgba.png" and float(row[3]) > 0.999
    assert np.isfinite(drawing).all()
    viewer = embed_config(root, tiny_checkpoint, data={"decoding": "viewer"})
    embed_task.run(viewer, workdir)
    assert "made otherwise: these go to" in capsys.readouterr().out
    assert json.loads(head.read_text())["decoding"] is None


def test_a_folder_that_cannot_be_listed_does_not_end_embed(
    tiny_checkpoint, tmp_path, monkeypatch
):
    import os

    root = tmp_path / "photos"
    (root / "a").mkdir(parents=True)
    (root / "locked").mkdir()
    shutil.copy(CASES / "plain.jpg", root / "a")
    scandir = os.scandir

    def refuse(path="."):
        if os.path.basename(path) == "locked":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    results = embed_task.run(embed_config(root, tiny_checkpoint), tmp_path / "w")
    assert results["num_images"] == 1
    (note,) = lines(tmp_path / "w" / "notes.txt")
    assert "the folder 'locked', which cannot be listed: Permission denied" in note


def test_a_thousand_bombs_are_a_thousand_counted_skips(tiny_checkpoint, tmp_path):
    import resource
    import struct
    import zlib

    root = tmp_path / "photos"
    root.mkdir()
    shutil.copy(CASES / "plain.jpg", root)
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 16, 6, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n"
    for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(9999)))):
        check = struct.pack(">I", zlib.crc32(kind + body))
        bomb += struct.pack(">I", len(body)) + kind + body + check
    for number in range(1000):
        (root / f"{number}.png").write_bytes(bomb)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    results = embed_task.run(embed_config(root, tiny_checkpoint), tmp_path / "w")
    assert results["num_images"] == 1 and results["num_unreadable"] == 1000
    assert len(lines(tmp_path / "w" / "skipped.txt")) == 1000
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 1 << 20  # KiB; one of the pictures has 20 GB


def test_imagenet_keeps_the_plain_decoding():
    from multigrain_jax.tasks.inputs import data_set_from_config

    config = eval_imagenet.get_config().to_dict()
    assert data_set_from_config(config).decoding.pixels == "plain"
