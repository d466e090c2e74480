"""Tells networks apart whose weight files look alike: by keys, shapes and metadata.

Others' networks have a backbone's keys and more, or its keys with other widths, or its
very keys and shapes (an anti-aliased ResNet: its filters are no weights). What a file
can tell is told in one line; where it cannot, the table of a conversion says so.
"""

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from multigrain_jax.convert.keymaps import KEYMAPS
from multigrain_jax.convert.unwrap import shown
from multigrain_jax.errors import InputError
from multigrain_jax.models.backbones import backbone_row

_TIMM = Path(__file__).parent / "keymaps" / "timm_architectures.json"
# Modules behind a trunk, which networks of one architecture need not share.
_BEHIND_TRUNK = ("fc", "last_linear", "head", "classifier", "pool", "whitening")

# A key that tells, its dimensions (None: any) and what network has it.
_FEATURES: tuple[tuple[str, int | None, str], ...] = (
    (r".*\.filt", None, "a network with blur filters (antialiased-cnns)"),
    (r"conv1\.0\.weight", 4, "a ResNet with a deep stem, as resnet50d or a ResNeSt"),
    (r"layer1\.0\.conv\d\.attn\.fc_reduce\.weight", 4, "a selective-kernel ResNet"),
    (r"layer1\.0\.se\.conv\.weight", None, "an ECA-ResNet"),
    (r"layer1\.0\.se\.fc1\.weight", None, "a squeeze-and-excitation ResNet of timm"),
    (r"layer0\.conv1\.weight", 4, "an SE-ResNet or SE-ResNeXt of pretrainedmodels"),
    (r"layer1\.0\.bn1\.(IN|BN)\.weight", None, "an IBN-Net"),
    (r"cell_17\.conv_1x1\.conv\.weight", 4, "a NASNet-A-Large"),
    (r"(attnpool|visual)\..+", None, "a network of CLIP"),
    (r"(patch_embed\.proj|conv_proj)\.weight", 4, "a vision transformer"),
    (r".*embeddings\.patch_embeddings\..+", 4, "a vision transformer of transformers"),
    (r"resnet\.embedder\..+", 4, "a ResNet of transformers, whose keys are others"),
    (r"features\.denseblock1\..+", 4, "a DenseNet"),
    (r"conv_stem\.weight", 4, "an EfficientNet or MobileNet of timm"),
    (r"features\.0\.0\.weight", 4, "a MobileNet, EfficientNet or ConvNeXt"),
    (r"stages\.0\.blocks\.0\.conv_dw\.weight", 4, "a ConvNeXt of timm"),
    (r"Mixed_5b\..+", 4, "an Inception"),
    (r"features\.0\.weight", 4, "a network saved as a sequence, as a VGG"),
)
# The same beside a trunk that is as ours.
_FEATURES_BESIDE: tuple[tuple[str, int | None, str], ...] = (
    (
        r"(.*\.)?classifier\.(0\.convs\.0\.0|4)\.weight",
        4,
        "a segmentation network of torchvision, whose last stages are dilated",
    ),
)

# What may say which network it is: names of entries, and of what holds such entries.
_NAMES = ("architecture", "arch", "model_name", "model", "backbone")
_HOLDERS = ("pretrained_cfg", "args", "hyper_parameters", "model_args", "model_kwargs")
_HOLDERS += ("meta", "model_options", "preprocess")
# Arguments of timm's models that change the network and not its keys, with the values
# that leave it as it is.
_CHANGES: dict[str, tuple[str | int, ...]] = {
    "aa_layer": ("",),
    "output_stride": (32,),
}
_CHANGED = re.compile(
    r"resnet\w*aa|aa\d|blur|lpf|anti_?alias|(aa_layer|output_stride)=.*"
)
_MAX_DEPTH = 2
_MAX_CONFIG_BYTES = 1 << 20


class Claim(NamedTuple):
    """What is said of which network it is.

    Attributes:
        name: of the network, in lower case, without a hub's and a training's.
        where: it is said.
    """

    name: str
    where: str


def claims_of(
    levels: Sequence[Mapping[Any, Any]], metadata: Mapping[str, Any], config: Path
) -> tuple[Claim, ...]:
    """What a weight file and the `config.json` beside it say that it is.

    Args:
        levels: the containers around its state dict.
        metadata: of a safetensors file.
        config: where the `config.json` would be.
    """
    claims = [
        *(claim for level in levels for claim in _claims(level, "the file's ")),
        *_claims(metadata, "the file's metadata's "),
        *_claims(_read_config(config), f"{config.name}'s "),
    ]
    return tuple(dict.fromkeys(claims))


