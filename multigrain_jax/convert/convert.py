"""A PyTorch weight file becomes a checkpoint of this package."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from multigrain_jax.checkpoint import (
    Checkpoint,
    CheckpointStore,
    require_no_checkpoints,
)
from multigrain_jax.convert.architecture import require_architecture
from multigrain_jax.convert.conversion import Conversion, meta_of
from multigrain_jax.convert.heads.foreign import ForeignModel, HeadOptions, Weights
from multigrain_jax.convert.heads.readers import find_head
from multigrain_jax.convert.keymaps import KEYMAPS, KeyMap
from multigrain_jax.convert.source_file import SourceFile, read_source_file
from multigrain_jax.convert.state_dict import (
    ImportReport,
    import_state_dict,
    recognise_backbone,
)
from multigrain_jax.convert.unwrap import (
    RUNNING_AVERAGES,
    Stripped,
    bare_key,
    cast_to_float32,
    strip_prefix,
)
from multigrain_jax.convert.verify import Reference, compare_with_reference
from multigrain_jax.data.bucket_paths import local_path
from multigrain_jax.errors import InputError
from multigrain_jax.inference import LoadedModel
from multigrain_jax.models.backbones import backbone_row
from multigrain_jax.models.multigrain import Variables
from multigrain_jax.opened_model import open_checkpoint
from multigrain_jax.trees import json_digest, leaf_digests

NUM_CLASSES_WITH_BACKGROUND = 1001
USUAL_CLASSES = (0, 1000, NUM_CLASSES_WITH_BACKGROUND)
LEFT_OUT_REASON = "the head, left out as asked"
_CLASSES_NOTE = (
    "the {} rows of the head are counted as classes; if it is a projection, leave it "
    "out with --no-classifier"
)
_SSCD_NOTE = "; if the file is SSCD's, give --head sscd"


def convert_checkpoint(
    source: str | Path,
    destination: str | Path,
    *,
    backbone: str | None = None,
    keep_background: bool = False,
    averages: bool = True,
    classifier: bool = True,
    head: str | None = None,
    head_options: HeadOptions | None = None,
    published: Mapping[str, Any] | None = None,
    verify: Reference | None = None,
) -> Conversion:
    """Convert a weight file; nothing is written unless everything fits.

    Args:
        source: a file of torch.save or safetensors, whatever its name.
        destination: a new workdir; the checkpoint is its step 0.
        backbone: overrides what is recognised from the keys.
        keep_background: keep the first of 1001 zoo classes ("background"), which the
            zoo's own loader drops from files of the NASNet family.
        averages: prefer a running average of the weights (EMA), where the file has one.
        classifier: keep what is in a classifier's place; without, there are no classes.
        head: whose descriptor head the file has, a key of `heads.readers.HEADS`, or
            "none"; None is what the file says itself.
        head_options: what is chosen of the head; None is nothing.
        published: what is known of the file, kept in `meta`; a JSON object.
        verify: a descriptor to compare with before anything is written.

    Raises:
        InputError: an unreadable file, another network's, keys or shapes that do not
            fit (all listed), numbers that are not finite, a descriptor that differs,
            or a destination that holds checkpoints already.
    """
    destination = local_path(destination, what="the new workdir").absolute()
    if destination.is_file():
        raise InputError(
            f"{destination}: an empty or new folder was expected, found a file; "
            "choose another destination"
        )
    require_no_checkpoints(destination)
    if backbone is not None:
        backbone_row(backbone)  # before the file is read, which takes longer
    file, tensors = read_source_file(source, averages=averages)
    try:
        weights = Weights(tensors, file.entries, file.path.name)
        found = find_head(weights, name=head, options=head_options or HeadOptions())
        if found is None:
            stripped = strip_prefix(tensors, backbone=backbone)
        else:
            stripped, file = _without_head(found[0], tensors, file, classifier)
        del tensors, weights  # as large as the file
        variables, conversion = _import(
            file,
            stripped,
            found,
            backbone=backbone,
            keep_background=keep_background,
            classifier=classifier,
        )
    except InputError as error:
        if set(file.inside).isdisjoint(RUNNING_AVERAGES):
            raise
        raise InputError(
            f"{error}\nThese are the weights in {'.'.join(file.inside)}, a running "
            "average; --no-ema takes the last ones"
        ) from error
    del stripped, found
    model = _model_item(conversion.source, variables)
    if verify is not None:
        verified = _verify(verify, conversion, model, destination)
        conversion = replace(conversion, verified=verified)
    meta = meta_of(conversion)
    if published is not None:
        meta["published"] = dict(published)
    store = CheckpointStore(destination)
    store.save(0, model=model, meta=meta)
    store.close()
    return conversion


def drop_classifier(
    state_dict: Mapping[str, np.ndarray], keymap: KeyMap
) -> tuple[dict[str, np.ndarray], int]:
    """Without what is in a classifier's place, and how many keys that was."""
    heads = (keymap.zoo_classifier, "classifier")
    kept = {
        key: value
        for key, value in state_dict.items()
        if key.removeprefix(keymap.prefix).partition(".")[0] not in heads
    }
    return kept, len(state_dict) - len(kept)


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


