"""One file of each kind that people bring: exit code, what is said, what is written.

The table of kinds in one place; their variants are in the tests of each step.
"""

import argparse
import json
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from helpers.state_dicts import cast, ones, plus_one, prefixed, projector, without
from helpers.torch_files import tensor, write_new, write_old
from helpers.torch_heads import (
    cirtorch,
    classy_keys,
    deep_image_retrieval,
    pickled_as,
    sscd,
)

from multigrain_jax.checkpoint import load_checkpoint

Write = Callable[[Path, dict[str, Any], Any, Any], object]
HUGE = 2**60


class Evil:
    """Its pickle runs a command."""

    def __reduce__(self):
        return (os.system, ("touch evil",))


class Kind(NamedTuple):
    """A kind of file, and what becomes of it.

    Attributes:
        write: (path, state dict in a zoo's keys, torch, arrays to tensors) -> the file.
        code: exit code of the tool.
        says: what is in its table, or in its error.
        name: of the file.
        arguments: of the tool.
    """

    write: Write
    code: int
    says: str
    name: str = "file.pth"
    arguments: tuple[str, ...] = ()


def saved(build: Callable[[dict[str, Any]], Any], *, is_zip: bool = True) -> Write:
    """What torch.save makes of something built of the state dict."""

    def write(path, zoo, torch, as_tensors):
        content = as_tensors(build(zoo))
        torch.save(content, path, _use_new_zipfile_serialization=is_zip)

    return write


def cut_off(write: Write) -> Write:
    """The file without its last 300 bytes."""

    def write_less(path, zoo, torch, as_tensors):
        write(path, zoo, torch, as_tensors)
        path.write_bytes(path.read_bytes()[:-300])

    return write_less


def instructions(writer: Callable[..., None], *what: Any) -> Write:
    """A file of instructions that torch never writes."""
    return lambda path, *_: writer(path, *what)


def content(text: bytes) -> Write:
    """A file of these bytes."""
    return lambda path, *_: path.write_bytes(text)


def safetensors(path, zoo, *_):
    pytest.importorskip("safetensors.numpy").save_file(zoo, path)


def huge_safetensors(path, *_):
    row = {"dtype": "F32", "shape": [HUGE], "data_offsets": [0, 4 * HUGE]}
    text = json.dumps({"conv1.weight": row}).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)


def bomb(path, *_):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("file/data.pkl", b"\x80\x02N.", zipfile.ZIP_DEFLATED)
        archive.writestr("file/data/0", bytes(2**24), zipfile.ZIP_DEFLATED)


def beside_a_config(path, zoo, torch, as_tensors):
    torch.save(as_tensors(zoo), path)
    config = {"architecture": "resnetblur50"}
    path.with_name("config.json").write_text(json.dumps(config))


def torchscript(path, zoo, torch, as_tensors):
    network = sscd(torch, name="tiny")
    # Which of the two depends on PyTorch's version.
    with pytest.warns((DeprecationWarning, FutureWarning)):
        torch.jit.trace(network, torch.ones(1, 3, 32, 32)).save(path)


def its_heads(path, zoo, torch, as_tensors):
    found = deep_image_retrieval(torch, name="tiny", dims=6).content
    with pickled_as(found["pca"]["Landmarks_clean"]):
        torch.save(found, path)


def of_sscd(change: Callable[[dict[str, Any]], Any]) -> Write:
    def write(path, zoo, torch, as_tensors):
        torch.save(change(sscd(torch, name="tiny").state_dict()), path)

    return write