def trunk_digest(state_dict: Mapping[str, Any]) -> str:
    """A digest of the keys and shapes of a trunk, without counters and classifier."""
    lines = sorted(
        f"{key} {list(np.shape(value))}"
        for key, value in state_dict.items()
        if not key.endswith("num_batches_tracked")
        and key.partition(".")[0] not in _BEHIND_TRUNK
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def likely_architecture(
    state_dict: Mapping[str, np.ndarray], *, own: Collection[str] = ()
) -> str | None:
    """What network has such keys and shapes, in words; None if that is not known.

    Args:
        state_dict: arrays by bare key.
        own: keys that tell nothing, since the backbone in question has them.
    """
    package, names = _names_by_digest()
    same = names.get(trunk_digest(state_dict))
    if same:
        return f"{package}'s {' or '.join(same)} (the same keys and shapes)"
    return _telling_feature(state_dict, _FEATURES, own)


def require_architecture(
    backbone: str,
    state_dict: Mapping[str, np.ndarray],
    *,
    beside: Mapping[str, np.ndarray],
    claims: Sequence[Claim],
) -> str:
    """Refuse the weights of a network that is another one than the backbone.

    Args:
        backbone: whose weights they are taken for.
        state_dict: arrays by bare key.
        beside: the other arrays of the file.
        claims: what is said of which network it is.

    Returns:
        How sure it is which network it is, in words.

    Raises:
        InputError: they are another network's.
    """
    keymap = KEYMAPS[backbone]
    bare = {key.removeprefix(keymap.prefix): x for key, x in state_dict.items()}
    own = {backbone, *keymap.known_as}
    same = set(_names_by_digest()[1].get(trunk_digest(bare), ()))
    likely = _telling_feature(beside, _FEATURES_BESIDE, ())
    if not same & own:
        likely = likely_architecture(bare, own=keymap.has) or likely
    if likely is not None:
        raise InputError(
            f"the state dict does not fit {backbone}: it is that of {likely}; the "
            f"backbones are {', '.join(KEYMAPS)}"
        )
    for name, where in claims:
        is_twin = name in same or _CHANGED.search(name)
        if name not in own and (is_twin or _is_other_input(name, backbone)):
            raise InputError(
                f"{where} says {name}: such a network has the keys of {backbone} and "
                "computes something else than the one here; where that is wrong, save "
                "the state dict alone, in a folder of its own"
            )
    return _how_sure(backbone, own, claims)


def _telling_feature(
    state_dict: Mapping[str, np.ndarray],
    features: Sequence[tuple[str, int | None, str]],
    own: Collection[str],
) -> str | None:
    for pattern, ndim, what in features:
        for key, value in state_dict.items():
            is_kind = ndim in (None, np.ndim(value)) and key not in own
            if is_kind and re.fullmatch(pattern, key):
                return f"{what} (it has {shown(key)})"
    return None


def _how_sure(backbone: str, own: Collection[str], claims: Sequence[Claim]) -> str:
    caveat = KEYMAPS[backbone].caveat
    for name, where in claims:
        if name in own:
            return f"{backbone}, as {where} says"
    others = [f"{where} says {name}" for name, where in claims if "=" not in name]
    said = f" ({', '.join(others)})" if others else ""
    if not caveat:
        return f"{backbone}, by its keys{said}"
    return f"assumed: plain {backbone}{said}; {caveat}"


def _is_other_input(name: str, backbone: str) -> bool:
    """Whether a claim of the input's mean or deviation is not that of the backbone."""
    statistic, _, numbers = name.partition("=")
    if statistic not in ("mean", "std"):
        return False
    found = [float(number) for number in numbers.split(",")]
    return not np.allclose(found, getattr(backbone_row(backbone), statistic), atol=1e-3)


@cache
def _names_by_digest() -> tuple[str, dict[str, list[str]]]:
    """The package, and digest of keys and shapes -> names of its networks."""
    table = json.loads(_TIMM.read_text(encoding="utf-8"))
    names: dict[str, list[str]] = {}
    for name, digest in table["architectures"].items():
        names.setdefault(digest, []).append(name)
    return table["package"], names


def _claims(
    content: Mapping[Any, Any], owner: str, depth: int = _MAX_DEPTH
) -> Iterator[Claim]:
    for name in _NAMES:
        value = content.get(name)
        if isinstance(value, str) and value:
            yield Claim(_plain_name(value), f"{owner}{name}")
    for name, same in _CHANGES.items():
        value = content.get(name)
        if isinstance(value, str | int) and value not in same:
            yield Claim(f"{name}={shown(value)}", f"{owner}{name}")
    for name in ("mean", "std"):
        numbers = _three_floats(content.get(name))
        if numbers:
            said = ",".join(f"{number:g}" for number in numbers)
            yield Claim(f"{name}={said}", f"{owner}{name}")
    for name in _HOLDERS if depth else ():
        inner = _parsed(content.get(name))
        yield from _claims(inner, f"{owner}{name}.", depth - 1)


def _three_floats(content: object) -> list[float]:
    """Three floats, or none where it is anything else."""
    if not isinstance(content, list | tuple) or len(content) != 3:
        return []
    floats = [number for number in content if isinstance(number, float)]
    return floats if len(floats) == 3 else []


def _plain_name(text: str) -> str:
    """A network's name without the hub that it is on and what it was trained for."""
    name = re.split("[/:]", text.lower())[-1].partition(".")[0]
    return shown(name)


def _read_config(path: Path) -> Mapping[Any, Any]:
    if not path.is_file() or path.stat().st_size > _MAX_CONFIG_BYTES:
        return {}
    return _parsed(path.read_text(encoding="utf-8-sig", errors="replace"))


def _parsed(content: object) -> Mapping[Any, Any]:
    """A mapping, or the JSON of one; an empty one for anything else."""
    if isinstance(content, str) and len(content) <= _MAX_CONFIG_BYTES:
        try:
            content = json.loads(content)
        except (ValueError, RecursionError):
            return {}
    return content if isinstance(content, Mapping) else {}
