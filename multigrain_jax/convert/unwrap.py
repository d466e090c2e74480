"""Finds the weights in what people save: in containers, behind prefixes, in any floats.

Training scripts put a state dict beside their optimiser's, wrappers (DataParallel,
torch.compile, Lightning) put names before its keys, and some keep half the bits. What
is undone of that is reported, and nothing else is touched.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from multigrain_jax.convert.keymaps import KEYMAPS
from multigrain_jax.errors import InputError, printable

# Where a state dict may be, the one to be preferred first: running averages of the
# weights are what such a run is evaluated with.
RUNNING_AVERAGES = ("state_dict_ema", "model_ema")
CONTAINERS = ("model_state", "state_dict", "model", "net", "module")
# What wrappers put before the keys, in any order and number.
PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.", "encoder.")
# What is trained beside a trunk, and is not of its descriptor.
AUXILIARIES = frozenset(
    {
        "criterion",
        "loss",
        "n_averaged",
        "optimizer",
        "predictor",
        "projection",
        "projection_head",
        "projector",
        "prototypes",
        "queue",
        "queue_ptr",
    }
)
FLOATS = ("float16", "bfloat16", "float32", "float64")
INFINITE_KEY = "pool.p"  # at infinity GeM is the maximum
MAX_DEPTH = 6
MAX_SHOWN = 60  # characters of a name


class FoundStateDict(NamedTuple):
    """A state dict, and where it was.

    Attributes:
        tensors: arrays by the file's own keys.
        inside: names of the containers around it, the outermost first.
        beside: names of what else the file holds.
        levels: the containers themselves, and last the state dict.
    """

    tensors: dict[str, np.ndarray]
    inside: tuple[str, ...]
    beside: tuple[str, ...]
    levels: tuple[Mapping[Any, Any], ...]


class Stripped(NamedTuple):
    """A state dict without what wrappers put before its keys.

    Attributes:
        prefix: what was put before them.
        state_dict: arrays by bare key.
        beside: arrays beside the trunk and its head, by the file's own keys.
    """

    prefix: str
    state_dict: dict[str, np.ndarray]
    beside: dict[str, np.ndarray]

    @property
    def ignored(self) -> dict[str, int]:
        """What is beside the trunk, by its module -> how many keys."""
        return dict(Counter(_group_of(key) for key in self.beside))


class Cast(NamedTuple):
    """A state dict in float32.

    Attributes:
        state_dict: arrays by bare key; those that are no floats as they were.
        counts: float type -> how many arrays were of it; not of float32.
        changed: a line for every array that changed by more than rounding.
    """

    state_dict: dict[str, np.ndarray]
    counts: dict[str, int]
    changed: list[str]


def find_state_dict(content: object, *, averages: bool) -> FoundStateDict | None:
    """The state dict of a file's content; None if there is none.

    Args:
        content: nested containers with arrays, as the file's reader gives them.
        averages: prefer a running average of the weights, where there is one.
    """
    names = (*RUNNING_AVERAGES, *CONTAINERS) if averages else CONTAINERS
    return _find(content, names, MAX_DEPTH)


def strip_prefix(
    state_dict: Mapping[str, np.ndarray], *, backbone: str | None
) -> Stripped:
    """Take away what wrappers put before the keys of a trunk.

    A file of no known trunk loses what most of its keys share.

    Args:
        state_dict: arrays by the file's own keys.
        backbone: whose trunk it is; None: any.

    Raises:
        InputError: there are two trunks.
    """
    keymaps = KEYMAPS.values() if backbone is None else [KEYMAPS[backbone]]
    groups = {
        prefix: {
            key.removeprefix(prefix): value
            for key, value in state_dict.items()
            if key.startswith(prefix)
        }
        for prefix in sorted({_run_of_prefixes(key) for key in state_dict} | {""})
    }
    known = [
        prefix
        for prefix, group in groups.items()
        if any(keymap.recognises(group) for keymap in keymaps)
    ]
    if len(known) > 1:
        listed = " and ".join(f"{prefix}*" if prefix else "bare" for prefix in known)
        raise InputError(
            f"two networks were found in the file, {listed}: one was expected; save "
            "the state dict of the one that is meant"
        )
    most = [p for p, group in groups.items() if 2 * len(group) > len(state_dict)]
    prefix = known[0] if known else max(most, key=len)
    bare: dict[str, np.ndarray] = {}
    beside: dict[str, np.ndarray] = {}
    for key, value in state_dict.items():
        rest = key.removeprefix(prefix)
        if key.startswith(prefix) and rest.partition(".")[0] not in AUXILIARIES:
            bare[rest] = value
        else:
            beside[key] = value
    return Stripped(prefix, bare, beside)


def bare_key(key: str) -> str:
    """A key without any of the prefixes before it."""
    return key.removeprefix(_run_of_prefixes(key))


def cast_to_float32(state_dict: Mapping[str, np.ndarray], *, prefix: str) -> Cast:
    """All floats as float32.

    Args:
        state_dict: arrays by bare key.
        prefix: what the file has before its keys, for the messages.

    Raises:
        InputError: numbers that are not finite, or not in float32; all are named.
    """
    found: dict[str, np.ndarray] = {}
    counts: Counter[str] = Counter()
    changed, problems = [], []
    for key, value in state_dict.items():
        kind = value.dtype.name
        found[key] = value
        if kind not in FLOATS:
            continue
        if kind != "float32":
            counts[kind] += 1
            with np.errstate(over="ignore", under="ignore"):
                found[key] = value.astype(np.float32)
        problem = _not_finite(key, value, found[key])
        if problem:
            problems.append(f"{prefix}{key}: {problem}")
        elif kind == "float64" and (line := _more_than_rounding(value, found[key])):
            changed.append(printable(f"{prefix}{key}: {line}"))
    if problems:
        listed = "\n  ".join(map(printable, sorted(problems)))
        raise InputError(
            "finite numbers in float32's range were expected; take weights from before "
            f"the training broke down, or mend these:\n  {listed}"
        )
    return Cast(found, dict(counts), changed)


def shown(name: object) -> str:
    """A name of a file for a message: short, and without control characters."""
    text = str(name)
    return printable(text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…")


def _find(content: object, names: tuple[str, ...], depth: int) -> FoundStateDict | None:
    if not isinstance(content, Mapping) or depth == 0:
        return None
    for name in names:
        inner = _find(content.get(name), names, depth - 1)
        if inner is not None:
            beside = (shown(key) for key in content if key != name)
            within = (f"{name}.{other}" for other in inner.beside)
            return inner._replace(
                inside=(name, *inner.inside),
                beside=(*beside, *within),
                levels=(content, *inner.levels),
            )
    arrays = {str(k): np.asarray(v) for k, v in content.items() if _is_array(v)}
    beside = tuple(shown(k) for k, v in content.items() if not _is_array(v))
    return FoundStateDict(arrays, (), beside, (content,)) if arrays else None


def _is_array(value: object) -> bool:
    return hasattr(value, "__array__") and not isinstance(value, np.generic)


def _run_of_prefixes(key: str) -> str:
    """All that wrappers put before a key."""
    *words, _ = key.split(".", MAX_DEPTH)
    length = 0
    for word in words:
        if f"{word}." not in PREFIXES:
            break
        length += len(word) + 1
    return key[:length]


def _group_of(key: str) -> str:
    prefix = _run_of_prefixes(key)
    name, dot, _ = key.removeprefix(prefix).partition(".")
    return shown(f"{prefix}{name}") + (".*" if dot else "")


def _not_finite(key: str, value: np.ndarray, stored: np.ndarray) -> str | None:
    wrong = ~np.isfinite(stored)
    if key == INFINITE_KEY:
        wrong = np.isnan(stored)
    count = int(np.count_nonzero(wrong))
    if not count:
        return None
    kept = value[wrong]
    if np.isnan(kept).any():
        what = "NaN"
    elif np.isinf(kept).any():
        what = "infinite"
    else:
        what = f"outside float32's range, as {kept.flat[0]:g}"
    return f"{count} of {value.size} are {what}"


def _more_than_rounding(value: np.ndarray, stored: np.ndarray) -> str | None:
    """A line on the numbers of a float64 array that float32 is too coarse for."""
    error = np.abs(value - stored.astype(np.float64))
    wrong = error > np.abs(value) * np.finfo(np.float32).epsneg
    count = int(np.count_nonzero(wrong))
    if not count:
        return None
    return (
        f"{count} of {value.size} are nearer to 0 than float32 resolves, off by at "
        f"most {error[wrong].max():.1e}"
    )
