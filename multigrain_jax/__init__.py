"""MultiGrain in JAX: one embedding for classification, retrieval and copies."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multigrain_jax.evaluation.search import DescriptorIndex
    from multigrain_jax.inference import LoadedModel, load_model, preprocess
    from multigrain_jax.models.multigrain import BACKBONES, Output, create_model

__all__ = [
    "BACKBONES",
    "DescriptorIndex",
    "LoadedModel",
    "Output",
    "create_model",
    "load_model",
    "preprocess",
]

# The loader's reading processes import this package too and need no accelerator
# library: the names are looked up when they are first used.
_HOMES = {
    "BACKBONES": "multigrain_jax.models.multigrain",
    "DescriptorIndex": "multigrain_jax.evaluation.search",
    "LoadedModel": "multigrain_jax.inference",
    "Output": "multigrain_jax.models.multigrain",
    "create_model": "multigrain_jax.models.multigrain",
    "load_model": "multigrain_jax.inference",
    "preprocess": "multigrain_jax.inference",
}


def __getattr__(name: str) -> Any:
    import importlib

    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'multigrain_jax' has no attribute {name!r}")
