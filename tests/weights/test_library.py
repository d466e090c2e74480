"""A name becomes a checkpoint once: downloaded, converted, verified and kept."""

import functools
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import multigrain_jax
from configs import embed, eval_retrieval
from multigrain_jax import weights
from multigrain_jax.checkpoint import load_checkpoint
from multigrain_jax.convert import convert
from multigrain_jax.errors import InputError
from multigrain_jax.tasks import embed as run_embed
from multigrain_jax.tasks import eval_retrieval as run_eval_retrieval
from multigrain_jax.train.resume import Resume
from multigrain_jax.train.start import Beginning, start_state
from multigrain_jax.weights import find_weights, is_name, keep_weights, library
from multigrain_jax.weights.download import Patience, download
from multigrain_jax.weights.table import PUBLISHED

NAME = "tiny-1K"
HURRIED = Patience(timeout_s=20.0, attempts=1, wait_s=0.0)
TWO = """
import sys
from multigrain_jax.tasks import embed as run_embed
from multigrain_jax.tasks import eval_retrieval as run_eval_retrieval
from multigrain_jax.train.start import Beginning, start_state
from multigrain_jax.weights import find_weights
from multigrain_jax.weights.table import PUBLISHED, PublishedWeights
root, name = sys.argv[1:]
PUBLISHED[name] = PublishedWeights(
    address=root + "tiny-file.safetensors", backbone="tiny", licence="none",
    results={}, test_size=96, test_mode="rect",
)
print("ready", flush=True)
print(find_weights(name, trusted=[root]), flush=True)
"""


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    hurried = functools.partial(download, patience=HURRIED)
    monkeypatch.setattr(library, "download", hurried)


def test_a_name_is_downloaded_once_and_kept(
    publish, cache, capsys, tiny_checkpoint, weight_file
):
    server = publish(
        NAME,
        pooling_exponent=4.0,
        length=len(weight_file),
        sha256=hashlib.sha256(weight_file).hexdigest()[:8],
    )
    kept = find_weights(NAME, trusted=[server.root])
    assert kept == cache / NAME and len(server.requests) == 1
    said = capsys.readouterr().out
    assert said.count("CC BY-NC 4.0") == said.count(f"{server.root}tiny-file") == 1
    assert said.endswith(f"{NAME}: kept in {kept}\n")

    assert find_weights(NAME) == find_weights(Path(NAME)) == kept
    assert len(server.requests) == 1 and capsys.readouterr().out == ""
    assert sorted(os.listdir(cache)) == [f".{NAME}.lock", "downloads", NAME]
    assert os.listdir(cache / "downloads") == []

    found, source = load_checkpoint(kept), load_checkpoint(tiny_checkpoint)
    assert found.digests["model"] == source.digests["model"]
    assert found.meta["published"] == {
        "name": NAME,
        "address": f"{server.root}tiny-file.safetensors",
        "licence": PUBLISHED[NAME].licence,
        "results": {"ImageNet top-1, 224 square": 12.5},
        "search": {"test_size": 96, "test_mode": "rect", "pooling_exponent": 4.0},
    }
    assert found.meta["converted_from"]["file"] == "tiny-file.safetensors"


def test_what_exists_and_what_has_a_separator_is_a_path(publish, cache, tmp_path):
    server = publish(NAME)
    assert is_name(NAME)
    for path in (f"./{NAME}", f"weights/{NAME}", f"{cache}/{NAME}", Path("a") / NAME):
        assert find_weights(path, trusted=[server.root]) == Path(path)
        assert not is_name(path)
    assert find_weights("~") == Path("~")
    (tmp_path / NAME).mkdir()
    assert find_weights(NAME, trusted=[server.root]) == Path(NAME)
    assert not is_name(NAME)
    with pytest.raises(InputError, match="found none; give a workdir"):
        multigrain_jax.load_model(NAME)
    assert server.requests == [] and not cache.exists()


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("joint_3B_0.5.pth", "joint_3B_0.5"),
        ("Joint_3b_1.0", "joint_3B_1.0"),
        ("resnet50", "resnet50-imagenet1k-v[12]"),
        ("quickstart", None),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(cache, name, nearest):
    hint = f"(did you mean {nearest}" if nearest else "; give a workdir"
    hint = hint.replace("(", r"\(")
    with pytest.raises(InputError, match=f"{name} is not there, and .*{hint}"):
        multigrain_jax.load_model(name)
    assert not cache.exists()


