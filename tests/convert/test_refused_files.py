"""What is refused: damaged files, other networks, hostile content, with no trace."""

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.state_dicts import StateDict, ones, prefixed, without

from multigrain_jax.checkpoint import load_checkpoint


class _Evil:
    def __reduce__(self):
        return (os.system, ("touch evil",))


def nested_in_itself(zoo: StateDict) -> StateDict:
    content: StateDict = {"epoch": 1}
    content["state_dict"] = content
    return content


def nested(zoo: StateDict, depth: int) -> Any:
    return nested({"model": zoo}, depth - 1) if depth else zoo


def changed(key: str, value: Any) -> Callable[[StateDict], StateDict]:
    """A DataParallel file with another array at a key."""
    return lambda zoo: {**prefixed("module.", zoo), f"module.{key}": value}


NOT_FINITE = "module.bn1.bias: 1 of 8 are "
# kind -> what torch.save gets, and what the error says; a line break: further down.
REFUSED: dict[str, tuple[Callable[[StateDict], Any], str]] = {
    "NaN": (changed("bn1.bias", np.float32([np.nan] + [1] * 7)), NOT_FINITE + "NaN"),
    "infinity": (
        changed("bn1.bias", np.float32([np.inf] + [1] * 7)),
        NOT_FINITE + "infinite",
    ),
    "beyond float32": (
        changed("bn1.bias", np.array([1e300] + [1.0] * 7)),
        NOT_FINITE + "outside float32's range, as 1e+300",
    ),
    "quantised": (
        changed("bn1.bias", np.ones(8, np.int8)),
        "module.bn1.bias: int8 does not fit into float32 without loss",
    ),
    "no bias": (
        lambda zoo: without(prefixed("module.", zoo), "module.fc.bias"),
        "What is wrong, 1 in all:\n  missing: module.fc.bias\n",
    ),
    "no weight": (
        lambda zoo: without(zoo, "fc.weight"),
        "missing: fc.weight",
    ),
    "an incomplete trunk": (
        lambda zoo: without(prefixed("module.", zoo), "module.layer1.0.bn1.bias"),
        "missing: module.layer1.0.bn1.bias",
    ),
    "a trunk that does not share its prefix": (
        lambda zoo: {**without(prefixed("module.", zoo), "module.bn1"), **zoo},
        "two networks were found in the file, bare and module.*: one was expected",
    ),
    "a module more": (
        changed("neck.weight", ones(8)),
        "not expected: module.neck.weight",
    ),
    "two networks": (
        lambda zoo: {**prefixed("encoder.", zoo), **prefixed("backbone.", zoo)},
        "two networks were found in the file, backbone.* and encoder.*",
    ),
    "p below 0": (
        lambda zoo: {**zoo, "pool.p": np.array(-1, np.float32)},
        "pool.p: -1.0, expected above 0",
    ),
    "no state dict": (
        lambda zoo: {"state_dict": {}, "epoch": 3},
        "found one without tensors (state_dict, epoch, …)",
    ),
    "in itself": (nested_in_itself, "found one without tensors"),
    "in too much": (lambda zoo: nested(zoo, 40), "found one without tensors"),
    "a whole module": (lambda zoo: {"state_dict": zoo, "model": _Evil()}, "run code"),
    "a threshold that is none": (
        lambda zoo: {"model_state": zoo, "extra": {"beta": "x"}},
        "extra.beta: found x, expected the margin's threshold",
    ),
    "keys that a terminal obeys": (
        lambda zoo: {f"\x1b[2J{key}": value for key, value in zoo.items()},
        r"not recognised from 32 keys (\x1b[2Jbn1.bias",
    ),
    # Other networks, in one line.
    "a deep stem": (
        lambda zoo: {**without(zoo, "conv1"), "conv1.0.weight": ones(8, 3, 3, 3)},
        "a ResNet with a deep stem",
    ),
    "squeeze-and-excitation": (
        lambda zoo: {**zoo, "layer1.0.se.fc1.weight": ones(2, 8, 1, 1)},
        "does not fit tiny: it is that of a squeeze-and-excitation ResNet",
    ),
    "blur filters with keys": (
        lambda zoo: {**zoo, "maxpool.2.filt": ones(8, 1, 3, 3)},
        "a network with blur filters",
    ),
    "a dilated trunk": (
        lambda zoo: {
            **prefixed("backbone.", without(zoo, "fc")),
            "classifier.4.weight": ones(21, 8, 1, 1),
        },
        "a segmentation network of torchvision",
    ),
    "anti-aliased, as its arch says": (
        lambda zoo: {"arch": "resnetaa50", "state_dict": zoo},
        "the file's arch says resnetaa50: such a network has the keys of tiny",
    ),
    "anti-aliased, as its arguments say": (
        lambda zoo: {
            "args": argparse.Namespace(model="tiny", model_kwargs={"aa_layer": "blur"}),
            "state_dict": zoo,
        },
        "the file's args.model_kwargs.aa_layer says aa_layer=blur",
    ),
    "other input": (
        lambda zoo: {
            "pretrained_cfg": {"architecture": "tiny", "mean": (0.5, 0.5, 0.5)},
            "state_dict": zoo,
        },
        "the file's pretrained_cfg.mean says mean=0.5,0.5,0.5",
    ),
    "a running average without statistics": (
        lambda zoo: {
            "state_dict": zoo,
            "state_dict_ema": {k: v for k, v in zoo.items() if "running" not in k},
        },
        "missing: bn1.running_var\n  missing: layer1.0.bn1.running_mean",
    ),
    "a module that a terminal obeys": (
        changed("\x1b[2Jneck.weight", ones(8)),
        r"not expected: module.\x1b[2Jneck.weight",
    ),
}
SEVERAL_LINES = {"a module that a terminal obeys"}
SEVERAL_LINES |= {"a running average without statistics"}
SEVERAL_LINES |= {"no bias", "no weight", "an incomplete trunk", "a module more"}
SEVERAL_LINES |= {"quantised", "p below 0", "NaN", "infinity", "beyond float32"}


