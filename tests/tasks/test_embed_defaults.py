"""What "auto" stands for: size, mode and p of what is to be embedded."""

import os
import shutil
from functools import partial
from types import SimpleNamespace

import pytest
from helpers.configs import small_eval_config
from helpers.descriptor_folders import SETTINGS, stamps
from helpers.descriptor_folders import embed as write

from configs import embed as recipe
from configs import eval_retrieval
from multigrain_jax.checkpoint import CheckpointStore, load_checkpoint
from multigrain_jax.data.decoding import VIEWER
from multigrain_jax.descriptors.folder import HEAD_FILE, DescriptorSettings
from multigrain_jax.errors import InputError
from multigrain_jax.tasks import embed, embed_defaults
from multigrain_jax.tasks import eval_retrieval as run_retrieval
from multigrain_jax.tasks.embed_defaults import AUTO, exponent_asked, settle, size_hint

SEARCH = {"test_size": 400, "test_mode": "square", "pooling_exponent": 2.5}
NOTHING_KNOWN = (500, "rect", 3.0)


def settled(monkeypatch, tmp_path, meta, **given):
    """The size, the mode and p that are taken, of a checkpoint with p = 3."""
    monkeypatch.setattr(
        embed_defaults,
        "open_checkpoint",
        lambda _, *, pooling_exponent, dtype: SimpleNamespace(
            pooling_exponent=pooling_exponent
        ),
    )
    settings = {"test_size": AUTO, "test_mode": AUTO, "pooling_exponent": AUTO}
    settings |= {"compute_dtype": "float32", **given}
    opened = SimpleNamespace(
        checkpoint=SimpleNamespace(meta=meta), pooling_exponent=3.0
    )
    found = settle(settings, opened, tmp_path)
    return settings["test_size"], settings["test_mode"], found.pooling_exponent


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        ({"published": {"name": "x", "search": SEARCH}}, (400, "square", 2.5)),
        (
            {"published": {"search": {**SEARCH, "pooling_exponent": None}}},
            (400, "square", 3.0),
        ),
        ({"config": {"test_size": 64, "test_mode": "square"}}, (64, "rect", 3.0)),
        ({"config": {"test_size": [96, 128]}}, ((96, 128), "rect", 3.0)),
        # Fine-tuned or whitened: the published p is not its own any more.
        (
            {"published": {"name": "x", "search": SEARCH}, "config": {"test_size": 64}},
            (64, "rect", 3.0),
        ),
        ({}, NOTHING_KNOWN),
        ({"config": None, "published": None}, NOTHING_KNOWN),
        ({"config": {}}, NOTHING_KNOWN),
        ({"config": {"test_size": "large"}}, NOTHING_KNOWN),
        ({"config": {"test_size": True}}, NOTHING_KNOWN),
        ({"config": {"test_size": []}}, NOTHING_KNOWN),
        ({"published": {"search": {**SEARCH, "test_size": 3}}}, NOTHING_KNOWN),
        ({"published": {"search": {**SEARCH, "test_mode": "round"}}}, NOTHING_KNOWN),
    ],
)
def test_a_checkpoint_says_how_it_is_asked(meta, expected, monkeypatch, tmp_path):
    assert settled(monkeypatch, tmp_path, meta) == expected


def test_what_is_given_stays(monkeypatch, tmp_path, capsys):
    meta = {"published": {"name": "x", "search": SEARCH}}
    found = settled(monkeypatch, tmp_path, meta, test_size=400)
    assert found == (400, "square", 2.5)
    assert capsys.readouterr().out == (
        "test_mode = square, pooling_exponent = 2.5: what x searches best with\n"
    )
    # Their p is the one of their size.
    found = settled(monkeypatch, tmp_path, meta, test_size=224)
    assert found == (224, "square", 3.0)
    assert capsys.readouterr().out == (
        "test_mode = square, pooling_exponent = 3: what x searches best with, but for "
        "p, which is the checkpoint's at other sizes\n"
    )
    given = {"test_size": 224, "test_mode": "rect", "pooling_exponent": None}
    assert settled(monkeypatch, tmp_path, meta, **given) == (224, "rect", 3.0)
    assert capsys.readouterr().out == ""


