"""The published weights that have a name here: where they are, and what is known."""

from dataclasses import dataclass, replace
from typing import Any

_MULTIGRAIN = "https://dl.fbaipublicfiles.com/multigrain"
_TORCHVISION = "https://download.pytorch.org/models"
_GITHUB = "https://github.com"
CC_BY_NC = (
    "CC BY-NC 4.0 (weights of the original MultiGrain release, for no commercial use); "
    "what is converted from them stays so"
)
TORCHVISION_LICENCE = "BSD 3-Clause (torchvision)"
PRETRAINEDMODELS_LICENCE = "BSD 3-Clause (pretrainedmodels)"


@dataclass(frozen=True)
class PublishedWeights:
    """One row: a file that others have published.

    Attributes:
        address: of the file.
        backbone: a key of `BACKBONES`.
        licence: of the weights, in one line.
        results: what was published of it -> the score, in percent.
        test_size: S for search, in pixels.
        test_mode: "square" or "rect", for search.
        pooling_exponent: p for search; None is the file's.
        sha256: the first digits of its digest, as many as are known; "" for none.
        length: in bytes; None is what the server says.
    """

    address: str
    backbone: str
    licence: str
    results: dict[str, float]
    test_size: int
    test_mode: str
    pooling_exponent: float | None = None
    sha256: str = ""
    length: int | None = None

    @property
    def file_name(self) -> str:
        """What the file is called where it lies."""
        return self.address.rpartition("/")[2]

    def record(self, name: str) -> dict[str, Any]:
        """What the converted checkpoint keeps of the row; a JSON object.

        Args:
            name: the row's.
        """
        return {
            "name": name,
            "address": self.address,
            "licence": self.licence,
            "results": dict(self.results),
            "search": {
                "test_size": self.test_size,
                "test_mode": self.test_mode,
                "pooling_exponent": self.pooling_exponent,
            },
        }


def _joint(
    name: str, results: dict[str, float], pooling_exponent: float | None = None
) -> PublishedWeights:
    return PublishedWeights(
        address=f"{_MULTIGRAIN}/multigrain_models/{name}.pth",
        backbone="resnet50",
        licence=CC_BY_NC,
        results=results,
        test_size=500,
        test_mode="rect",
        pooling_exponent=pooling_exponent,
    )


def _finetuned(
    backbone: str, size: int, pooling_exponent: float, top1: float
) -> PublishedWeights:
    return PublishedWeights(
        address=f"{_MULTIGRAIN}/finetuned_models/{backbone}-finetune{size}.pth",
        backbone=backbone,
        licence=CC_BY_NC,
        results={f"ImageNet top-1, {size} rect, p = {pooling_exponent:g}": top1},
        test_size=size,
        test_mode="rect",
        pooling_exponent=pooling_exponent,
    )


def _torchvision(
    backbone: str, sha256: str, results: dict[str, float], length: int | None = None
) -> PublishedWeights:
    return PublishedWeights(
        address=f"{_TORCHVISION}/{backbone}-{sha256[:8]}.pth",
        backbone=backbone,
        licence=TORCHVISION_LICENCE,
        results=results,
        test_size=224,
        test_mode="square",
        sha256=sha256,
        length=length,
    )


_AT_224 = "ImageNet top-1, 224 square"
# Of the second recipe: the shorter side to 232, and of that the centre.
_AT_232 = "ImageNet top-1, centre 224 of 232"