def assert_refused(run_tool, source, message, folder):
    """Exit code 2, the message, and not a file more."""
    before = sorted(folder.rglob("*"))
    code, printed, error = run_tool("convert_checkpoint", source, folder / "out")
    assert (code, printed) == (2, {})
    assert error.startswith("error: ") and message in error
    assert sorted(folder.rglob("*")) == before
    return error


@pytest.mark.parametrize("kind", REFUSED)
def test_it_is_refused_and_nothing_is_written(
    kind, zoo, torch, as_tensors, run_tool, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    build, message = REFUSED[kind]
    content = build(zoo)
    if kind != "in itself":
        content = as_tensors(content)
    torch.save(content, tmp_path / "file.pth")
    error = assert_refused(run_tool, tmp_path / "file.pth", message, tmp_path)
    assert (error.count("\n") > 1) == (kind in SEVERAL_LINES)
    assert ("--no-ema takes the last ones" in error) == ("average" in kind)
    assert "\x1b" not in error


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-300])


def no_longer_there(path: Path) -> None:
    path.unlink()


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut off": (truncated, "is it complete"),
    "empty": (lambda path: path.write_bytes(b""), "is it complete"),
    "a text": (lambda path: path.write_text("no weights\n"), "is it a weight file"),
    "a web page": (lambda path: path.write_text("<!DOCTYPE html><p>"), "a web page"),
    "a pointer of LFS": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"),
        "git lfs pull",
    ),
    "Keras": (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n"), "an HDF5 file"),
    "a header without arrays": (
        lambda path: path.write_bytes((2**20).to_bytes(8, "little") + b"{"),
        "a safetensors file was expected",
    ),
    "gone": (no_longer_there, "found nothing"),
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_what_is_no_weight_file_is_refused(
    kind, suffix, zoo, torch, as_tensors, run_tool, tmp_path
):
    damage, message = BROKEN[kind]
    source = tmp_path / f"file{suffix}"
    if suffix == ".safetensors":
        pytest.importorskip("safetensors.numpy").save_file(zoo, source)
    else:
        torch.save(as_tensors(zoo), source)
    damage(source)
    if suffix == ".safetensors" and kind in ("a text", "empty"):
        message = "a safetensors file was expected"
    assert_refused(run_tool, source, message, tmp_path)


CONFIGS = {
    "resnetblur50.bt_in1k": "config.json's architecture says resnetblur50: such",
    "hf-hub:timm/resnetaa50.a1h_in1k": "says resnetaa50: such",
}


@pytest.mark.parametrize("architecture", CONFIGS)
def test_a_config_beside_the_file_decides(
    architecture, zoo, torch, as_tensors, run_tool, tmp_path
):
    torch.save(as_tensors(zoo), tmp_path / "pytorch_model.bin")
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"architecture": architecture, "num_classes": 3}))
    source = tmp_path / "pytorch_model.bin"
    assert_refused(run_tool, source, CONFIGS[architecture], tmp_path)
    # One that is no JSON, or speaks of something else, says nothing.
    for text in ("{", "[1]", '{"architectures": ["Bert"]}', "[" * 100_000):
        config.write_text(text)
        workdir = tmp_path / f"out{len(text)}"
        assert run_tool("convert_checkpoint", source, workdir)[0] == 0


def test_the_metadata_of_a_safetensors_file_decides(zoo, run_tool, tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    source = tmp_path / "model.safetensors"
    config = json.dumps({"architecture": "resnetblur50"})
    safetensors.save_file(zoo, source, metadata={"pretrained_cfg": config})
    message = "the file's metadata's pretrained_cfg.architecture says resnetblur50"
    assert_refused(run_tool, source, message, tmp_path)


def test_the_table_says_how_sure_it_is(zoo, torch, as_tensors, run_tool, tmp_path):
    caveat = "anti-aliased variants have the same keys"
    for number, (extra, says) in enumerate(
        [
            ({}, f"assumed: plain tiny; {caveat}"),
            ({"arch": "tiny"}, "tiny, as the file's arch says"),
            (
                {"arch": "SimCLR"},
                f"assumed: plain tiny (the file's arch says simclr); {caveat}",
            ),
        ]
    ):
        source = tmp_path / f"{number}.pth"
        torch.save(as_tensors({"state_dict": zoo, **extra}), source)
        code, table, _ = run_tool("convert_checkpoint", source, tmp_path / str(number))
        assert (code, table["architecture"]) == (0, says)
        meta = load_checkpoint(tmp_path / str(number)).meta
        assert meta["conversion"]["architecture"] == says
