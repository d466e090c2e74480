"""A PyTorch weight file becomes a checkpoint of this package."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from multigrain_jax.checkpoint import CheckpointStore, require_no_checkpoints
from multigrain_jax.convert.keymaps import KEYMAPS, KeyMap
from multigrain_jax.convert.source_file import SourceFile, read_source_file
from multigrain_jax.convert.state_dict import (
    ImportReport,
    import_state_dict,
    recognise_backbone,
)
from multigrain_jax.errors import InputError
from multigrain_jax.models.backbones import backbone_row
from multigrain_jax.models.multigrain import Variables
from multigrain_jax.trees import json_digest, leaf_digests

REFERENCE_LICENCE = (
    "weights of the original MultiGrain release are under CC BY-NC 4.0; "
    "what is converted from them stays so"
)
ZOO_LICENCE = "the licence of the source file holds"
NUM_CLASSES_WITH_BACKGROUND = 1001


@dataclass(frozen=True)
class Conversion:
    """What was converted, for the table that is printed.

    Attributes:
        backbone: its name.
        num_classes: rows of the classifier, 0 where there is none.
        num_parameters: trained numbers, batch statistics not counted.
        pooling_exponent: p that is stored.
        whitened: whether the file has a whitening.
        digest: one SHA-256 over all arrays, as `describe_checkpoint` gives it.
        keys_used: how many source keys went into the arrays.
        keys_ignored: reason -> how many source keys were left out for it.
        notes: lines that tell what was changed on the way.
        source: the file.
    """

    backbone: str
    num_classes: int
    num_parameters: int
    pooling_exponent: float
    whitened: bool
    digest: str
    keys_used: int
    keys_ignored: dict[str, int]
    notes: list[str]
    source: SourceFile


def convert_checkpoint(
    source: str | Path,
    destination: str | Path,
    *,
    backbone: str | None = None,
    keep_background: bool = False,
    published: Mapping[str, Any] | None = None,
) -> Conversion:
    """Convert a weight file; nothing is written unless everything fits.

    Args:
        source: a .pth or .safetensors file.
        destination: a new workdir; the checkpoint is its step 0.
        backbone: overrides what is recognised from the keys.
        keep_background: keep the first of 1001 zoo classes ("background"), which the
            zoo's own loader drops from files of the NASNet family.
        published: what is known of the file, kept in `meta`; a JSON object.

    Raises:
        InputError: an unreadable file, keys or shapes that do not fit (all listed), or
            a destination that holds checkpoints already.
    """
    destination = Path(destination).absolute()
    if destination.is_file():
        raise InputError(
            f"{destination}: an empty or new folder was expected, found a file; "
            "choose another destination"
        )
    require_no_checkpoints(destination)
    if backbone is not None:
        backbone_row(backbone)  # before the file is read, which takes longer
    file, state_dict = read_source_file(source)
    name = backbone or recognise_backbone(state_dict)
    notes = []
    if file.kind == "model zoo" and not keep_background:
        state_dict, notes = drop_background(state_dict, KEYMAPS[name])
    variables, report = import_state_dict(state_dict, backbone=name)
    del state_dict  # as large as the file
    conversion = _summarise(file, name, variables, report, notes)
    _write(destination, conversion, variables, published)
    return conversion


def drop_background(
    state_dict: dict[str, np.ndarray], keymap: KeyMap
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Without the first row of a 1001-class zoo classifier, and a line that says so.

    Args:
        state_dict: arrays by torch key.
        keymap: of its backbone, which tells whether zoos count the background.
    """
    if not keymap.zoo_background:
        return state_dict, []
    dropped = {
        key: value[1:]
        for key, value in state_dict.items()
        if key.rpartition(".")[0] == keymap.zoo_classifier
        and value.shape[0] == NUM_CLASSES_WITH_BACKGROUND
    }
    if not dropped:
        return state_dict, []
    note = f"1001 classes became 1000: row 0 (background) of {', '.join(dropped)}"
    return {**state_dict, **dropped}, [note]


def format_table(conversion: Conversion) -> str:
    """The conversion as lines of `name  value`."""
    rows: list[tuple[str, object]] = [
        ("source", f"{conversion.source.path.name} ({conversion.source.kind})"),
        ("sha256", conversion.source.sha256),
        ("backbone", conversion.backbone),
        ("classes", conversion.num_classes),
        ("parameters", f"{conversion.num_parameters:,}"),
        ("pooling exponent p", f"{conversion.pooling_exponent:g}"),
        ("whitening", "yes" if conversion.whitened else "no"),
        ("beta", "none" if conversion.source.beta is None else conversion.source.beta),
        ("digest", conversion.digest),
        ("keys used", conversion.keys_used),
    ]
    rows += [
        (f"keys ignored ({reason})", count)
        for reason, count in conversion.keys_ignored.items()
    ]
    rows += [("note", note) for note in conversion.notes]
    rows.append(("licence", licence_of(conversion.source)))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def licence_of(file: SourceFile) -> str:
    """The note on the licence of a file's weights."""
    return ZOO_LICENCE if file.kind == "model zoo" else REFERENCE_LICENCE


def _summarise(
    file: SourceFile,
    name: str,
    variables: Variables,
    report: ImportReport,
    notes: list[str],
) -> Conversion:
    digests = leaf_digests({"model": _model_item(file, variables)})
    return Conversion(
        backbone=name,
        num_classes=variables.num_classes,
        num_parameters=sum(leaf.size for leaf in jax.tree.leaves(variables.params)),
        pooling_exponent=float(variables.pooling_exponent),
        whitened=bool(variables.whitening),
        digest=json_digest(digests),
        keys_used=report.num_used,
        keys_ignored=report.ignored,
        notes=notes,
        source=file,
    )


def _write(
    destination: Path,
    conversion: Conversion,
    variables: Variables,
    published: Mapping[str, Any] | None,
) -> None:
    file = conversion.source
    meta = {
        "backbone": conversion.backbone,
        "num_classes": conversion.num_classes,
        "class_names": [],
        "config": None,
        "converted_from": {
            "file": file.path.name,
            "sha256": file.sha256,
            "kind": file.kind,
            "pooling_exponent": conversion.pooling_exponent,
            "whitened": conversion.whitened,
            "beta": file.beta,
            "notes": conversion.notes,
            "licence": licence_of(file),
        },
    }
    if published is not None:
        meta["published"] = dict(published)
    store = CheckpointStore(destination)
    store.save(0, model=_model_item(file, variables), meta=meta)
    store.close()


def _model_item(file: SourceFile, variables: Variables) -> dict[str, Any]:
    """What the checkpoint holds as its `model`: the variables, and β where known."""
    params = variables.params
    if file.beta is not None:
        params = {**params, "margin": {"beta": np.asarray(file.beta, np.float32)}}
    return {**variables._asdict(), "params": params}
