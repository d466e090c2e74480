"""The engines that measure/embed.py compares, each from the same folded weights.

An engine maps normalised float32 [B, S, S, 3] to descriptors [B, D]. Weights are
arrays by path, kernels as [out, in, height, width]: "conv1/kernel",
"stages/0/0/shortcut_conv/bias". Libraries are imported by the engine that needs them:
their import is part of what is measured.
"""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

Engine = Callable[[np.ndarray], np.ndarray]
Weights = Mapping[str, np.ndarray]

EXPONENT = 3.0
SMALLEST = 1e-6  # of GeM, and what is added to a length


def num_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def conv_names(weights: Weights) -> list[str]:
    """The convolutions' paths, in the order of the network."""
    return [key.removesuffix("/kernel") for key in weights if key.endswith("/kernel")]


def stride_of(name: str, names: list[str]) -> int:
    """The stride of a convolution of a ResNet."""
    *place, layer = name.split("/")
    if not place:
        return 2
    has_three = any(each.endswith("/conv3") for each in names)
    halving = ("conv2" if has_three else "conv1", "shortcut_conv")
    return 2 if place[1] != "0" and place[2] == "0" and layer in halving else 1


def resnet(
    x: Any,
    names: list[str],
    *,
    conv: Callable[[str, Any], Any],
    relu: Callable[[Any], Any],
    add: Callable[[Any, Any], Any],
    max_pool: Callable[[Any], Any],
) -> Any:
    """The features of a ResNet, in whatever the four operations work on."""
    x = max_pool(relu(conv("conv1", x)))
    for block in dict.fromkeys(name.rpartition("/")[0] for name in names):
        if not block:
            continue
        layers = [n for n in names if n.startswith(f"{block}/conv")]
        branch = x
        for layer in sorted(layers):
            branch = conv(layer, branch if branch is x else relu(branch))
        shortcut = f"{block}/shortcut_conv"
        x = relu(add(branch, conv(shortcut, x) if shortcut in names else x))
    return x


def write_onnx(weights: Weights, path: Path) -> None:
    """The whole network as an ONNX file: images [B, 3, S, S] -> descriptors [B, D]."""
    import onnx  # pyright: ignore[reportMissingImports] - of the extra `benchmark`

    helper = onnx.helper

    nodes, constants = [], []

    def constant(name: str, values: np.ndarray | float) -> str:
        array = np.asarray(values, None if name == "axes" else np.float32, order="C")
        constants.append(onnx.numpy_helper.from_array(array, name))
        return name

    def emit(operation: str, *inputs: str, **attributes: Any) -> str:
        name = f"v{len(nodes)}"
        nodes.append(helper.make_node(operation, inputs, [name], **attributes))
        return name

    names = conv_names(weights)

    def conv(name: str, x: str) -> str:
        kernel, bias = weights[f"{name}/kernel"], weights[f"{name}/bias"]
        side, stride = kernel.shape[-1], stride_of(name, names)
        return emit(
            "Conv",
            x,
            constant(f"{name}/kernel", kernel),
            constant(f"{name}/bias", bias),
            kernel_shape=[side, side],
            strides=[stride, stride],
            pads=[side // 2] * 4,
        )

    def max_pool(x: str) -> str:
        return emit("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)

    features = resnet(
        "images",
        names,
        conv=conv,
        relu=lambda x: emit("Relu", x),
        add=lambda a, b: emit("Add", a, b),
        max_pool=max_pool,
    )
    smallest = constant("smallest", SMALLEST)
    clamped = emit("Max", features, smallest)
    powers = emit("Pow", clamped, constant("p", EXPONENT))
    means = emit("Flatten", emit("GlobalAveragePool", powers))
    pooled = emit("Pow", means, constant("root", 1 / EXPONENT))
    length = emit("ReduceL2", pooled, constant("axes", np.array([1])), keepdims=1)
    out = emit("Div", pooled, emit("Add", length, smallest))
    images = helper.make_tensor_value_info(
        "images", onnx.TensorProto.FLOAT, ["B", 3, "H", "W"]
    )
    found = helper.make_tensor_value_info(out, onnx.TensorProto.FLOAT, ["B", None])
    graph = helper.make_graph(nodes, "descriptors", [images], [found], constants)
    versions = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=versions, ir_version=9), str(path))


def pytorch(weights: Weights, *, compiled: bool) -> Engine:
    """PyTorch, channels last, without gradients; compiled with frozen weights."""
    import torch
    from torch import nn

    torch.set_num_threads(num_cores())
    names = conv_names(weights)

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convs = nn.ModuleDict()
            for name in names:
                kernel = torch.from_numpy(weights[f"{name}/kernel"])
                out, inputs, side, _ = kernel.shape
                stride = stride_of(name, names)
                layer = nn.Conv2d(inputs, out, side, stride, side // 2)
                layer.weight.data = kernel
                layer.bias.data = torch.from_numpy(weights[f"{name}/bias"])  # type: ignore[union-attr] # it has one
                self.convs[name.replace("/", "_")] = layer

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            features = resnet(
                x,
                names,
                conv=lambda name, x: self.convs[name.replace("/", "_")](x),
                relu=torch.relu,
                add=torch.add,
                max_pool=lambda x: nn.functional.max_pool2d(x, 3, 2, 1),
            )
            powers = features.clamp(min=SMALLEST) ** EXPONENT
            pooled = powers.mean(dim=(2, 3)) ** (1 / EXPONENT)
            return pooled / (pooled.norm(dim=1, keepdim=True) + SMALLEST)

    network: Any = Network().eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload] # not in the stubs
    if compiled:
        import torch._inductor.config as inductor

        inductor.freezing = True
        network = torch.compile(network)

    def run(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            # A view: NHWC in memory is what PyTorch calls channels last.
            return network(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()

    return run


def onnxruntime(path: Path) -> Engine:
    """ONNX Runtime on all cores."""
    import onnxruntime as ort  # pyright: ignore[reportMissingImports] - of the extra `benchmark`

    options = ort.SessionOptions()
    options.intra_op_num_threads = num_cores()
    session = ort.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"]
    )

    def run(images: np.ndarray) -> np.ndarray:
        inputs = {"images": np.ascontiguousarray(images.transpose(0, 3, 1, 2))}
        return np.asarray(session.run(None, inputs)[0])

    return run


def openvino(path: Path) -> Engine:
    """OpenVINO on all cores, in float32; compiled anew for each shape."""
    # It would tell its makers of the import, over the network and from a fork of this.
    sys.modules.setdefault("openvino_telemetry", cast(Any, None))
    import openvino as ov  # pyright: ignore[reportMissingImports] - of the extra `benchmark`

    core = ov.Core()
    settings = {
        "INFERENCE_NUM_THREADS": num_cores(),
        "INFERENCE_PRECISION_HINT": "f32",
    }
    model = core.read_model(str(path))
    compiled: dict[tuple[int, ...], Any] = {}

    def run(images: np.ndarray) -> np.ndarray:
        inputs = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        if inputs.shape not in compiled:
            model.reshape(list(inputs.shape))
            compiled[inputs.shape] = core.compile_model(model, "CPU", settings)
        return np.array(compiled[inputs.shape](inputs)[0])

    return run
