"""The joint training step in PyTorch, written from its description.

The yardstick of measure/step.py, which runs it in a process of its own: a
ResNet with GeM pooling (p = 3), λ = 0.5, margin loss with uniform negatives drawn on
the device (one repetition: cross-entropy alone), fused SGD, channels_last, autocast for
bfloat16. Images come normalised; batch norm sees the whole batch.

    python measure/pytorch_step.py --backbone resnet18 --size 96 --batch-size 96 \
        --group-size 48 --repeats 3 --steps 10
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch
    from torch import nn

# backbone -> (basic block?, blocks per stage)
STAGES = {
    "resnet18": (True, (2, 2, 2, 2)),
    "resnet50": (False, (3, 4, 6, 3)),
    "resnet101": (False, (3, 4, 23, 3)),
    "resnet152": (False, (3, 8, 36, 3)),
}
MARGIN = 0.2


class Measured(NamedTuple):
    """What is printed, as one line of JSON."""

    seconds: float  # per update
    platform: str  # "gpu" or "cpu", as JAX calls them
    device: str
    peak_bytes: int | None  # of the GPU's memory


def make_network(backbone: str, num_classes: int) -> "nn.Module":
    """Images [B, 3, S, S] -> (embedding, logits)."""
    import torch
    from torch import nn

    basic, stages = STAGES[backbone]
    expansion = 1 if basic else 4

    def conv(inputs: int, outputs: int, size: int, stride: int = 1) -> list[nn.Module]:
        layer = nn.Conv2d(
            inputs, outputs, size, stride=stride, padding=size // 2, bias=False
        )
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        return [layer, nn.BatchNorm2d(outputs)]

    class Block(nn.Module):
        def __init__(self, inputs: int, width: int, stride: int):
            super().__init__()
            outputs = width * expansion
            if basic:
                layers = [*conv(inputs, width, 3, stride), nn.ReLU(inplace=True)]
                layers += conv(width, outputs, 3)
            else:
                layers = [*conv(inputs, width, 1), nn.ReLU(inplace=True)]
                layers += [*conv(width, width, 3, stride), nn.ReLU(inplace=True)]
                layers += conv(width, outputs, 1)
            self.branch = nn.Sequential(*layers)
            changed = stride != 1 or inputs != outputs
            shortcut = conv(inputs, outputs, 1, stride) if changed else []
            self.shortcut = nn.Sequential(*shortcut)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.branch(x) + self.shortcut(x))

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers = [*conv(3, 64, 7, 2), nn.ReLU(inplace=True)]
            layers.append(nn.MaxPool2d(3, stride=2, padding=1))
            inputs = 64
            for number, blocks in enumerate(stages):
                for position in range(blocks):
                    stride = 2 if number and not position else 1
                    layers.append(Block(inputs, 64 * 2**number, stride))
                    inputs = 64 * 2**number * expansion
            self.trunk = nn.Sequential(*layers)
            self.classifier = nn.Linear(inputs, num_classes)

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            maps = self.trunk(images).float().clamp(min=1e-6)
            embedding = maps.pow(3).mean(dim=(2, 3)).pow(1 / 3)
            return embedding, self.classifier(embedding)

    return Network()


def margin_loss(
    embedding: "torch.Tensor",
    ids: "torch.Tensor",
    beta: "torch.Tensor",
    *,
    group_size: int,
    count: int,
) -> "torch.Tensor":
    """The margin loss with `count` positives and negatives from each sample's group."""
    import torch

    normalized = embedding / (embedding.norm(dim=1, keepdim=True) + 1e-6)
    batch, dim = normalized.shape
    group = min(group_size, batch)
    grouped = normalized.view(-1, group, dim)
    names = ids.view(-1, group)
    same = names[:, :, None] == names[:, None, :]
    itself = torch.eye(group, dtype=torch.bool, device=ids.device)
    positives = (same & ~itself).float()
    # The largest of uniform noise: a choice without replacement.
    noise = torch.rand_like(positives)
    present, positive = (positives * (1 + noise)).topk(count, dim=2)
    _, negative = ((~same).float() * (1 + noise)).topk(count, dim=2)

    def distance(other: torch.Tensor) -> torch.Tensor:
        index = other.reshape(other.shape[0], -1, 1).expand(-1, -1, dim)
        chosen = grouped.gather(1, index).view(-1, group, count, dim)
        return ((grouped[:, :, None] - chosen).square().sum(-1) + 1e-8).sqrt()

    mask = (present > 0).float()
    too_far = torch.relu(distance(positive) - beta + MARGIN) * mask
    too_near = torch.relu(beta - distance(negative) + MARGIN) * mask
    active = (too_far > 0).sum() + (too_near > 0).sum()
    return (too_far.sum() + too_near.sum()) / active.clamp(min=1)


def make_step(
    backbone: str,
    *,
    size: int,
    batch_size: int,
    group_size: int,
    repeats: int,
    bfloat16: bool,
) -> Callable[[], "torch.Tensor"]:
    """A function that runs one update on a fixed batch and returns the loss.

    The network is compiled on a GPU, and runs as it is on a CPU.
    """
    import torch
    from torch.nn import functional

    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = make_network(backbone, 1000).to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's types lack it
    beta = torch.nn.Parameter(torch.tensor(1.2, device=device))
    optimizer = torch.optim.SGD(
        [{"params": network.parameters(), "weight_decay": 1e-4}, {"params": [beta]}],
        lr=0.01,
        momentum=0.9,
        fused=True,
    )
    torch.backends.cudnn.benchmark = True
    # Float32 products as JAX computes them: on a GPU as TensorFloat-32.
    torch.set_float32_matmul_precision("high" if device == "cuda" else "highest")

    def loss_of(
        images: torch.Tensor, labels: torch.Tensor, ids: torch.Tensor
    ) -> torch.Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=bfloat16):
            embedding, logits = network(images)
        entropy = functional.cross_entropy(logits.float(), labels)
        if repeats == 1:
            return entropy
        margin = margin_loss(
            embedding, ids, beta, group_size=group_size, count=repeats - 1
        )
        return (entropy + margin) / 2

    if device == "cuda":
        loss_of = torch.compile(loss_of)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn((batch_size, 3, size, size), generator=generator)
    images = images.to(device, memory_format=torch.channels_last)
    ids = torch.arange(batch_size, device=device) // repeats
    labels = ids % 1000

    def step() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(images, labels, ids)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def measure(step: Callable[[], object], *, steps: int) -> Measured:
    """The best of three rounds, each waited for at its end, and the device."""
    import torch

    on_gpu = torch.cuda.is_available()

    for _ in range(3):
        step()
    rounds = []
    for _ in range(3):
        started = time.perf_counter()
        for _ in range(steps):
            step()
        if on_gpu:
            torch.cuda.synchronize()
        rounds.append((time.perf_counter() - started) / steps)
    return Measured(
        seconds=min(rounds),
        platform="gpu" if on_gpu else "cpu",
        device=torch.cuda.get_device_name() if on_gpu else "cpu",
        peak_bytes=torch.cuda.max_memory_allocated() if on_gpu else None,
    )


def main(arguments: list[str] | None = None) -> None:
    """Measure, and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", choices=list(STAGES), required=True)
    for name in ("size", "batch-size", "group-size", "repeats", "steps"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--bfloat16", action="store_true")
    options = vars(parser.parse_args(arguments))
    steps = options.pop("steps")
    print(json.dumps(measure(make_step(**options), steps=steps)._asdict()))


if __name__ == "__main__":
    main()
