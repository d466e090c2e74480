"""Synthetic weight files: the golden weights in the original's keys."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.state_dicts import tiny_zoo

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture(scope="session")
def state_dict_of(golden_manifest, golden_weights):
    """name of a manifest -> its state dict by the golden rule."""

    def make(name, p=3.0):
        return golden_weights.state_dict(golden_manifest(name)["entries"], 0, p=p)

    return make


@pytest.fixture(scope="session")
def save_reference(torch):
    """(state dict, path, format): writes a checkpoint as the original does."""

    def save(state_dict, path, file_format="new"):
        tensors = {k: torch.from_numpy(np.asarray(v)) for k, v in state_dict.items()}
        content = {
            "model_state": tensors,
            "optimizer_state": {"backbone.state": {}, "margin_beta.state": {}},
            "extra": {"beta": 0.625},
        }
        is_zip = file_format == "new"
        torch.save(content, path, _use_new_zipfile_serialization=is_zip)
        return path

    return save


@pytest.fixture(scope="session")
def zoo():
    """The tiny network's state dict in a zoo's keys."""
    return tiny_zoo()


@pytest.fixture(scope="session")
def as_tensors(torch):
    """Content with tensors in place of arrays."""

    def convert(content: Any) -> Any:
        if isinstance(content, dict):
            return type(content)((k, convert(v)) for k, v in content.items())
        if not isinstance(content, np.ndarray):
            return content
        if content.dtype.name == "bfloat16":
            return torch.from_numpy(content.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(content)

    return convert


@pytest.fixture
def run_tool(capsys):
    """(tool, arguments) -> exit code, what it printed, what it said of errors.

    What `name  value` lines print becomes a dictionary.
    """

    def run(name, *arguments):
        spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        code = module.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        rows = re.findall(r"^(.+?)  +(.+)$", captured.out, re.MULTILINE)
        return code, dict(rows), captured.err

    return run