PUBLISHED: dict[str, PublishedWeights] = {
    "joint_1B_1.0": _joint("joint_1B_1.0", {_AT_224: 76.8}),
    "joint_3B_1.0": _joint("joint_3B_1.0", {_AT_224: 76.9}),
    "joint_1B_0.5": _joint("joint_1B_0.5", {_AT_224: 77.0}),
    "joint_3B_0.5": _joint(
        "joint_3B_0.5",
        {
            _AT_224: 77.4,
            "ImageNet top-1, 500 rect, p = 4": 78.6,
            "ImageNet top-5, 500 rect, p = 4": 94.4,
            "DISC21 micro AP, 512 rect, p = 7, PCA to 1500": 16.5,
            "DISC21 micro AP of normalised scores, 512 rect, p = 7, PCA to 1500": 36.4,
        },
        pooling_exponent=4.0,
    ),
    "joint_3BAA_0.5": _joint(
        "joint_3BAA_0.5", {_AT_224: 78.2, "ImageNet top-1, 500 rect": 79.4}
    ),
    "nasnetamobile-finetune350": _finetuned("nasnetamobile", 350, 1.7, 75.1),
    "senet154-finetune400": _finetuned("senet154", 400, 1.6, 83.0),
    "pnasnet5large-finetune500": _finetuned("pnasnet5large", 500, 1.7, 83.6),
    "resnet18-imagenet1k-v1": _torchvision(
        "resnet18",
        "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
        {_AT_224: 69.758},
        46_830_571,
    ),
    "resnet50-imagenet1k-v1": replace(
        _torchvision(
            "resnet50",
            "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
            {_AT_224: 76.130, "ImageNet top-1, 400 square, p = 2": 77.880},
            102_530_333,
        ),
        test_size=400,
        pooling_exponent=2.0,
    ),
    "resnet50-imagenet1k-v2": _torchvision(
        "resnet50",
        "11ad3fa62ca79e40addfd354a8ec4b7c75143b3038b8d2a807fbc68deab379ca",
        {_AT_232: 80.858},
        102_540_417,
    ),
    "resnet101-imagenet1k-v1": _torchvision(
        "resnet101",
        "63fe2227b86e8f1f2063f43a75c84d195911b6a0eace650907dd3dc62dd49a0a",
        {_AT_224: 77.374},
    ),
    "resnet101-imagenet1k-v2": _torchvision("resnet101", "cd907fc2", {_AT_232: 81.886}),
    "resnet152-imagenet1k-v1": _torchvision(
        "resnet152",
        "394f9c45966e3651a89bbb78a48410a6755854ce4a5ab64927cf1c7247f85e58",
        {_AT_224: 78.312},
    ),
    "resnet152-imagenet1k-v2": _torchvision("resnet152", "f82ba261", {_AT_232: 82.284}),
    # pretrainedmodels names files on data.lip6.fr, which HTTPS does not reach any more:
    # these are the same, by the digits of the digest in their names.
    "senet154-imagenet": PublishedWeights(
        address="https://web.archive.org/web/20191202105854id_/"
        "https://data.lip6.fr/cadene/pretrainedmodels/senet154-c7b49a05.pth",
        backbone="senet154",
        licence=PRETRAINEDMODELS_LICENCE,
        results={_AT_224: 81.304, "ImageNet top-1, 450 rect, p = 1.6": 83.1},
        test_size=450,
        test_mode="rect",
        pooling_exponent=1.6,
        sha256="c7b49a056b98b0bed65b0237c27acdead655e599669215573d357ad337460413",
        length=461_488_402,
    ),
    "pnasnet5large-imagenet": PublishedWeights(
        address=f"{_GITHUB}/rwightman/pytorch-image-models/releases/download/"
        "v0.1-cadene/pnasnet5large-bf079911.pth",
        backbone="pnasnet5large",
        licence=PRETRAINEDMODELS_LICENCE,
        results={
            "ImageNet top-1, 331 square": 82.736,
            "ImageNet top-1, 500 rect, p = 1.7": 83.6,
        },
        test_size=500,
        test_mode="rect",
        pooling_exponent=1.7,
        sha256="bf079911",
    ),
    "nasnetamobile-imagenet": PublishedWeights(
        address=f"{_GITHUB}/veronikayurchuk/pretrained-models.pytorch/releases/"
        "download/v1.0/nasnetmobile-7e03cead.pth.tar",
        backbone="nasnetamobile",
        licence=PRETRAINEDMODELS_LICENCE,
        results={_AT_224: 74.080, "ImageNet top-1, 350 rect, p = 1.7": 75.1},
        test_size=350,
        test_mode="rect",
        pooling_exponent=1.7,
        sha256="7e03cead",
    ),
}
