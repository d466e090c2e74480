"""Other networks with their descriptor heads in plain PyTorch, and their files.

Written from their public definitions (cited in `multigrain_jax/convert/heads/`) on top
of `torch_resnet`, with random weights. With the trunk of the tiny network, files say
that they are a ResNet-18. Each `content` is what their code saves: dictionaries,
tensors, NumPy's arrays.
"""

import re
import sys
import types
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from helpers.torch_resnet import gem_of, make_torch_resnet, randomize

DEPTHS: dict[str, dict[str, Any]] = {
    "tiny": {"block": "basic", "stages": (2,), "width": 8},
    "resnet18": {"block": "basic", "stages": (2, 2, 2, 2)},
    "resnet50": {"block": "bottleneck", "stages": (3, 4, 6, 3)},
    "resnet101": {"block": "bottleneck", "stages": (3, 4, 23, 3)},
}
WIDTHS = {"tiny": 8, "resnet18": 512, "resnet50": 2048, "resnet101": 2048}
NAMES = {"tiny": "resnet18"}
# torchvision's module within a block -> Classy Vision's, of bottlenecks and of others.
CLASSY_BOTTLENECK = {
    "conv1": "convolutional_block.0",
    "bn1": "convolutional_block.1",
    "conv2": "convolutional_block.3",
    "bn2": "convolutional_block.4",
    "conv3": "convolutional_block.6",
    "bn3": "bn",
}
CLASSY_BASIC = {**CLASSY_BOTTLENECK, "bn2": "bn"}


class Foreign(NamedTuple):
    """A network of another project.

    Attributes:
        content: what its file holds.
        describe: images [B, 3, H, W] as a tensor -> descriptors [B, K] as an array.
    """

    content: Any
    describe: Callable[[Any], np.ndarray]


def trunk_of(torch: ModuleType, name: str, *, rows: int = 0) -> Any:
    """A ResNet with random weights, `rows` rows in its `fc`."""
    return make_torch_resnet(torch, **DEPTHS[name], num_classes=rows)


