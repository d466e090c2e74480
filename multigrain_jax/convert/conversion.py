"""What became of a weight file: for the table that is printed, and for `meta`."""

from dataclasses import dataclass
from typing import Any

from multigrain_jax.convert.source_file import SourceFile
from multigrain_jax.models.backbones import backbone_row
from multigrain_jax.models.heads import (
    HEAD_KEY,
    DescriptorHead,
    describe_head,
    head_to_json,
)

REFERENCE_LICENCE = (
    "weights of the original MultiGrain release are under CC BY-NC 4.0; "
    "what is converted from them stays so"
)
ZOO_LICENCE = "the licence of the source file holds"
MAX_LISTED = 8  # names in one row of the table


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
        architecture: how sure it is which network it is, in words.
        stripped: what was taken away before the keys.
        cast: float type -> how many arrays of it became float32.
        changed: a line for every array that changed by more than rounding.
        head: another network's descriptor head; None: there is none.
        head_known: how it is known whose it is, in words.
        verified: how the descriptor was compared with the owner's; None: it was not.
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
    architecture: str
    stripped: str
    cast: dict[str, int]
    changed: list[str]
    head: DescriptorHead | None = None
    head_known: str = ""
    verified: str | None = None


def format_table(conversion: Conversion) -> str:
    """The conversion as lines of `name  value`."""
    file = conversion.source
    num_classes: int | str = conversion.num_classes or "0 (the file has no classifier)"
    rows: list[tuple[str, object]] = [
        ("source", f"{file.path.name} ({file.kind})"),
        ("sha256", file.sha256),
    ]
    rows += [("found in", ".".join(file.inside))] if file.inside else []
    rows += [("stripped", conversion.stripped)] if conversion.stripped else []
    rows += [
        (f"cast from {kind}", f"{count} arrays, stored as float32")
        for kind, count in conversion.cast.items()
    ]
    rows += [("changed", line) for line in conversion.changed]
    rows += [
        ("backbone", conversion.backbone),
        ("architecture", conversion.architecture),
        ("classes", num_classes),
        ("parameters", f"{conversion.num_parameters:,}"),
        ("pooling exponent p", f"{conversion.pooling_exponent:g}"),
        ("whitening", "yes" if conversion.whitened else "no"),
        *_head_rows(conversion),
        ("beta", "none" if file.beta is None else file.beta),
        ("digest", conversion.digest),
        ("keys used", conversion.keys_used),
    ]
    rows += [
        (f"keys ignored ({reason})", count)
        for reason, count in conversion.keys_ignored.items()
    ]
    rows += [("ignored beside them", _listed(file.beside))] if file.beside else []
    rows += [("note", note) for note in conversion.notes]
    rows += [("verified", conversion.verified)] if conversion.verified else []
    rows.append(("licence", licence_of(file)))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def meta_of(conversion: Conversion) -> dict[str, Any]:
    """The `meta` of the checkpoint that a file becomes."""
    file = conversion.source
    head = {} if conversion.head is None else {HEAD_KEY: head_to_json(conversion.head)}
    return {
        **head,
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
        "conversion": {
            "found_in": list(file.inside),
            "stripped": conversion.stripped,
            "cast": conversion.cast,
            "changed": conversion.changed,
            "architecture": conversion.architecture,
            "head_known": conversion.head_known,
            "keys_used": conversion.keys_used,
            "keys_ignored": conversion.keys_ignored,
            "ignored_beside": list(file.beside),
            "verified": conversion.verified,
        },
    }


def licence_of(file: SourceFile) -> str:
    """The note on the licence of a file's weights."""
    return ZOO_LICENCE if file.kind == "model zoo" else REFERENCE_LICENCE


def _head_rows(conversion: Conversion) -> list[tuple[str, object]]:
    if conversion.head is None:
        return []
    inputs = backbone_row(conversion.backbone).embedding_dim
    described = describe_head(conversion.head, inputs)
    return [("descriptor head", f"{described} ({conversion.head_known})")]


def _listed(names: tuple[str, ...]) -> str:
    more = len(names) - MAX_LISTED
    rest = f" and {more} more" if more > 0 else ""
    return ", ".join(names[:MAX_LISTED]) + rest
