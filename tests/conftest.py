"""Every test runs on eight fake CPU devices, with strict dtype promotion."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)

import atexit
import importlib
import importlib.util
import tempfile
from pathlib import Path

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")

# Many tests compile the same programs: within a session, each is compiled once.
_COMPILE_CACHE = tempfile.TemporaryDirectory()
atexit.register(_COMPILE_CACHE.cleanup)
jax.config.update("jax_compilation_cache_dir", _COMPILE_CACHE.name)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


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
def torch():
    """PyTorch; without it the test is skipped, or fails where it must be there."""
    if os.environ.get("MULTIGRAIN_REQUIRE_TORCH"):
        return importlib.import_module("torch")
    reason = "torch is not installed: pip install -e '.[convert]'"
    return pytest.importorskip("torch", reason=reason)
