"""What is refused: damaged files and hostile content, and nothing is written."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.state_dicts import StateDict, ones, prefixed, without


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
