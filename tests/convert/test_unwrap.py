"""What people save, kind by kind: how it is unwrapped, and that it is said."""

import argparse
from collections import OrderedDict
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from helpers.state_dicts import (
    NUM_FLOATS,
    StateDict,
    cast,
    ones,
    plus_one,
    prefixed,
    projector,
    tiny_reference,
    without,
)

from multigrain_jax.checkpoint import load_checkpoint
from multigrain_jax.convert.state_dict import import_state_dict
from multigrain_jax.models.multigrain import variables_of


def timm_checkpoint(zoo: StateDict) -> StateDict:
    """What timm's training script saves."""
    return {
        "epoch": 7,
        "arch": "tiny",
        "state_dict": zoo,
        "optimizer": {"state": {0: {"exp_avg": ones(3)}}},
        "version": 2,
        "args": argparse.Namespace(model="tiny", lr=0.1, mean=None, aa="rand-m9"),
        "amp_scaler": {"scale": 65536.0},
        "state_dict_ema": plus_one(zoo),
        "metric": 81.5,
    }


def lightning_checkpoint(zoo: StateDict) -> StateDict:
    criterion = {"criterion.weight": ones(3)}
    trunk = prefixed("model._orig_mod.backbone.", without(zoo, "fc"))
    return {
        "epoch": 7,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": OrderedDict({**trunk, **projector("model."), **criterion}),
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {},
        "optimizer_states": [{"state": {}}],
        "hyper_parameters": {"arch": "tiny", "lr": 0.1},
    }


class Unwrapped(NamedTuple):
    """A kind of file that is converted.

    Attributes:
        build: state dict in a zoo's keys -> what torch.save gets.
        table: rows that the tool prints for it, and nothing but a bare file's others.
        arguments: of the tool.
        name: of the file.
        weights: state dict -> the one whose values are expected.
    """

    build: Callable[[StateDict], Any]
    table: Mapping[str, str] = MappingProxyType({})
    arguments: tuple[str, ...] = ()
    name: str = "file.pth"
    weights: Callable[[StateDict], StateDict] = lambda zoo: zoo


HEADLESS = "0 (the file has no classifier)"
STRIPPED = "model._orig_mod.backbone."
CONVERTED = {
    "bare": Unwrapped(lambda zoo: zoo),
    "an OrderedDict": Unwrapped(OrderedDict),
    "DataParallel": Unwrapped(
        lambda zoo: prefixed("module.", zoo), {"stripped": "module."}
    ),
    "torch.compile": Unwrapped(
        lambda zoo: prefixed("_orig_mod.", zoo), {"stripped": "_orig_mod."}
    ),
    "both, in a trainer": Unwrapped(
        lambda zoo: {"model": prefixed("module._orig_mod.", zoo), "epoch": 3},
        {
            "found in": "model",
            "stripped": "module._orig_mod.",
            "ignored beside them": "epoch",
        },
    ),
    "timm's training script": Unwrapped(
        timm_checkpoint,
        {
            "found in": "state_dict_ema",
            "ignored beside them": "epoch, arch, state_dict, optimizer, version, args, "
            "amp_scaler, metric",
        },
        weights=plus_one,
    ),
    "timm's, the last weights": Unwrapped(
        timm_checkpoint,
        {
            "found in": "state_dict",
            "ignored beside them": "epoch, arch, optimizer, version, args, amp_scaler, "
            "state_dict_ema, metric",
        },
        arguments=("--no-ema",),
    ),
    "an EMA in a module": Unwrapped(
        lambda zoo: {
            "model_ema": {"decay": 0.9, "module": zoo},
            "model": plus_one(zoo),
        },
        {
            "found in": "model_ema.module",
            "ignored beside them": "model, model_ema.decay",
        },
    ),
    "an EMA that is None": Unwrapped(
        lambda zoo: {"state_dict": zoo, "state_dict_ema": None},
        {"found in": "state_dict", "ignored beside them": "state_dict_ema"},
    ),
    "SWA": Unwrapped(
        lambda zoo: {"n_averaged": np.array(5), **prefixed("module.", zoo)},
        {"stripped": "module.", "keys ignored (n_averaged)": "1"},
    ),
    "Lightning with a projector": Unwrapped(
        lightning_checkpoint,
        {
            "found in": "state_dict",
            "stripped": STRIPPED,
            "classes": HEADLESS,
            "keys ignored (model.projector.*)": "2",
            "keys ignored (criterion.*)": "1",
            "ignored beside them": "epoch, pytorch-lightning_version, loops, "
            "callbacks, optimizer_states, hyper_parameters",
        },
    ),
    "net": Unwrapped(lambda zoo: {"net": zoo, "acc": 0.9}, {"found in": "net"}),
    "an encoder": Unwrapped(
        lambda zoo: {**prefixed("encoder.", without(zoo, "fc")), **projector("")},
        {
            "stripped": "encoder.",
            "classes": HEADLESS,
            "keys ignored (projector.*)": "2",
        },
    ),
    "a projector without a prefix": Unwrapped(
        lambda zoo: {**zoo, **projector("")}, {"keys ignored (projector.*)": "2"}
    ),
    "numbers beside the tensors": Unwrapped(
        lambda zoo: {**zoo, "epoch": 7, "log": ["a"]},
        {"ignored beside them": "epoch, log"},
    ),
    "float16": Unwrapped(
        lambda zoo: cast(zoo, "float16"),
        {"cast from float16": f"{NUM_FLOATS} arrays, stored as float32"},
    ),
    "bfloat16": Unwrapped(
        lambda zoo: cast(zoo, "bfloat16"),
        {"cast from bfloat16": f"{NUM_FLOATS} arrays, stored as float32"},
    ),
    "float64": Unwrapped(
        lambda zoo: cast(zoo, "float64"),
        {"cast from float64": f"{NUM_FLOATS} arrays, stored as float32"},
    ),
    "float64 too small for float32": Unwrapped(
        lambda zoo: {**zoo, "bn1.bias": np.array([1e-50] + [1.0] * 7)},
        {
            "cast from float64": "1 arrays, stored as float32",
            "changed": "bn1.bias: 1 of 8 are nearer to 0 than float32 resolves, off by "
            "at most 1.0e-50",
        },
        weights=lambda zoo: {**zoo, "bn1.bias": np.float32([0] + [1] * 7)},
    ),
    "no batch counters": Unwrapped(
        lambda zoo: {k: v for k, v in zoo.items() if not k.endswith("tracked")}
    ),
    "no classifier": Unwrapped(lambda zoo: without(zoo, "fc"), {"classes": HEADLESS}),
    "a head of several layers": Unwrapped(
        lambda zoo: {
            **without(zoo, "fc"),
            "fc.0.weight": ones(8, 8),
            "fc.2.weight": ones(4, 8),
        },
        {
            "classes": HEADLESS,
            "keys ignored (a head of several layers, which is no classifier)": "2",
        },
    ),
    "a projection in the classifier's place": Unwrapped(
        lambda zoo: zoo,
        {"classes": HEADLESS, "keys ignored (the head, left out as asked)": "2"},
        arguments=("--no-classifier",),
        weights=lambda zoo: without(zoo, "fc"),
    ),
    "a name of another kind": Unwrapped(lambda zoo: zoo, name="file.safetensors"),
    "a .bin": Unwrapped(lambda zoo: zoo, name="pytorch_model.bin"),
    "a .pth.tar": Unwrapped(
        lambda zoo: {"state_dict": zoo},
        {"found in": "state_dict"},
        name="model_best.pth.tar",
    ),
}


