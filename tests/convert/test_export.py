"""A checkpoint becomes a file of the original's or of others' layout again."""

import sys

import numpy as np
import pytest
from helpers.state_dicts import tiny_reference
from helpers.torch_resnet import arrays_of, make_torch_resnet

from multigrain_jax.checkpoint import CheckpointStore
from multigrain_jax.convert.convert import convert_checkpoint
from multigrain_jax.convert.export import export_checkpoint
from multigrain_jax.errors import InputError
from multigrain_jax.models.multigrain import create_model, split_model
from tools import export_torch


@pytest.mark.parametrize("name", ["resnet18", "nasnetamobile"])
def test_convert_export_convert_is_bit_equal(
    name, torch, state_dict_of, save_reference, run_tool, tmp_path
):
    state_dict = state_dict_of(name)
    source = save_reference(state_dict, tmp_path / "file.pth")
    digests = []
    for turn in ("first", "second"):
        code, table, _ = run_tool("convert_checkpoint", source, tmp_path / turn)
        assert code == 0
        digests.append(table["digest"])
        source = tmp_path / "exported" / f"{turn}.pth"
        assert run_tool("export_torch", tmp_path / turn, source)[0] == 0
    assert digests[0] == digests[1]
    content = torch.load(source, weights_only=True)
    assert content["extra"] == {"beta": 0.625}
    exported = {key: value.numpy() for key, value in content["model_state"].items()}
    assert exported.keys() == state_dict.keys()
    for key, value in exported.items():
        np.testing.assert_array_equal(value, state_dict[key])
    code, _, error = run_tool("export_torch", tmp_path / "first", source)
    assert code == 2 and "exists already" in error


SUFFIXES = (".pth", ".safetensors")


def read(path, torch):
    """The state dict of a file by whoever else reads it, as arrays."""
    if path.suffix == ".safetensors":
        return pytest.importorskip("safetensors.numpy").load_file(path)
    content = torch.load(path, weights_only=True)
    content = content.get("model_state", content)
    return {key: value.numpy() for key, value in content.items()}


def assert_equal(found, want):
    assert found.keys() == want.keys()
    for key, value in found.items():
        assert (value.dtype, value.shape) == (want[key].dtype, want[key].shape)
        np.testing.assert_array_equal(value, want[key])


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("layout", ["torchvision", "timm"])
def test_a_zoos_file_comes_back_bit_by_bit(layout, suffix, torch, run_tool, tmp_path):
    network = make_torch_resnet(torch, block="basic", stages=(2, 2, 2, 2))
    torch.save(network.state_dict(), tmp_path / "file.pth")
    _, first, _ = run_tool(
        "convert_checkpoint", tmp_path / "file.pth", tmp_path / "first"
    )
    exported = tmp_path / f"exported{suffix}"
    arguments = tmp_path / "first", exported, "--layout", layout
    code, printed, error = run_tool("export_torch", *arguments)
    assert (code, error, printed) == (0, "", {})
    assert_equal(read(exported, torch), arrays_of(network))
    _, second, _ = run_tool("convert_checkpoint", exported, tmp_path / "second")
    assert second["digest"] == first["digest"]
    says = second["architecture"]
    is_named = says == "resnet18, as the file's metadata's architecture says"
    assert is_named == (suffix == ".safetensors")
    code, _, error = run_tool("export_torch", *arguments)
    assert code == 2 and "exists already" in error


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_originals_comes_back_in_both_formats(
    suffix, torch, as_tensors, run_tool, tmp_path
):
    want = tiny_reference()
    content = {"model_state": as_tensors(want), "extra": {"beta": 0.625}}
    torch.save(content, tmp_path / "file.pth")
    _, first, _ = run_tool(
        "convert_checkpoint", tmp_path / "file.pth", tmp_path / "first"
    )
    exported = tmp_path / f"exported{suffix}"
    code, _, _ = run_tool("export_torch", tmp_path / "first", exported)
    found = read(exported, torch)
    counters = {key for key in want if key.endswith("num_batches_tracked")}
    assert code == 0 and counters
    assert_equal(found, {k: want[k] * 0 if k in counters else want[k] for k in want})
    _, second, _ = run_tool("convert_checkpoint", exported, tmp_path / "second")
    # A file of safetensors has no place for the threshold.
    assert (second["digest"] == first["digest"]) == (suffix == ".pth")


def test_what_is_left_out_is_said(torch, as_tensors, state_dict_of, capsys, tmp_path):
    content = {"model_state": as_tensors(state_dict_of("resnet18"))}
    torch.save({**content, "extra": {"beta": 0.625}}, tmp_path / "file.pth")
    convert_checkpoint(tmp_path / "file.pth", tmp_path / "out")
    for name, layout, wanted in [
        ("a.safetensors", "timm", ["the pooling exponent p = 3: timm's", "the margin"]),
        ("b.pth", "torchvision", ["the pooling exponent p = 3: torchv", "the margin"]),
        ("c.safetensors", "original", ["the margin's threshold, 0.625"]),
        ("d.pth", "original", []),
    ]:
        exported = export_checkpoint(tmp_path / "out", tmp_path / name, layout=layout)
        assert len(exported.left_out) == len(wanted)
        for line, begins in zip(exported.left_out, wanted, strict=True):
            assert line.startswith(begins)
    arguments = [tmp_path / "out", tmp_path / "e.safetensors", "--layout", "timm"]
    assert export_torch.main([str(argument) for argument in arguments]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in printed[:2]] == ["left out"] * 2
    assert printed[2].startswith("122 keys written to")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_has_no_place_is_refused_and_nothing_written(
    suffix, tiny_checkpoint, torch, run_tool, tmp_path
):
    target = tmp_path / "new" / f"file{suffix}"
    code, _, error = run_tool(
        "export_torch", tiny_checkpoint, target, "--layout", "torchvision"
    )
    assert code == 2 and "torchvision has no tiny" in error
    assert not target.parent.exists()


def test_a_safetensors_file_needs_no_torch(tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    export_checkpoint(tiny_checkpoint, tmp_path / "file.safetensors")
    assert (tmp_path / "file.safetensors").is_file()
    with pytest.raises(InputError, match=r"a \.safetensors file needs none"):
        export_checkpoint(tiny_checkpoint, tmp_path / "file.pth")


def test_the_average_is_exported_unless_the_last_weights_are_asked_for(tmp_path):
    load_file = pytest.importorskip("safetensors.numpy").load_file
    weights = [
        split_model(create_model("tiny", num_classes=3, seed=seed))[1]
        for seed in (1, 2)
    ]
    store = CheckpointStore(tmp_path / "w")
    meta = {"backbone": "tiny", "num_classes": 3}
    store.save(5, model=weights[0], ema=weights[1], meta=meta)
    store.close()
    for raw, expected in zip((True, False), weights, strict=True):
        file = tmp_path / f"{raw}.safetensors"
        export_checkpoint(tmp_path / "w", file, raw=raw)
        kernel = np.asarray(expected.params["classifier"]["kernel"])
        assert any(np.array_equal(x, kernel.T) for x in load_file(file).values())
