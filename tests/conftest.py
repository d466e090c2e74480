"""Every test runs on eight fake CPU devices, with no dtype or rank promoted."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
# The processes that tests start write their broadcasts out, too.
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"

# Tests name their own places by the other variable.
os.environ.pop("MULTIGRAIN_CACHE", None)

import atexit
import tempfile

# Many tests, and the commands that they start, compile the same programs: each is
# compiled once. Of several workers everyone has a folder of its own, since JAX does not
# write entries in one piece.
_COMPILE_CACHE = tempfile.TemporaryDirectory()
atexit.register(_COMPILE_CACHE.cleanup)
os.environ["JAX_COMPILATION_CACHE_DIR"] = _COMPILE_CACHE.name
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.5"

import gzip
import importlib
import importlib.util
import json
import signal
from pathlib import Path

import jax
import pytest
from helpers.buckets import (  # noqa: F401 - fixtures
    gcs,
    gcs_server,
    own_cache,
    s3,
    s3_server,
)
from helpers.photos import CLASS_NAMES, MIXED_SIZES, write_noise_photos

# What a script starts with `&` ignores Ctrl-C, and so does what it starts in turn.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of several workers all begin with long files, so as to end at the same time."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """The folder of numbers recorded from the original implementation."""
    return Path(__file__).parent / "goldens"


@pytest.fixture(scope="session")
def golden_weights(golden_dir: Path):
    """The module with the rule that makes golden weights and images."""
    spec = importlib.util.spec_from_file_location(
        "golden_weights", golden_dir / "weights.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def golden_manifest(golden_dir: Path):
    """name -> the keys, shapes and dtypes of a state dict (`entries`), and more."""

    def read(name: str) -> dict:
        path = golden_dir / "manifests" / f"{name}.json.gz"
        return json.loads(gzip.decompress(path.read_bytes()))

    return read


@pytest.fixture(scope="session")
def torch():
    """PyTorch; without it the test is skipped, or fails where it must be there."""
    if os.environ.get("MULTIGRAIN_REQUIRE_TORCH"):
        return importlib.import_module("torch")
    reason = "torch is not installed: pip install -e '.[convert]'"
    return pytest.importorskip("torch", reason=reason)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory):
    """A workdir with a random tiny model of three classes, p = 3."""
    from multigrain_jax.checkpoint import CheckpointStore
    from multigrain_jax.models.multigrain import create_model, split_model

    folder = tmp_path_factory.mktemp("tiny")
    _, variables = split_model(create_model("tiny", num_classes=3, seed=1))
    meta = {"backbone": "tiny", "num_classes": 3, "class_names": list(CLASS_NAMES)}
    store = CheckpointStore(folder)
    store.save(5, model=variables, meta={**meta, "config": None})
    store.close()
    return folder


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory):
    """`train/class/n.png`, six photos of mixed sizes in each of three classes."""
    root = tmp_path_factory.mktemp("photos")
    write_noise_photos(root / "train", count=len(MIXED_SIZES), sizes=MIXED_SIZES)
    return root


@pytest.fixture
def readings(monkeypatch):
    """How each pass over images is to be read; it is read with threads instead."""
    from multigrain_jax.data import eval_batches, train_batches
    from multigrain_jax.data.reading import iterate

    seen = []

    def iterate_with_threads(make, numbers, *, batch_bytes, photo_bytes, reading):
        seen.append(reading)
        threads = reading._replace(num_workers=0)
        return iterate(
            make,
            numbers,
            batch_bytes=batch_bytes,
            photo_bytes=photo_bytes,
            reading=threads,
        )

    for module in (eval_batches, train_batches):
        monkeypatch.setattr(module, "iterate", iterate_with_threads)
    return seen
