"""The images of a training run: opened, looked at, and refused where they cannot do."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from multigrain_jax.data.bucket_paths import file_path
from multigrain_jax.data.sources.open import (
    LISTED_CLASSES,
    absent_classes,
    class_listing,
    class_statistics,
    open_split,
)
from multigrain_jax.data.sources.source import ImageSource
from multigrain_jax.errors import InputError, printable
from multigrain_jax.tasks.inputs import data_set_from_config
from multigrain_jax.tasks.train_views import compares_instances


class TrainData(NamedTuple):
    """The images of one run.

    Attributes:
        train: those that are trained on.
        val: of the validation between updates; None: there is none.
        report: of the report at the end; None: there is none.
    """

    train: ImageSource
    val: ImageSource | None
    report: ImageSource | None


def open_train_data(config: Mapping[str, Any]) -> TrainData:
    """Open all parts that a run will read, and say what is in them.

    Images without labels have no validation.

    Raises:
        InputError: a part that is not there, or images that the losses cannot use.
    """
    split, val_split = config["data"]["split"], config["data"]["val_split"]
    data_set = data_set_from_config(config)
    source = open_split(data_set, split)
    print(f"{split or 'all'}: {class_statistics(source)}")
    if source.class_names:
        print(f"classes: {class_listing(source)}")
    refuse_images(config, source)
    if config["data"]["instances"]:
        print(_instance_statistics(config["data"], source))
    # What the report is about must not turn out to be missing after the training.
    parts: dict[str, ImageSource] = {}
    validated = val_split if source.class_names else None
    for name in dict.fromkeys((validated, config["report_split"])):
        if name:
            parts[name] = open_split(data_set, name, source.class_names)
    report = parts.get(config["report_split"])
    if not source.class_names:
        trained = _trained_without_labels(config)
        print(f"no labels: {trained} trained, and there is no validation")
        return TrainData(source, None, report)
    for name, part in parts.items():
        print(f"{name}: {class_statistics(part)}")
        if absent := absent_classes(part):
            print(
                f"{name}: no image of {len(absent)} of the classes of training, such "
                f"as {absent[:LISTED_CLASSES]}"
            )
    return TrainData(source, parts.get(val_split), report)


def refuse_images(config: Mapping[str, Any], source: ImageSource) -> None:
    """Refuse images whose labels or instances the losses of a run cannot use.

    Raises:
        InputError: more classes than the network is to have; with cross-entropy, images
            without a label or a single class; where instances are compared, a single
            one.
    """
    num_classes, found = config["num_classes"], len(source.class_names)
    if num_classes is not None and num_classes < found:
        raise InputError(
            f"num_classes: found {num_classes}, and the images have {found} classes; "
            "expected at least as many, or None to count them"
        )
    if config["classification_weight"] > 0:
        _refuse_labels(source)
    if compares_instances(config):
        _refuse_one_instance(config["data"], source)


def _refuse_labels(source: ImageSource) -> None:
    unlabelled = np.flatnonzero(source.labels < 0)
    if unlabelled.size:
        raise InputError(
            f"{unlabelled.size} of {len(source)} images have no label, among them "
            f"{printable(source.describe(int(unlabelled[0])))}; training needs one "
            "folder per class and no images beside the folders, or with "
            "--config.classification_weight=0 no labels at all"
        )
    if len(source.class_names) == 1:
        (name,) = source.class_names
        raise InputError(
            f"the images have one class, {name!r}, from which cross-entropy learns "
            f"nothing (every answer is right); {_what_is_inside(source, name)}give a "
            "folder with one subfolder per class, or train without labels with "
            "--config.classification_weight=0"
        )


def _refuse_one_instance(data: Mapping[str, Any], source: ImageSource) -> None:
    known = source.instances
    if (len(source) if known is None else len(np.unique(known))) > 1:
        return
    told = f"data.instances = {data['instances']!r}: " if data["instances"] else ""
    other = ", or give another data.instances" if told else ""
    raise InputError(
        f"{told}found one instance in all, the first of its photos is "
        f"{printable(source.describe(0))}, expected two or more, without which "
        f"there is nothing to compare; give photos of others{other}"
    )


def _trained_without_labels(config: Mapping[str, Any]) -> str:
    infonce = config["instance_loss"] == "infonce"
    loss = "InfoNCE" if infonce else "the margin loss"
    return f"{loss} and KoLeo are" if config["koleo_weight"] else f"{loss} alone is"


def _instance_statistics(data: Mapping[str, Any], source: ImageSource) -> str:
    """How many photos there are of an instance, for people to check at a glance.

    Raises:
        InputError: no two photos are of one instance.
    """
    known = source.instances
    # Of a part of the photos, such as data.num_images, some numbers have none.
    sizes = np.unique([] if known is None else known, return_counts=True)[1]
    several = sizes[sizes > 1]
    if not several.size:
        what = data["instances"]
        raise InputError(
            f"data.instances = {what!r}: no two of the {len(source)} photos are of one "
            f"instance, the first is {printable(source.describe(0))}; expected "
            "the level of folders that hold the photos of one (1 is the class), or "
            '"list" with a third column of data.list_file; or leave it out'
        )
    text = (
        f"instances: {several.size} with {several.min()} to {several.max()} photos, "
        f"{len(sizes) - several.size} with one"
    )
    if data["val_fraction"]:
        text += "; photos of one may be on both sides of data.val_fraction"
    return text


def _what_is_inside(source: ImageSource, name: str) -> str:
    """A hint where the only class looks like a folder around the classes."""
    path = file_path(source.describe(0))
    around = next((p for p in path.parents if p.name == name), None)
    if around is None or not around.is_dir():
        return ""
    inner = sorted(printable(p.name) for p in around.iterdir() if p.is_dir())[
        :LISTED_CLASSES
    ]
    if not inner:
        return ""
    return (
        f"{printable(str(around))} holds the folders {', '.join(inner)}: if these are "
        f"the classes or parts, give --config.data.root={printable(str(around))}; else "
    )
