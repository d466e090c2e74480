"""Conversion by its tool: what it writes, what it refuses; and damage later."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from multigrain_jax.checkpoint import describe_checkpoint, load_checkpoint
from multigrain_jax.convert.convert import drop_background
from multigrain_jax.convert.keymaps import KEYMAPS
from multigrain_jax.errors import InputError
from multigrain_jax.trees import flatten_nested

TOOL = Path(__file__).parents[2] / "tools" / "convert_checkpoint.py"


@pytest.fixture(scope="module")
def state_dict(state_dict_of):
    return state_dict_of("resnet18")


@pytest.fixture(scope="module")
def converted(state_dict, save_reference, tmp_path_factory):
    """A source and what the command made of it, run as users do: workdir, printed."""
    folder = tmp_path_factory.mktemp("converted")
    source = save_reference(state_dict, folder / "good.pth")
    done = subprocess.run(
        [sys.executable, str(TOOL), str(source), str(folder / "out")],
        capture_output=True,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return source, folder / "out", done.stdout


def test_the_command_prints_a_table(converted):
    for part in ("resnet18", "11,689,512", "whitening", "digest", "keys used"):
        assert part in converted[2]


def test_inspection_gives_the_same_digest(converted):
    digest = re.search(r"^digest +(\w+)$", converted[2], re.MULTILINE)[1]
    assert describe_checkpoint(converted[1]).digest == digest


def test_the_checkpoint_says_where_it_comes_from(converted, state_dict):
    checkpoint = load_checkpoint(converted[1])
    assert checkpoint.step == 0
    assert checkpoint.model["params"]["margin"]["beta"] == np.float32(0.625)
    assert checkpoint.meta["backbone"] == "resnet18"
    origin = checkpoint.meta["converted_from"]
    assert "CC BY-NC" in origin["licence"] and len(origin["sha256"]) == 64
    assert (origin["pooling_exponent"], origin["whitened"]) == (3.0, False)
    assert origin["beta"] == 0.625
    kernel = checkpoint.model["params"]["trunk"]["conv1"]["kernel"]
    np.testing.assert_array_equal(
        kernel, state_dict["features.conv1.weight"].transpose(2, 3, 1, 0)
    )


def test_a_destination_in_use_is_refused(converted, run_tool, tmp_path):
    source, workdir, _ = converted
    code, _, error = run_tool("convert_checkpoint", source, workdir)
    assert code == 2 and "choose another" in error
    (tmp_path / "file").write_text("kept")
    code, _, error = run_tool("convert_checkpoint", source, tmp_path / "file")
    assert code == 2 and "found a file" in error
    assert (tmp_path / "file").read_text() == "kept"


def test_a_bare_state_dict_and_its_backbone_by_hand(
    torch, state_dict, run_tool, tmp_path
):
    tensors = {k: torch.from_numpy(np.asarray(v)) for k, v in state_dict.items()}
    torch.save(tensors, tmp_path / "bare.pth")
    arguments = tmp_path / "bare.pth", tmp_path / "out", "--backbone"
    code, _, error = run_tool("convert_checkpoint", *arguments, "resnet50")
    assert code == 2 and "does not fit resnet50" in error and "resnet18" in error
    code, _, error = run_tool("convert_checkpoint", *arguments, "resnet51")
    assert code == 2 and "expected one of resnet18" in error
    code, table, _ = run_tool("convert_checkpoint", *arguments, "resnet18")
    assert (code, table["beta"]) == (0, "none")
    assert table["source"] == "bare.pth (reference state dict)"


def test_a_first_class_is_dropped_only_where_zoos_count_the_background():
    rows = np.arange(1001, dtype=np.float32)
    zoo = {"last_linear.weight": rows[:, None], "last_linear.bias": rows}
    fewer, (note,) = drop_background(zoo, KEYMAPS["nasnetamobile"])
    assert "row 0 (background) of last_linear.weight, last_linear.bias" in note
    for key, value in fewer.items():
        np.testing.assert_array_equal(value, zoo[key][1:])
    # A network with 1001 classes of its owner's.
    assert drop_background(zoo, KEYMAPS["senet154"]) == (zoo, [])


def _truncated(state_dict, path, save, file_format):
    save(state_dict, path, file_format)
    path.write_bytes(path.read_bytes()[:-5000])


def _without_a_key(state_dict, path, save, file_format):
    rest = {k: v for k, v in state_dict.items() if k != "features.layer2.0.bn1.bias"}
    save(rest, path, file_format)


def _with_another_key(state_dict, path, save, file_format):
    extra = {"features.extra.weight": np.zeros(3, np.float32)}
    save({**state_dict, **extra}, path, file_format)


def _transposed(state_dict, path, save, file_format):
    weight = np.ascontiguousarray(state_dict["classifier.weight"].T)
    save({**state_dict, "classifier.weight": weight}, path, file_format)


def _in_integers(state_dict, path, save, file_format):
    save({**state_dict, "pool.p": np.int64(3)}, path, file_format)


@pytest.mark.parametrize("file_format", ["old", "new"])
@pytest.mark.parametrize(
    ("write", "message"),
    [
        (_truncated, "is it complete"),
        (_without_a_key, "missing: features.layer2.0.bn1.bias"),
        (_with_another_key, "not expected: features.extra.weight"),
        (_transposed, "classifier.weight: found [512, 1000], expected [1000, 512]"),
        (_in_integers, "pool.p: int64 does not fit into float32"),
    ],
)
def test_defects_are_refused_and_nothing_is_written(
    write,
    message,
    file_format,
    state_dict,
    save_reference,
    run_tool,
    tmp_path,
    monkeypatch,
):
    monkeypatch.chdir(tmp_path)
    write(state_dict, tmp_path / "file.pth", save_reference, file_format)
    before = sorted(tmp_path.iterdir())
    code, printed, error = run_tool("convert_checkpoint", "file.pth", "out")
    assert (code, printed) == (2, {})
    assert error.startswith("error: ") and message in error
    assert sorted(tmp_path.iterdir()) == before


def test_inspection_prints_the_tree_or_only_the_verdict(converted, run_tool, tmp_path):
    workdir = tmp_path / "copy"
    shutil.copytree(converted[1], workdir)
    code, rows, _ = run_tool("inspect_checkpoint", workdir)
    assert code == 0
    assert rows["model.params.classifier.bias"].startswith("float32[1000]")
    code, rows, _ = run_tool("inspect_checkpoint", workdir, "--verify")
    assert (code, rows) == (0, {})
    meta = workdir / "checkpoints" / "0" / "meta" / "metadata"
    meta.write_text(meta.read_text().replace("0.625", "0.525"))
    code, _, error = run_tool("inspect_checkpoint", workdir, "--verify")
    assert code == 2 and "meta: " in error and "digest" in error


# Orbax leaves coroutines behind when a damaged file ends its reading.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
def test_flipped_bits_never_change_a_value(converted, tmp_path):
    workdir = converted[1]
    whole = flatten_nested(load_checkpoint(workdir).model)
    rng = np.random.default_rng(0)
    files = [
        p.relative_to(workdir)
        for p in sorted(workdir.rglob("*"))
        if p.is_file() and p.stat().st_size
    ]
    outcomes = {"error": 0, "equal": 0}
    for trial in range(50):
        # Every file in turn, so that small ones are hit too.
        name = files[trial % len(files)]
        copy = tmp_path / "copy"
        shutil.copytree(workdir, copy)
        content = bytearray((copy / name).read_bytes())
        bit = int(rng.integers(8 * len(content)))
        content[bit // 8] ^= 1 << bit % 8
        (copy / name).write_bytes(content)
        try:
            loaded = flatten_nested(load_checkpoint(copy).model)
        except InputError:
            outcomes["error"] += 1
        else:
            outcomes["equal"] += 1
            assert loaded.keys() == whole.keys()
            for key, value in whole.items():
                np.testing.assert_array_equal(loaded[key], value, err_msg=str(name))
        shutil.rmtree(copy)
    assert outcomes["error"] >= 10 and sum(outcomes.values()) == 50, outcomes