def _without_head(
    foreign: ForeignModel,
    tensors: Mapping[str, np.ndarray],
    file: SourceFile,
    classifier: bool,
) -> tuple[Stripped, SourceFile]:
    """Another network's trunk as if it were in a file of its own."""
    if not classifier:
        raise InputError(
            f"{file.path}: the classifier is to be left out, and the file has the "
            f"descriptor head of {foreign.head.origin}; with --head none it is none"
        )
    prefixes = {key.removesuffix(bare_key(key)) for key in tensors}
    prefix = prefixes.pop() if len(prefixes) == 1 else ""
    return Stripped(prefix, foreign.trunk, {}), replace(file, kind="model zoo")


def _import(
    file: SourceFile,
    stripped: Stripped,
    found: tuple[ForeignModel, str] | None,
    *,
    backbone: str | None,
    keep_background: bool,
    classifier: bool,
) -> tuple[Variables, Conversion]:
    state_dict, ignored, notes = stripped.state_dict, stripped.ignored, [*file.notes]
    name = backbone or recognise_backbone(state_dict)
    keymap = KEYMAPS[name]
    architecture = require_architecture(
        name, state_dict, beside=stripped.beside, claims=file.claims
    )
    cast = cast_to_float32(state_dict, prefix=stripped.prefix)
    state_dict = cast.state_dict
    if not classifier:
        state_dict, count = drop_classifier(state_dict, keymap)
        ignored = {**ignored, LEFT_OUT_REASON: count}
    if file.kind == "model zoo":
        notes += keymap.zoo_notes
        if not keep_background:
            state_dict, dropped = drop_background(state_dict, keymap)
            notes += dropped
    if found is None:
        variables, report = import_state_dict(
            state_dict, backbone=name, prefix=stripped.prefix
        )
    else:
        variables, report = _import_with_head(
            found[0], name, state_dict, stripped.prefix
        )
        notes += found[0].notes
    num_classes = variables.num_classes
    if num_classes not in USUAL_CLASSES:
        is_within = stripped.prefix.endswith("backbone.")
        note = _CLASSES_NOTE + (_SSCD_NOTE if is_within else "")
        notes.append(note.format(num_classes))
    trained = (variables.params, variables.head)
    return variables, Conversion(
        backbone=name,
        num_classes=num_classes,
        num_parameters=sum(leaf.size for leaf in jax.tree.leaves(trained)),
        pooling_exponent=float(variables.pooling_exponent),
        whitened=bool(variables.whitening),
        digest=json_digest(leaf_digests({"model": _model_item(file, variables)})),
        keys_used=report.num_used,
        keys_ignored={**ignored, **report.ignored},
        notes=notes,
        source=file,
        architecture=architecture,
        stripped=stripped.prefix,
        cast=dict(Counter(cast.counts) + Counter(found[0].cast if found else {})),
        changed=cast.changed,
        head=None if found is None else found[0].head,
        head_known="" if found is None else found[1],
    )


def _import_with_head(
    foreign: ForeignModel,
    backbone: str,
    state_dict: Mapping[str, np.ndarray],
    prefix: str,
) -> tuple[Variables, ImportReport]:
    """A trunk's variables with another network's pooling and head."""
    try:
        variables, report = import_state_dict(
            state_dict, backbone=backbone, prefix=prefix
        )
    except InputError as error:
        if not foreign.renamed:
            raise
        raise InputError(
            f"{error}\nThese are torchvision's names for the keys of a file of "
            f"{foreign.head.origin}"
        ) from error
    inputs = backbone_row(backbone).embedding_dim
    for number, arrays in enumerate(foreign.projections):
        found, inputs_after = arrays["projection"].shape
        if found != inputs:
            raise InputError(
                f"descriptor head of {foreign.head.origin}: projection {number} takes "
                f"{found} channels, expected the {inputs} that come before it; is the "
                "file whole, and of one network?"
            )
        inputs = inputs_after
    exponent = np.asarray(foreign.pooling_exponent, np.float32)
    head = {str(number): arrays for number, arrays in enumerate(foreign.projections)}
    ignored = {**foreign.ignored, **report.ignored}
    return (
        variables._replace(pooling_exponent=exponent, head=head),
        ImportReport(report.num_used + foreign.num_used, ignored),
    )


def _verify(
    reference: Reference,
    conversion: Conversion,
    model: dict[str, Any],
    destination: Path,
) -> str:
    """Compare as if it were written already; a line that says how."""
    checkpoint = Checkpoint(
        path=destination,
        step=0,
        model=model,
        data={},
        meta=meta_of(conversion),
        digests={},
    )
    size = reference.test_size or backbone_row(conversion.backbone).default_size
    agreement = compare_with_reference(
        LoadedModel(open_checkpoint(checkpoint)), reference, test_size=size
    )
    return (
        f"{agreement.compared} of {reference.photo.name} ({reference.test_mode}, "
        f"{size} pixels) and {reference.descriptor.name}: cosine "
        f"{agreement.cosine:.6f}, largest difference {agreement.difference:.1e} of "
        "its length"
    )


def _model_item(file: SourceFile, variables: Variables) -> dict[str, Any]:
    """What the checkpoint holds as its `model`: the variables, and β where known."""
    params = variables.params
    if file.beta is not None:
        params = {**params, "margin": {"beta": np.asarray(file.beta, np.float32)}}
    return {**variables._asdict(), "params": params}
