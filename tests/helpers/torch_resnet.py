"""ResNets in plain PyTorch, written from the papers, with torchvision's keys.

The keys are those of `torchvision/models/resnet.py` of github.com/pytorch/vision (at
f50e776b051ddf007b90d7bc8f70b0708c12d008): conv1, bn1, layer1 to layer4 with
conv1/bn1 to conv3/bn3 and downsample.0/1 in each block, fc. Those of timm's
`timm/models/resnet.py` (at 749856cf25ae0605f56233e86ea0b0e2ac29ea52 of
github.com/huggingface/pytorch-image-models) are the same.
"""

from types import ModuleType
from typing import Any


def residual_class(
    torch: ModuleType, *, block: str, groups: int, width_per_group: int
) -> Any:
    """The residual block of a network: (inputs, planes, stride) -> module."""
    nn, relu = torch.nn, torch.nn.functional.relu

    class Residual(nn.Module):
        def __init__(self, inputs, planes, stride):
            super().__init__()
            if block == "basic":
                outputs = planes
                shapes = [(inputs, planes, 3, stride, 1), (planes, planes, 3, 1, 1)]
            else:
                outputs = 4 * planes
                inner = planes * width_per_group // 64 * groups
                shapes = [
                    (inputs, inner, 1, 1, 1),
                    (inner, inner, 3, stride, groups),
                    (inner, outputs, 1, 1, 1),
                ]
            self.count = len(shapes)
            for number, (into, out, side, step, parts) in enumerate(shapes, start=1):
                conv = nn.Conv2d(
                    into, out, side, step, side // 2, groups=parts, bias=False
                )
                setattr(self, f"conv{number}", conv)
                setattr(self, f"bn{number}", nn.BatchNorm2d(out))
            self.downsample = None
            if stride != 1 or inputs != outputs:
                self.downsample = nn.Sequential(
                    nn.Conv2d(inputs, outputs, 1, stride, bias=False),
                    nn.BatchNorm2d(outputs),
                )

        def forward(self, x):
            y = x
            for number in range(1, self.count + 1):
                y = getattr(self, f"conv{number}")(y)
                y = getattr(self, f"bn{number}")(y)
                y = relu(y) if number < self.count else y
            return relu(y + (x if self.downsample is None else self.downsample(x)))

    return Residual


def make_torch_resnet(
    torch: ModuleType,
    *,
    block: str,
    stages: tuple[int, ...],
    width: int = 64,
    groups: int = 1,
    width_per_group: int = 64,
    num_classes: int = 5,
    seed: int = 0,
) -> Any:
    """A network in evaluation mode with random weights: images -> logits.

    Its `features` maps images to the last feature map. `num_classes = 0`: no `fc`.
    """
    nn, relu = torch.nn, torch.nn.functional.relu
    residual = residual_class(
        torch, block=block, groups=groups, width_per_group=width_per_group
    )

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            channels = width
            for number, count in enumerate(stages):
                blocks = []
                for position in range(count):
                    stride = 2 if number > 0 and position == 0 else 1
                    blocks.append(residual(channels, width * 2**number, stride))
                    channels = width * 2**number * (1 if block == "basic" else 4)
                setattr(self, f"layer{number + 1}", nn.Sequential(*blocks))
            self.fc = nn.Linear(channels, num_classes) if num_classes else None

        def features(self, x):
            x = relu(self.bn1(self.conv1(x)))
            x = nn.functional.max_pool2d(x, 3, 2, 1)
            for number in range(len(stages)):
                x = getattr(self, f"layer{number + 1}")(x)
            return x

        def forward(self, x):
            return self.fc(self.features(x).mean(dim=(2, 3)))

    network = Network()
    randomize(torch, network, seed=seed)
    return network.eval()


def randomize(torch: ModuleType, network: Any, *, seed: int) -> None:
    """Draw every parameter and statistic, none of them trivial, the maps of size 1."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in network.state_dict().items():
        leaf = name.rpartition(".")[2]
        if value.ndim == 4:
            fan_in = value[0].numel()
            value.normal_(0, (2 / fan_in) ** 0.5, generator=generator)
        elif value.ndim == 2:
            value.normal_(0, value.shape[1] ** -0.5, generator=generator)
        elif leaf in ("weight", "running_var"):
            value.uniform_(0.5, 1.0, generator=generator)
        elif leaf in ("bias", "running_mean"):
            value.normal_(0, 0.2, generator=generator)


def gem_of(torch: ModuleType, features: Any, exponent: float) -> Any:
    """GeM over the positions of a map [B, C, H, W], as the paper has it."""
    powers = torch.clamp(features, min=1e-6) ** exponent
    return powers.mean(dim=(2, 3)) ** (1 / exponent)


def arrays_of(network: Any) -> dict[str, Any]:
    """The state dict as NumPy arrays."""
    return {key: value.numpy() for key, value in network.state_dict().items()}