def test_descriptors_of_the_same_weights_are_gone_on_with(
    monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(embed_defaults, "model_digest", lambda _: "own")
    meta = {"config": {"test_size": 64}}
    made = SETTINGS._replace(
        model_digest="own", test_mode="square", pooling_exponent=3.0
    )
    other = tmp_path / "tiny-96" / "descriptors"
    write(tmp_path / "descriptors", stamps(2))  # of other weights
    write(tmp_path / "z" / "descriptors", stamps(2))
    (tmp_path / "z" / "descriptors" / HEAD_FILE).write_text("{")
    assert settled(monkeypatch, tmp_path, meta) == (64, "rect", 3.0)
    write(other, stamps(2), settings=made._replace(test_size=96))
    assert settled(monkeypatch, tmp_path, meta) == (96, "square", 3.0)
    assert f"as the descriptors in {other.parent}" in capsys.readouterr().out
    # What "auto" stood for at first goes before what is newer.
    usual = made._replace(test_mode="rect")
    write(tmp_path / "a" / "descriptors", stamps(2), settings=usual)
    os.utime(tmp_path / "a" / "descriptors" / HEAD_FILE, (1, 1))
    assert settled(monkeypatch, tmp_path, meta) == (64, "rect", 3.0)
    # The folder of the workdir itself goes first, though it is older.
    shutil.rmtree(tmp_path / "descriptors")
    write(tmp_path / "descriptors", stamps(2), settings=made._replace(test_size=80))
    os.utime(tmp_path / "descriptors" / HEAD_FILE, (1, 1))
    assert settled(monkeypatch, tmp_path, meta) == (80, "square", 3.0)
    (tmp_path / "descriptors" / HEAD_FILE).write_text("{")
    with pytest.raises(InputError, match="a folder of descriptors was expected"):
        settled(monkeypatch, tmp_path, meta)


@pytest.mark.parametrize(
    ("value", "exponent"),
    [(None, None), ("auto", None), (4, 4.0), ("inf", float("inf"))],
)
def test_a_p_that_is_given_is_a_number(value, exponent):
    assert exponent_asked(value) == exponent


@pytest.mark.parametrize(
    ("made_for", "test_size", "says"),
    [(64, 500, "--config.test_size=64 is likely"), (64, 80, ""), (224, 500, "")],
)
def test_a_size_far_from_the_checkpoints_is_pointed_out(made_for, test_size, says):
    hint = size_hint({"config": {"test_size": made_for}}, test_size)
    assert says in hint and bool(says) == bool(hint)
    # Converted weights come without a config.
    assert size_hint({}, test_size) == ""


EXACT = VIEWER.record()
FAST = f"{EXACT}, fast"


@pytest.mark.parametrize(
    ("before", "decode", "expected"),
    [
        ("nothing", "auto", ("", FAST)),
        (EXACT, "auto", ("", EXACT)),
        (FAST, "auto", ("", FAST)),
        # Older than the record: there is none from now on either.
        (None, "auto", ("", None)),
        (FAST, "exact", ("tiny-64-0123", EXACT)),
        (EXACT, "fast", ("tiny-64-0123", FAST)),
    ],
)
def test_descriptors_go_on_as_photos_were_decoded(
    before, decode, expected, monkeypatch, tmp_path
):
    made = DescriptorSettings(4, "float16", "0123", "tiny", 3.0, 64, "rect", False)
    if before != "nothing":
        folder = tmp_path / "descriptors"
        folder.mkdir()
        (folder / HEAD_FILE).touch()
        head = SimpleNamespace(settings=made._replace(decoding=before))
        monkeypatch.setattr(embed, "read_head", lambda _: head)
    settings = recipe.get_config().to_dict()
    settings["data"]["decode"] = decode
    place, data_set, wanted = embed.place_for(tmp_path, made, settings)
    assert (place, wanted.decoding) == (tmp_path / expected[0], expected[1])
    assert data_set.decoding.fast == (expected[1] == FAST)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("folder", ("auto", "auto", "auto")),
        ("copies", ("auto", "auto", "auto")),
        ("holidays", (500, "rect", None)),
        ("disc21", (500, "rect", None)),
    ],
)
def test_benchmarks_keep_the_published_size(name, expected):
    config = eval_retrieval.get_config(name)
    found = config.test_size, config.test_mode, config.pooling_exponent
    assert found == expected


def test_auto_is_the_size_that_the_network_was_tested_at(
    photo_folder, tiny_checkpoint, tmp_path, capsys
):
    model = load_checkpoint(tiny_checkpoint)
    store = CheckpointStore(tmp_path / "weights")
    made_by = {"test_size": 40, "test_mode": "square"}
    store.save(1, model=model.model, meta=model.meta | {"config": made_by})
    store.close()
    scores = []
    for checkpoint, size in ((tiny_checkpoint, 40), (tmp_path / "weights", "auto")):
        make = partial(eval_retrieval.get_config, "folder")
        root = photo_folder / "train"
        config = small_eval_config(make, root, checkpoint, test_size=size)
        scores.append(run_retrieval.run(config, tmp_path / str(size)))
    assert scores[0]["folder/all/map"] == scores[1]["folder/all/map"]
    said = "test_size = 40, test_mode = rect, pooling_exponent = 3: the size that"
    assert said in capsys.readouterr().out