def sscd(torch: ModuleType, *, name: str = "resnet50", dims: int = 512) -> Any:
    """SSCD's network as a module with torchvision's layout."""

    class Sscd(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = trunk_of(torch, name, rows=dims)

        def forward(self, images):
            pooled = gem_of(torch, self.backbone.features(images), 3.0)
            return torch.nn.functional.normalize(self.backbone.fc(pooled))

    return Sscd().eval()


def classy_keys(state_dict: dict[str, Any]) -> dict[str, Any]:
    """SSCD's state dict with torchvision's layout, in that of Classy Vision."""
    is_basic = not any(".conv3." in key for key in state_dict)
    inner = CLASSY_BASIC if is_basic else CLASSY_BOTTLENECK
    found = {}
    for key, value in state_dict.items():
        bare = key.removeprefix("backbone.")
        module, _, leaf = bare.rpartition(".")
        match = re.fullmatch(r"layer(\d)\.(\d+)\.(.+)", module)
        if module == "fc":
            found[f"embeddings.1.{leaf}"] = value
        elif match is None:
            place = {"conv1": 0, "bn1": 1}[module]
            found[f"backbone.initial_block._module.{place}.{leaf}"] = value
        else:
            stage, block = int(match[1]) - 1, match[2]
            part = inner.get(match[3], match[3])
            name = f"backbone.blocks.{stage}.block{stage}-{block}.{part}.{leaf}"
            found[name] = value
    return found


def cirtorch(
    torch: ModuleType,
    *,
    name: str = "resnet50",
    trained: bool = True,
    fitted: bool = True,
) -> Foreign:
    """GeM with a learned p, and one whitening after the other, as there are."""
    trunk = trunk_of(torch, name)
    exponent = torch.tensor([2.75])
    dim = WIDTHS[name]
    whiten = torch.nn.Linear(dim, dim)
    randomize(torch, whiten, seed=3)
    whiten.bias.data.mul_(0.1)  # as large as what it is added to
    rng = np.random.default_rng(4)
    mean = rng.normal(0, 0.02, (dim, 1))
    matrix = rng.normal(0, dim**-0.5, (dim, dim))
    children = ("conv1", "bn1", None, None, "layer1", "layer2", "layer3", "layer4")
    numbers = {child: number for number, child in enumerate(children)}
    state_dict = {
        f"features.{numbers[key.partition('.')[0]]}.{key.partition('.')[2]}": value
        for key, value in trunk.state_dict().items()
    }
    state_dict["pool.p"] = exponent
    if trained:
        state_dict |= {f"whiten.{k}": v for k, v in whiten.state_dict().items()}
    meta = {
        "architecture": NAMES.get(name, name),
        "local_whitening": False,
        "pooling": "gem",
        "regional": False,
        "whitening": trained,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "outputdim": dim,
    }
    if fitted:
        several = {"m": mean + 1, "P": matrix + 1}
        meta["Lw"] = {"a-data-set": {"ss": {"m": mean, "P": matrix}, "ms": several}}

    def unit(x):
        return x / (x.norm(dim=1, keepdim=True) + 1e-6)

    def describe(images):
        with torch.no_grad():
            x = unit(gem_of(torch, trunk.features(images), float(exponent)))
            x = unit(whiten(x)) if trained else x
        if not fitted:
            return x.numpy()
        vectors = matrix @ (x.numpy().astype(np.float64).T - mean)
        return (vectors / (np.linalg.norm(vectors, axis=0) + 1e-6)).T

    return Foreign({"meta": meta, "state_dict": state_dict}, describe)


def deep_image_retrieval(
    torch: ModuleType,
    *,
    name: str = "resnet101",
    dims: int = 2048,
    power: float = 0.25,
    norm_features: bool = False,
    pca_class: str = "sklearn.decomposition.pca",
) -> Foreign:
    """AP-GeM: GeM, linear, unit length, PCA by its variances to a power, unit length.

    `content` names a class of scikit-learn: it is to be saved within `pickled_as`.
    """
    trunk = trunk_of(torch, name, rows=dims)
    exponent = torch.tensor([2.9])
    rng = np.random.default_rng(5)
    pca = make_pca_class(pca_class)()
    pca.mean_ = rng.normal(0, 0.02, dims)
    pca.components_ = rng.normal(0, dims**-0.5, (dims, dims))
    pca.explained_variance_ = rng.uniform(1e-3, 1.0, dims)
    pca.whiten, pca.svd_solver, pca.n_components = True, "full", None
    pca.noise_variance_ = np.float64(0.0)
    state_dict = {f"module.{key}": value for key, value in trunk.state_dict().items()}
    state_dict["module.adpool.p"] = exponent
    arch = f"{NAMES.get(name, name)}_rmac"
    options: dict[str, Any] = {
        "arch": arch,
        "out_dim": dims,
        "pooling": "gem",
        "gemp": 3,
    }
    options["norm_features"] = norm_features
    normalize = torch.nn.functional.normalize

    def describe(images):
        with torch.no_grad():
            x = gem_of(torch, trunk.features(images), float(exponent))
            x = normalize(trunk.fc(normalize(x) if norm_features else x))
        x = (x.numpy().astype(np.float64) - pca.mean_) @ pca.components_.T
        x = x / pca.explained_variance_**power
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    preprocess = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    content = {
        "model_options": options,
        "state_dict": state_dict,
        "preprocess": preprocess,
        "pca": {"Landmarks_clean": pca},
        "epoch": 3,
    }
    return Foreign(content, describe)


def make_pca_class(module: str) -> type:
    """A class that pickles as scikit-learn's PCA of some version does."""
    return type("PCA", (), {"__module__": module})


@contextmanager
def pickled_as(instance: Any) -> Generator[None]:
    """Within it, the class of an object can be found where it says that it is."""
    kind = type(instance)
    module = types.ModuleType(kind.__module__)
    vars(module)["PCA"] = kind
    before = sys.modules.get(kind.__module__)
    sys.modules[kind.__module__] = module
    try:
        yield
    finally:
        del sys.modules[kind.__module__]
        if before is not None:
            sys.modules[kind.__module__] = before
