"""MultiGrain in JAX: one embedding for classification, retrieval and copies.

    import multigrain_jax

    model = multigrain_jax.load_model("workdirs/quickstart")
    model.similarity("one.jpg", "other.jpg")
    descriptors = model.embed(["one.jpg", "other.jpg"])
    output = model(model.preprocess("one.jpg")[None])
    output.normalized_embedding, output.logits

`load_model` opens a trained or converted checkpoint as a `LoadedModel`, which compares
and embeds photos, and maps images to an `Output`; `preprocess` makes such an image of a
photo, turned upright as its EXIF data says. `DescriptorIndex` searches descriptors, in
memory or in the folder that the task `embed` wrote. `find_duplicates` groups photos of
a folder that are the same or nearly so, without a network. `create_model` builds an
untrained network of one of the `BACKBONES`. `InputError` is what wrong input raises.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multigrain_jax.descriptors.index import DescriptorIndex
    from multigrain_jax.duplicates import find_duplicates
    from multigrain_jax.errors import InputError
    from multigrain_jax.inference import LoadedModel, load_model
    from multigrain_jax.models.multigrain import BACKBONES, Output, create_model
    from multigrain_jax.preprocessing import preprocess

__version__ = "0.2.0"

__all__ = [
    "BACKBONES",
    "DescriptorIndex",
    "InputError",
    "LoadedModel",
    "Output",
    "create_model",
    "find_duplicates",
    "load_model",
    "preprocess",
]

# The loader's reading processes import this package too and need no accelerator
# library: the names are looked up when they are first used.
_HOMES = {
    "BACKBONES": "multigrain_jax.models.multigrain",
    "DescriptorIndex": "multigrain_jax.descriptors.index",
    "InputError": "multigrain_jax.errors",
    "LoadedModel": "multigrain_jax.inference",
    "Output": "multigrain_jax.models.multigrain",
    "create_model": "multigrain_jax.models.multigrain",
    "find_duplicates": "multigrain_jax.duplicates",
    "load_model": "multigrain_jax.inference",
    "preprocess": "multigrain_jax.preprocessing",
}


def __getattr__(name: str) -> Any:
    import importlib

    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'multigrain_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
