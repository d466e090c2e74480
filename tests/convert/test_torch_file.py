"""Files of torch.save are read as torch reads them, without torch."""

import argparse
import collections
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from multigrain_jax.convert.torch_file import (
    is_torchscript_archive,
    read_torch_file,
    read_torchscript_state,
)
from multigrain_jax.errors import InputError

FILES = Path(__file__).parent / "files"
INTEGERS = ["int64", "int32", "int16", "int8", "uint8", "bool"]
FLOATS = ["float64", "float32", "float16", "bfloat16"]


@pytest.fixture(params=["old", "new"])
def save(request, torch, tmp_path):
    """(content) -> a file of torch.save, in one of its two formats."""
    is_zip = request.param == "new"

    def save(content):
        path = tmp_path / "file.pth"
        torch.save(content, path, _use_new_zipfile_serialization=is_zip)
        return path

    return save


def assert_same(found, want, torch):
    """What was read here equals what torch.load gave, bit by bit."""
    if isinstance(want, torch.Tensor):
        assert isinstance(found, np.ndarray)
        assert f"torch.{found.dtype}" == str(want.dtype)
        assert found.shape == tuple(want.shape)
        if want.dtype == torch.bfloat16:
            found, want = found.view(np.int16), want.view(torch.int16)
        np.testing.assert_array_equal(found, want.detach().numpy())
        assert found.tobytes() == want.detach().numpy().tobytes()
    elif isinstance(want, dict):
        assert list(found) == list(want)
        for key, value in want.items():
            assert_same(found[key], value, torch)
    elif isinstance(want, list | tuple):
        assert len(found) == len(want)
        for one, other in zip(found, want, strict=True):
            assert_same(one, other, torch)
    else:
        assert found == want


def check(path, torch):
    found = read_torch_file(path)
    assert_same(found, torch.load(path, map_location="cpu", weights_only=True), torch)
    return found


@pytest.mark.parametrize("name", FLOATS + INTEGERS)
def test_numbers_of_all_types(name, save, torch):
    numbers = torch.randint(-99, 99, (5, 7), generator=torch.manual_seed(1))
    check(save([numbers.to(getattr(torch, name)), torch.ones(()).to(numbers)]), torch)


def test_special_numbers_keep_their_bits(save, torch):
    bits = torch.tensor([0x7FC00001, -1, 0x7F800000, -0x80000000], dtype=torch.int32)
    check(save([bits.view(torch.float32), bits.clone().view(torch.bfloat16)]), torch)


def test_views_and_shared_storages(save, torch):
    base = torch.arange(60.0).reshape(3, 4, 5)
    content = {
        "transposed": base.transpose(0, 2),
        "part": base[1:, ::2, 3],
        "expanded": torch.arange(3.0)[1:2].expand(1, 3)[:, :1],
        "repeated inside its storage": base[0, 0, :2].unsqueeze(0).expand(4, 2),
        "windows": base.flatten()[:20].unfold(0, 3, 1)[:9],
        "channels last": torch.ones(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "offset": base.flatten()[17:],
        "scalar of it": base[2, 3, 4],
        "empty": torch.zeros(0, 3),
        "empty part": base[:, 2:2],
        "none": torch.tensor([]),
        "same": [base, base],
    }
    found = check(save(content), torch)
    found["same"][0][0, 0, 0] = 8  # what shared a storage still does
    assert found["transposed"][0, 0, 0] == found["same"][1][0, 0, 0] == 8


def test_parameters_modules_and_optimizers(save, torch):
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(2, 1, 4, 4)).sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [30, 60])
    marked = torch.nn.Parameter(torch.ones(2))
    marked.is_shared = True
    content = {
        "model": model.state_dict(),  # its `_metadata` does not become a key
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "parameters": list(model.parameters()),
        "marked": marked,
        "size": marked.shape,
        "epoch": 7,
        "large": [2**40, -(2**70), 1.5, None, True],
    }
    check(save(content), torch)


def test_containers_of_training_scripts(save):
    content = {
        "args": argparse.Namespace(lr=0.1, data=argparse.Namespace(sizes=(224, 500))),
        "counts": collections.Counter("aab"),
        "defaults": collections.defaultdict(list, a=[1]),
        "names": {"a", "b"},
        "seed": np.int64(3),
        "lw": {"P": np.arange(6.0).reshape(2, 3)},
    }
    found = read_torch_file(save(content))
    assert found["args"] == {"lr": 0.1, "data": {"sizes": (224, 500)}}
    assert found["counts"] == {"a": 2, "b": 1}
    assert (found["defaults"], found["names"]) == ({"a": [1]}, {"a", "b"})
    assert found["seed"] == 3
    np.testing.assert_array_equal(np.asarray(found["lw"]["P"]), content["lw"]["P"])