TIMM = {"optimizer": {"state": {}}, "args": argparse.Namespace(model="tiny", lr=0.1)}
NO_CLASSES = "0 (the file has no classifier)"
KINDS = {
    # Wrapped.
    "state dict": Kind(saved(lambda zoo: zoo), 0, "tiny"),
    "state dict in the format of 2019": Kind(
        saved(OrderedDict, is_zip=False), 0, "tiny"
    ),
    "timm's training script": Kind(
        saved(lambda zoo: {"state_dict": zoo, "state_dict_ema": plus_one(zoo), **TIMM}),
        0,
        "state_dict_ema",
    ),
    "a trainer's model": Kind(
        saved(lambda zoo: {"model": zoo, "epoch": 3}), 0, "epoch"
    ),
    "safetensors by another name": Kind(safetensors, 0, "tiny"),
    "TorchScript archive": Kind(
        torchscript, 0, "linear 8 -> 512", name="sscd.torchscript.pt"
    ),
    # Stripped.
    "DataParallel": Kind(saved(lambda zoo: prefixed("module.", zoo)), 0, "module."),
    "Lightning": Kind(
        saved(lambda zoo: {"state_dict": prefixed("model.backbone.", zoo)}),
        0,
        "model.backbone.",
    ),
    # Cast.
    "float16": Kind(saved(lambda zoo: cast(zoo, "float16")), 0, "stored as float32"),
    "bfloat16": Kind(saved(lambda zoo: cast(zoo, "bfloat16")), 0, "stored as float32"),
    "float64": Kind(saved(lambda zoo: cast(zoo, "float64")), 0, "stored as float32"),
    "NaN": Kind(
        saved(lambda zoo: {**zoo, "bn1.bias": np.full(8, np.nan, np.float32)}),
        2,
        "bn1.bias: 8 of 8 are NaN",
    ),
    # Headless, and with other heads.
    "no classifier": Kind(saved(lambda zoo: without(zoo, "fc")), 0, NO_CLASSES),
    "a projector beside it": Kind(
        saved(lambda zoo: {**without(zoo, "fc"), **projector("")}), 0, NO_CLASSES
    ),
    "a projection in its place": Kind(
        saved(lambda zoo: zoo), 0, NO_CLASSES, arguments=("--no-classifier",)
    ),
    "SSCD *.torchvision.pt": Kind(
        of_sscd(lambda found: found), 0, "linear 8 -> 512", name="sscd.torchvision.pt"
    ),
    "SSCD *.classy.pt": Kind(of_sscd(classy_keys), 0, "by its keys"),
    "cirtorch": Kind(
        lambda path, _, torch, __: torch.save(cirtorch(torch, name="tiny")[0], path),
        0,
        "by its meta",
    ),
    "deep-image-retrieval": Kind(its_heads, 0, "by its model_options"),
    # Impersonating.
    "anti-aliased, as it says": Kind(
        saved(lambda zoo: {"arch": "resnetaa50", "state_dict": zoo}),
        2,
        "the file's arch says resnetaa50",
    ),
    "anti-aliased, as config.json says": Kind(
        beside_a_config, 2, "config.json's architecture says resnetblur50"
    ),
    "a deep stem": Kind(
        saved(
            lambda zoo: {**without(zoo, "conv1"), "conv1.0.weight": ones(8, 3, 3, 3)}
        ),
        2,
        "a ResNet with a deep stem",
    ),
    "a module more": Kind(
        saved(lambda zoo: {**zoo, "neck.weight": ones(3)}), 2, "not expected: neck"
    ),
    # Truncated.
    "cut off": Kind(cut_off(saved(lambda zoo: zoo)), 2, "is it complete"),
    "cut off in the format of 2019": Kind(
        cut_off(saved(lambda zoo: zoo, is_zip=False)), 2, "is it complete"
    ),
    "safetensors cut off": Kind(
        cut_off(safetensors), 2, "is it complete", name="file.safetensors"
    ),
    "a key less": Kind(
        saved(lambda zoo: without(zoo, "bn1.bias")), 2, "missing: bn1.bias"
    ),
    "a pointer of LFS": Kind(
        content(b"version https://git-lfs.github.com/spec/v1\n"), 2, "git lfs pull"
    ),
    "a web page": Kind(content(b"<!DOCTYPE html><p>"), 2, "found a web page"),
    # Hostile.
    "code in a state dict": Kind(
        saved(lambda zoo: {"state_dict": zoo, "model": Evil()}), 2, "would run code"
    ),
    "code in a bare pickle": Kind(
        content(pickle.dumps(Evil(), protocol=2)), 2, "would run code"
    ),
    "a zip bomb": Kind(bomb, 2, "compressed or encrypted"),
    "2^60 numbers": Kind(
        instructions(write_new, tensor(HUGE, (HUGE,), (1,)), bytes(24)), 2, "expected"
    ),
    "2^60 numbers in the format of 2019": Kind(
        instructions(write_old, tensor(HUGE, (HUGE,), (1,)), bytes(24)), 2, "6 numbers"
    ),
    "2^60 times one number": Kind(
        instructions(write_new, tensor(6, (HUGE,), (0,)), bytes(24)), 2, "does not fit"
    ),
    "2^60 numbers in safetensors": Kind(
        huge_safetensors, 2, "0 bytes of numbers", name="file.safetensors"
    ),
    "lists in lists": Kind(
        instructions(write_new, b"]" * 50_000 + b"a" * 49_999), 2, "found list"
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind(kind, zoo, torch, as_tensors, run_tool, tmp_path, monkeypatch):
    write, code, says, name, arguments = KINDS[kind]
    monkeypatch.chdir(tmp_path)
    write(tmp_path / name, zoo, torch, as_tensors)
    before = sorted(tmp_path.rglob("*"))
    target = tmp_path / "new" / "out"
    found, table, error = run_tool(
        "convert_checkpoint", tmp_path / name, target, *arguments
    )
    assert found == code
    if code == 0:
        assert error == "" and any(says in value for value in table.values())
        assert load_checkpoint(target).meta["backbone"] == "tiny"
    else:
        assert table == {} and error.startswith("error: ") and says in error
        assert sorted(tmp_path.rglob("*")) == before
        # A folder that is there stays as it is.
        target.mkdir(parents=True)
        assert run_tool("convert_checkpoint", tmp_path / name, target)[0] == 2
        assert list(target.iterdir()) == []
