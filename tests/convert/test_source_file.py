"""Weight files of all kinds are read, and what is no weight file is refused."""

import os
import pickle

import numpy as np
import pytest

from multigrain_jax.convert.source_file import read_source_file
from multigrain_jax.errors import InputError

STATE_DICT = {
    "features.conv1.weight": np.arange(12, dtype=np.float32).reshape(2, 6),
    "features.bn1.num_batches_tracked": np.array(3),
    "pool.p": np.array(3.0, np.float32),
}


def assert_equal(found, want):
    assert found.keys() == want.keys()
    for key, value in found.items():
        assert value.dtype == want[key].dtype
        np.testing.assert_array_equal(value, want[key])


@pytest.fixture
def tensors(torch):
    return {key: torch.from_numpy(value) for key, value in STATE_DICT.items()}


@pytest.fixture(params=["old", "new"])
def save(request, torch):
    """(content, path): torch.save in one of its two formats."""
    is_zip = request.param == "new"

    def save(content, path):
        torch.save(content, path, _use_new_zipfile_serialization=is_zip)

    return save


# The original's threshold is a number of Python or of NumPy, by how it was trained.
@pytest.mark.parametrize("kind", [float, np.float64, np.float32])
def test_a_checkpoint_of_the_original(kind, tensors, save, tmp_path):
    path = tmp_path / "file.pth"
    save({"model_state": tensors, "extra": {"beta": kind(0.625)}}, path)
    file, found = read_source_file(path)
    assert (file.path, file.kind, file.beta) == (path, "reference checkpoint", 0.625)
    assert (file.inside, file.beside) == (("model_state",), ("extra",))
    assert_equal(found, STATE_DICT)


def test_state_dicts_of_the_original_and_of_zoos(tensors, save, tmp_path):
    path = tmp_path / "file.pth"
    save(tensors, path)
    file, found = read_source_file(path)
    assert (file.kind, file.beta) == ("reference state dict", None)
    assert_equal(found, STATE_DICT)
    del tensors["pool.p"]
    save(tensors, path)
    other, _ = read_source_file(path)
    assert other.kind == "model zoo" and other.sha256 != file.sha256


class _Evil:
    def __reduce__(self):
        return (os.system, ("touch evil",))


def _truncated(path, torch, tensors, save):
    save(tensors, path)
    path.write_bytes(path.read_bytes()[:-200])


def _running_code(path, torch, tensors, save):
    save({"model_state": {}, "extra": _Evil()}, path)


def _plain_pickle(path, torch, tensors, save):
    path.write_bytes(pickle.dumps({"model_state": _Evil()}, protocol=2))


def _text(path, torch, tensors, save):
    path.write_text("these are no weights\n")


def _a_list(path, torch, tensors, save):
    save(list(tensors.values()), path)


def _empty(path, torch, tensors, save):
    save({"model_state": {}}, path)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (_truncated, "is it complete"),
        (_running_code, "would run code: it asks for posix.system"),
        (_plain_pickle, "would run code: it asks for posix.system"),
        (_text, "is it a weight file"),
        (_a_list, "a state dict was expected, found list"),
        (_empty, "a state dict was expected, found an empty one"),
    ],
)
def test_other_files_are_refused_and_no_code_is_run(
    write, message, torch, tensors, save, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "file.pth", torch, tensors, save)
    with pytest.raises(InputError) as raised:
        read_source_file("file.pth")
    assert message in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file.pth"]


def test_safetensors_are_read_or_refused(tmp_path):
    path = tmp_path / "file.safetensors"
    pytest.importorskip("safetensors.numpy").save_file(STATE_DICT, path)
    file, found = read_source_file(path)
    assert (file.kind, file.beta) == ("reference state dict", None)
    assert_equal(found, STATE_DICT)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(InputError, match="is it complete"):
        read_source_file(path)


def test_a_path_without_a_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="found a folder"):
        read_source_file(tmp_path)
    with pytest.raises(InputError, match="found nothing"):
        read_source_file(tmp_path / "file.pth")
