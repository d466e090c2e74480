"""`tools/convert_checkpoint.py` and `tools/export_torch.py`, on synthetic files."""

import gzip
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from multigrain_jax.checkpoint import load_checkpoint
from multigrain_jax.convert.convert import convert_checkpoint
from multigrain_jax.convert.export import export_checkpoint
from multigrain_jax.errors import InputError
from multigrain_jax.inference import load_model
from multigrain_jax.trees import flatten_nested

ROOT = Path(__file__).parents[2]
FORMATS = {"old": False, "new": True}


@pytest.fixture(scope="module")
def state_dict(golden_dir, golden_weights):
    """The weights of ResNet-18 by the golden rule, in the original's keys."""
    path = golden_dir / "manifests" / "resnet18.json.gz"
    entries = json.loads(gzip.decompress(path.read_bytes()))["entries"]
    return golden_weights.state_dict(entries, 0, p=3.0)


@pytest.fixture(scope="module")
def reference_content(torch, state_dict):
    tensors = {k: torch.from_numpy(np.array(v)) for k, v in state_dict.items()}
    return {
        "model_state": tensors,
        "optimizer_state": {"backbone.state": {}, "margin_beta.state": {}},
        "extra": {"beta": 0.625},
    }


@pytest.fixture(scope="module", params=FORMATS)
def reference_file(request, torch, reference_content, tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / f"{request.param}.pth"
    torch.save(
        reference_content, path, _use_new_zipfile_serialization=FORMATS[request.param]
    )
    return path


def run_tool(*arguments):
    return subprocess.run(
        [sys.executable, str(ROOT / "tools" / "convert_checkpoint.py"), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        check=False,
    )


def test_a_reference_checkpoint_becomes_a_model(reference_file, state_dict, tmp_path):
    conversion = convert_checkpoint(reference_file, tmp_path / "out")
    assert conversion.backbone == "resnet18"
    assert conversion.num_parameters == 11_689_512
    assert (conversion.pooling_exponent, conversion.source.beta) == (3.0, 0.625)
    counters = sum(k.endswith("num_batches_tracked") for k in state_dict)
    assert sum(conversion.keys_ignored.values()) == counters
    assert conversion.keys_used + counters == len(state_dict)
    checkpoint = load_checkpoint(tmp_path / "out")
    assert checkpoint.step == 0
    assert checkpoint.model["params"]["margin"]["beta"] == np.float32(0.625)
    assert "CC BY-NC" in checkpoint.meta["converted_from"]["licence"]
    kernel = checkpoint.model["params"]["trunk"]["conv1"]["kernel"]
    np.testing.assert_array_equal(
        kernel, state_dict["features.conv1.weight"].transpose(2, 3, 1, 0)
    )


def test_there_and_back_is_bit_equal(torch, reference_file, state_dict, tmp_path):
    convert_checkpoint(reference_file, tmp_path / "first")
    exported = tmp_path / "back.pth"
    export_checkpoint(tmp_path / "first", exported)
    content = torch.load(exported, weights_only=True)
    assert content["extra"] == {"beta": 0.625}
    assert set(content["model_state"]) == set(state_dict)
    for key, value in state_dict.items():
        np.testing.assert_array_equal(content["model_state"][key].numpy(), value)
    convert_checkpoint(exported, tmp_path / "second")
    one, two = (
        flatten_nested(load_checkpoint(tmp_path / name).model)
        for name in ("first", "second")
    )
    assert one.keys() == two.keys()
    for key, value in one.items():
        np.testing.assert_array_equal(value, two[key])


def test_a_zoo_file_gets_exponent_one(torch, state_dict, tmp_path):
    zoo = {
        key.removeprefix("features.").replace("classifier.", "fc."): torch.from_numpy(
            np.array(value)
        )
        for key, value in state_dict.items()
        if key != "pool.p"
    }
    torch.save(zoo, tmp_path / "zoo.pth")
    conversion = convert_checkpoint(tmp_path / "zoo.pth", tmp_path / "out")
    assert (conversion.backbone, conversion.pooling_exponent) == ("resnet18", 1.0)
    model = load_model(tmp_path / "out")
    assert model.pooling_exponent == 1.0


def test_safetensors_need_no_torch(state_dict, tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "weights.safetensors"
    safetensors.save_file(dict(state_dict), path)
    assert convert_checkpoint(path, tmp_path / "out").backbone == "resnet18"


class _Evil:
    def __reduce__(self):
        return (os.system, ("touch evil",))


def _damaged(kind, torch, content, path):
    """Write a file with one defect; returns what the error must say."""
    tensors = dict(content["model_state"])
    if kind == "truncated":
        torch.save(content, path)
        path.write_bytes(path.read_bytes()[:-5000])
        return "is it complete"
    if kind == "pickle that runs code":
        path.write_bytes(pickle.dumps({"model_state": _Evil()}, protocol=2))
        return "(would run code|is it a weight file)"
    if kind == "text":
        path.write_text("these are no weights\n")
        return "is it a weight file"
    if kind == "missing key":
        del tensors["features.layer2.0.conv1.weight"]
        torch.save(tensors, path)
        return "missing: features.layer2.0.conv1"
    if kind == "extra key":
        tensors["features.extra.weight"] = torch.zeros(3)
        torch.save(tensors, path)
        return "not expected: features.extra.weight"
    if kind == "transposed weight":
        tensors["classifier.weight"] = tensors["classifier.weight"].T.contiguous()
        torch.save(tensors, path)
        return r"classifier.weight: found \[512, 1000\], expected \[1000, 512\]"
    raise AssertionError(kind)


@pytest.mark.parametrize(
    "kind",
    [
        "truncated",
        "pickle that runs code",
        "text",
        "missing key",
        "extra key",
        "transposed weight",
    ],
)
def test_defects_are_refused_and_nothing_is_written(
    kind, torch, reference_content, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "file.pth"
    message = _damaged(kind, torch, reference_content, path)
    with pytest.raises(InputError, match=message):
        convert_checkpoint(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "evil").exists()


def test_the_command_prints_a_table_or_one_error(torch, reference_content, tmp_path):
    torch.save(reference_content, tmp_path / "good.pth")
    done = run_tool(str(tmp_path / "good.pth"), str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    for part in ("resnet18", "11,689,512", "whitening", "digest", "keys used"):
        assert part in done.stdout
    again = run_tool(str(tmp_path / "good.pth"), str(tmp_path / "out"))
    assert again.returncode == 2
    assert again.stderr.startswith("error: ") and "choose another" in again.stderr


# Orbax leaves coroutines behind when a damaged file ends its reading.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
def test_flipped_bits_never_change_a_value(torch, reference_content, tmp_path):
    torch.save(reference_content, tmp_path / "good.pth")
    convert_checkpoint(tmp_path / "good.pth", tmp_path / "whole")
    whole = flatten_nested(load_checkpoint(tmp_path / "whole").model)
    rng = np.random.default_rng(0)
    files = [
        p.relative_to(tmp_path / "whole")
        for p in sorted((tmp_path / "whole").rglob("*"))
        if p.is_file() and p.stat().st_size
    ]
    outcomes = {"error": 0, "equal": 0}
    for trial in range(50):
        # Every file in turn, so that small ones are hit too.
        name = files[trial % len(files)]
        copy = tmp_path / "copy"
        shutil.copytree(tmp_path / "whole", copy)
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