class Odd:
    """A class that no table lists."""

    def __init__(self):
        self.weight = np.arange(3)


def test_classes_that_a_caller_lists_are_read_as_attributes(save):
    path = save({"pca": Odd()})
    with pytest.raises(InputError, match=rf"asks for {__name__}\.Odd, expected"):
        read_torch_file(path)
    found = read_torch_file(path, attribute_classes=[f"{__name__}.*"])
    np.testing.assert_array_equal(np.asarray(found["pca"]["weight"]), np.arange(3))


def test_a_reference_file_with_its_optimizer(
    state_dict_of, save_reference, torch, tmp_path
):
    for file_format in ("old", "new"):
        path = tmp_path / "file.pth"
        check(save_reference(state_dict_of("resnet18"), path, file_format), torch)


def test_a_file_that_was_written_by_torch_of_2019():
    # PyTorch 1.1 under Python 2.7: a small model after a step of SGD, and views.
    found = read_torch_file(FILES / "torch_1_1_python_2.pth")
    base = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    views = [base.T, base[1:, ::2, 3], base.ravel()[17:], base[2, 3, 4]]
    views += [np.zeros((0, 3), np.float32), base, base]
    for value, want in zip(found["views"], views, strict=True):
        np.testing.assert_array_equal(value, want)
    types = ["float16", "float64", "int64", "int32", "int16", "int8", "uint8"]
    for value, want in zip(found["types"], types, strict=False):
        assert value.dtype == want
        np.testing.assert_array_equal(value, base)
    assert list(found["model_state"])[:3] == ["0.weight", "0.bias", "1.weight"]
    assert found["extra"] == {"beta": 0.625, "b2": 0.5}
    assert found["args"] == {"lr": 0.1}
    assert found["size"] == (3, 4, 5)


def test_tags_of_devices_do_not_matter(torch, tmp_path):
    path = tmp_path / "file.pth"
    tensor = torch.arange(5.0)
    torch.save(tensor, path, _use_new_zipfile_serialization=False)
    path.write_bytes(
        path.read_bytes().replace(b"\x03\x00\x00\x00cpu", b"\x06\x00\x00\x00cuda:0")
    )
    np.testing.assert_array_equal(read_torch_file(path), tensor.numpy())


@pytest.mark.parametrize("how", ["script", "trace"])
def test_the_state_of_a_torchscript_archive(how, torch, tmp_path):
    inner = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    model = torch.nn.Sequential(inner, torch.nn.Flatten(), torch.nn.Linear(2, 3))
    model.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        if how == "script":
            archive = torch.jit.script(model)
        else:
            archive = torch.jit.trace(model, torch.ones(1, 1, 3, 3))
        archive.save(tmp_path / "file.torchscript.pt")
    assert is_torchscript_archive(tmp_path / "file.torchscript.pt")
    found = read_torchscript_state(tmp_path / "file.torchscript.pt")
    want = model.state_dict()
    assert_same(dict(sorted(found.items())), dict(sorted(want.items())), torch)
    with pytest.raises(InputError, match=r"a TorchScript archive of __torch__\.\S+"):
        read_torch_file(tmp_path / "file.torchscript.pt")
    torch.save(want, tmp_path / "file.pth")
    assert not is_torchscript_archive(tmp_path / "file.pth")
    for content in (b"", b"PK\x03\x04 and no archive"):
        (tmp_path / "damaged.pt").write_bytes(content)
        assert not is_torchscript_archive(tmp_path / "damaged.pt")
    with pytest.raises(InputError, match="found no tree of modules"):
        read_torchscript_state(tmp_path / "file.pth")


def test_the_tool_needs_no_torch(state_dict_of, save_reference, tmp_path, request):
    save_reference(state_dict_of("resnet18"), tmp_path / "file.pth")
    code = (
        "import sys; sys.modules.update(torch=None, safetensors=None)\n"
        "from tools.convert_checkpoint import main\n"
        f"sys.exit(main([{str(tmp_path / 'file.pth')!r}, {str(tmp_path / 'out')!r}]))"
    )
    root = request.config.rootpath
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "resnet18" in done.stdout