def expected_variables(state_dict: StateDict):
    return import_state_dict(state_dict, backbone="tiny")[0]


@pytest.mark.parametrize("kind", CONVERTED)
@pytest.mark.parametrize("file_format", ["new", "old"])
def test_it_is_unwrapped_and_said_so(
    kind, file_format, zoo, torch, as_tensors, run_tool, tmp_path
):
    build, table, arguments, name, weights = CONVERTED[kind]
    is_zip = file_format == "new"
    source = tmp_path / name
    torch.save(as_tensors(build(zoo)), source, _use_new_zipfile_serialization=is_zip)
    code, printed, error = run_tool(
        "convert_checkpoint", source, tmp_path / "out", *arguments
    )
    assert (code, error) == (0, "")
    assert {row: printed[row] for row in table} == table
    for row in ("found in", "stripped", "changed", "cast from float16"):
        assert row in table or row not in printed
    checkpoint = load_checkpoint(tmp_path / "out")
    values = weights(zoo)
    if "0 (" in printed["classes"]:
        values = without(values, "fc")
        assert checkpoint.meta["num_classes"] == 0
    want = expected_variables(values)
    found = variables_of(checkpoint.model)
    assert jax.tree.structure(found) == jax.tree.structure(want)
    jax.tree.map(np.testing.assert_array_equal, found, want)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype(np.float32)}
    record = checkpoint.meta["conversion"]
    assert record["stripped"] == table.get("stripped", "")
    assert ".".join(record["found_in"]) == table.get("found in", "")
    ignored = {
        row.removeprefix("keys ignored (")[:-1]: int(count)
        for row, count in printed.items()
        if row.startswith("keys ignored")
    }
    assert record["keys_ignored"] == ignored
    assert record["keys_used"] == int(printed["keys used"])
    code, _, _ = run_tool("inspect_checkpoint", tmp_path / "out", "--verify")
    assert code == 0


def test_a_wrapped_file_of_the_original_keeps_its_threshold_and_its_licence(
    torch, as_tensors, run_tool, tmp_path
):
    weights = prefixed("module.", tiny_reference())
    content = {"model_state": weights, "extra": {"beta": 0.5}}
    torch.save(as_tensors(content), tmp_path / "file.pth")
    code, table, _ = run_tool(
        "convert_checkpoint", tmp_path / "file.pth", tmp_path / "out"
    )
    assert code == 0
    assert (table["beta"], table["pooling exponent p"]) == ("0.5", "3")
    assert table["source"] == "file.pth (reference checkpoint)"
    assert "CC BY-NC" in table["licence"]


def test_a_safetensors_file_by_another_name(zoo, run_tool, tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    source = tmp_path / "file.pth"
    safetensors.save_file(prefixed("backbone.", zoo), source)
    code, table, error = run_tool("convert_checkpoint", source, tmp_path / "out")
    assert (code, error, table["stripped"]) == (0, "", "backbone.")
    found = variables_of(load_checkpoint(tmp_path / "out").model)
    jax.tree.map(np.testing.assert_array_equal, found, expected_variables(zoo))


def test_what_are_counted_as_classes_is_said(
    zoo, torch, as_tensors, run_tool, tmp_path
):
    torch.save(as_tensors(zoo), tmp_path / "file.pth")
    _, table, _ = run_tool(
        "convert_checkpoint", tmp_path / "file.pth", tmp_path / "out"
    )
    assert table["classes"] == "3"
    assert table["note"].startswith("the 3 rows of the head are counted as classes")
