"""The original's training input in PyTorch, written from its description.

The yardstick of measure/input.py: every augmented sample is decoded, cropped,
flipped, jittered, made a float tensor, lit and normalised by torchvision and Pillow.
"""

import functools
import importlib
import importlib.machinery
import io
import sys
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from multigrain_jax.data.sources.source import ImageSource
from multigrain_jax.data.train_batches import HOST_AUGMENTATIONS

if TYPE_CHECKING:
    import torch

JITTER = 0.3
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Lighting's eigenvectors times its eigenvalues.
LIGHTING = np.array(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
) * np.array([0.2175, 0.0188, 0.0045])

# From a file's bytes on, a stage takes what the one before it gives.
Stage = Callable[[Any], Any]


@functools.cache
def torchvision_transforms() -> types.ModuleType:
    """Transforms of torchvision, without its compiled operators.

    They need none of them, and where pip gives a CUDA build of torchvision beside a
    CPU build of torch, importing the whole package fails.
    """
    spec = importlib.machinery.PathFinder.find_spec("torchvision")
    if spec is None:
        sys.exit("torchvision is not installed: pip install -e '.[benchmark]'")
    package = types.ModuleType("torchvision")
    package.__path__ = list(spec.submodule_search_locations or ())
    sys.modules.setdefault("torchvision", package)
    return importlib.import_module("torchvision.transforms.transforms")


def reference_stages(augmentation: str, train_size: int) -> dict[str, Stage]:
    """The original's chain for one sample, from the file's bytes, by stage."""
    import torch

    transforms = torchvision_transforms()
    rng = np.random.default_rng()

    def light(image: torch.Tensor) -> torch.Tensor:
        shift = torch.as_tensor(
            LIGHTING @ rng.normal(0, 0.1, 3), dtype=torch.float32
        ).view(3, 1, 1)
        return ((image + shift) / 1.1).clamp(0, 1)

    stages: dict[str, Stage] = {
        "decode": lambda data: Image.open(io.BytesIO(data)).convert("RGB"),
        "crop, resize": transforms.RandomResizedCrop(train_size),
    }
    if augmentation in HOST_AUGMENTATIONS:
        # The same operations here as there, Pillow's; its flip is in it.
        stages["flip, policy"] = lambda image: HOST_AUGMENTATIONS[augmentation](
            rng, image
        )
    else:
        stages["flip"] = transforms.RandomHorizontalFlip()
        stages["colour jitter"] = transforms.ColorJitter(JITTER, JITTER, JITTER)
    stages["to float"] = transforms.ToTensor()
    if augmentation not in HOST_AUGMENTATIONS:
        stages["lighting"] = light
    stages["normalise"] = transforms.Normalize(MEAN, STD)
    return stages


class ReferenceSamples:
    """A data set for PyTorch's DataLoader: sample -> (float image, label)."""

    def __init__(self, source: ImageSource, augmentation: str, train_size: int):
        """Remember what to do; the chain is built in the process that uses it."""
        self._source, self._chain = source, (augmentation, train_size)
        self._stages: list[Stage] | None = None

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> tuple["torch.Tensor", int]:
        if self._stages is None:
            self._stages = list(reference_stages(*self._chain).values())
        sample: Any = self._source.read(index)
        for stage in self._stages:
            sample = stage(sample)
        return sample, int(self._source.labels[index])