def test_the_names_are_listed():
    assert len(weights.names()) == 18
    assert {"joint_3B_0.5", "resnet152-imagenet1k-v2", "senet154-imagenet"} < set(
        weights.names()
    )


def test_offline_there_is_one_error_with_the_way_by_hand(
    publish, cache, tmp_path, weight_file
):
    server = publish(NAME)
    server.codes = [404]
    with pytest.raises(InputError) as caught:
        find_weights(NAME, trusted=[server.root])
    address, file = f"{server.root}tiny-file.safetensors", "tiny-file.safetensors"
    by_hand = cache / "downloads" / file
    first, move, _, convert_line = str(caught.value).splitlines()
    assert first.startswith(f"{NAME}: {address} was not downloaded: the server answer")
    assert convert_line.split() == [
        *("multigrain", "convert"),
        file,
        f"weights/{NAME}",
    ]
    # Both ways work as they are written.
    (tmp_path / file).write_bytes(weight_file)
    convert.convert_checkpoint(*convert_line.split()[2:])
    assert load_checkpoint(f"weights/{NAME}").meta["backbone"] == "tiny"
    assert move.split() == ["mv", file, str(by_hand)]
    subprocess.run(move.split(), check=True)
    assert load_checkpoint(find_weights(NAME)).meta["published"]["name"] == NAME
    assert len(server.requests) == 1


def test_only_https_is_asked_for_a_name(publish):
    server = publish(NAME)
    with pytest.raises(InputError, match="only https:// is taken"):
        find_weights(NAME)
    assert server.requests == []


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"length": 7}, "bytes, expected 7: it is another one"),
        ({"sha256": "00000000"}, "expected 00000000"),
    ],
)
def test_another_file_is_not_converted(publish, cache, columns, message):
    server = publish(NAME, **columns)
    with pytest.raises(InputError, match=message):
        find_weights(NAME, trusted=[server.root])
    assert not (cache / NAME).exists() and os.listdir(cache / "downloads") == []


def test_a_file_that_cannot_be_converted_is_kept_for_the_next_try(publish, cache):
    server = publish(NAME, data=b"no weights")
    for _ in range(2):
        with pytest.raises(InputError, match=r"reading it failed[^$]* kept as") as said:
            find_weights(NAME, trusted=[server.root])
    file = cache / "downloads" / "tiny-file.safetensors"
    assert f"The file is kept as {file}" in str(said.value)
    assert file.exists() and not (cache / NAME).exists() and len(server.requests) == 1


def test_a_killed_conversion_leaves_nothing_in_the_way(publish, cache, monkeypatch):
    server = publish(NAME)

    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(library, "load_checkpoint", stop)
        find_weights(NAME, trusted=[server.root])
    assert not (cache / NAME).exists()
    kept = find_weights(NAME, trusted=[server.root])
    assert load_checkpoint(kept).step == 0 and len(server.requests) == 1
    assert sorted(os.listdir(cache)) == [f".{NAME}.lock", "downloads", NAME]


def test_a_cache_that_cannot_be_written_is_named(publish, cache, monkeypatch):
    server = publish(NAME)
    cache.parent.write_text("a file")
    with pytest.raises(InputError, match=f"{cache}: .* MULTIGRAIN_CACHE"):
        find_weights(NAME, trusted=[server.root])
    monkeypatch.delenv("MULTIGRAIN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parent.parent / "xdg"))
    kept = find_weights(NAME, trusted=[server.root])
    assert kept == cache.parent.parent / "xdg" / "multigrain_jax" / "weights" / NAME


def test_a_copy_of_a_name(publish, cache, tmp_path):
    server = publish(NAME)
    kept = find_weights(NAME, trusted=[server.root])
    assert keep_weights(NAME) == kept
    copy = keep_weights(NAME, "mine")
    assert copy == tmp_path / "mine"
    assert load_checkpoint(copy).digests == load_checkpoint(kept).digests
    with pytest.raises(InputError, match="found checkpoints; choose another"):
        keep_weights(NAME, copy)
    with pytest.raises(InputError, match="found no destination"):
        keep_weights("mine")
    named = rf"\(did you mean {NAME}\?\); give a weight file .* multigrain weights"
    with pytest.raises(InputError, match=named):
        keep_weights(f"{NAME}.pth")


def test_the_tool_takes_a_name_for_a_file(publish, cache, tmp_path, capsys):
    path = Path(__file__).parents[2] / "tools" / "convert_checkpoint.py"
    spec = importlib.util.spec_from_file_location("convert_checkpoint", path)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    server = publish(NAME)
    find_weights(NAME, trusted=[server.root])
    for arguments, place in (([NAME], cache / NAME), ([NAME, "w"], tmp_path / "w")):
        capsys.readouterr()
        assert tool.main(arguments) == 0
        assert capsys.readouterr().out == f"written to {place}\n"
    assert load_checkpoint("w").meta["published"]["name"] == NAME
    for source, message in ((f"{NAME}.pth", f"mean {NAME}?"), ("w", "no destination")):
        assert tool.main([source]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.slow
def test_of_two_processes_one_downloads_and_the_other_waits(publish, cache, tmp_path):
    server = publish(NAME)
    server.held = threading.Event()
    command = [sys.executable, "-c", TWO, server.root, NAME]
    environment = {
        **os.environ,
        "MULTIGRAIN_CACHE": str(cache.parent),
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        "JAX_PLATFORMS": "cpu",
    }

    def start():
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=environment
        )

    with start() as one, start() as two:
        waiting, said = [], {one: "", two: ""}

        def listen(process):
            for line in process.stdout:
                said[process] += line
                if "waiting for process" in line:
                    waiting.append(process)
                    server.held.set()

        listeners = [threading.Thread(target=listen, args=(p,)) for p in (one, two)]
        for listener in listeners:
            listener.start()
        for listener in listeners:
            listener.join()
    assert one.returncode == two.returncode == 0
    assert [text.splitlines()[-1] for text in said.values()] == [str(cache / NAME)] * 2
    (waited,) = waiting
    (fetched,) = {one, two} - {waited}
    assert f"waiting for process {fetched.pid} on " in said[waited]
    assert len(server.requests) == 1 and "downloading" not in said[waited]
    assert load_checkpoint(cache / NAME).step == 0


def test_load_model_takes_a_name(publish, tiny_checkpoint):
    server = publish(NAME)
    find_weights(NAME, trusted=[server.root])
    model = multigrain_jax.load_model(NAME)
    images = np.random.default_rng(0).normal(size=(1, 40, 40, 3)).astype(np.float32)
    want = multigrain_jax.load_model(tiny_checkpoint)(images)
    np.testing.assert_array_equal(model(images).embedding, want.embedding)
    shutil.rmtree(find_weights(NAME))
    with pytest.raises(InputError, match=f"{server.root}.* was not downloaded"):
        multigrain_jax.load_model(NAME)


def test_embed_keeps_the_path_of_a_name(publish, cache, photo_folder, tmp_path):
    server = publish(NAME)
    find_weights(NAME, trusted=[server.root])
    config = embed.get_config()
    config.init_from, config.data.root = NAME, str(photo_folder)
    config.test_size = 40
    run_embed.run(config, tmp_path / "w")
    recorded = json.loads((tmp_path / "w" / "config.json").read_text())
    assert recorded["init_from"] == str(cache / NAME)


def test_retrieval_is_evaluated_with_a_name(publish, photo_folder, tmp_path):
    server = publish(NAME)
    find_weights(NAME, trusted=[server.root])
    config = eval_retrieval.get_config("folder")
    config.init_from, config.data.root = NAME, str(photo_folder / "train")
    config.test_size, config.test_mode, config.batch_size = 40, "square", 8
    scores = run_eval_retrieval.run(config, tmp_path / "w")
    assert 0 < scores["folder/all/map"] <= 1


def test_training_starts_from_a_name(publish, tmp_path):
    server = publish(NAME)
    find_weights(NAME, trusted=[server.root])
    for key in ("init_from", "pretrained_backbone"):
        keys = {"init_from": None, "pretrained_backbone": None, key: NAME}
        beginning = Beginning(
            backbone="resnet18",
            init_step=None,
            init_raw=False,
            resume=Resume(None, False, False, 1, False),
            **keys,
        )
        said = f"{key}: {find_weights(NAME)}/checkpoints/0 is a tiny, and backbone is"
        with pytest.raises(InputError, match=said):
            start_state(
                beginning,
                tmp_path,
                fresh=None,
                tx=None,
                stream=None,
                data=None,
                record={},
                last_step=1,
            )
