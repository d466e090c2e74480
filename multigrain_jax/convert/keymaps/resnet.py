"""Modules of torchvision's ResNets and where they are here.

Each row pairs two module names; {…} stands for the same text in both.
"""

MODULES = (
    ("conv1", "trunk.conv1"),
    ("bn1", "trunk.bn1"),
    *(
        row
        for stage in range(4)
        for row in (
            (
                f"layer{stage + 1}.{{block}}.conv{{k}}",
                f"trunk.stages.{stage}.{{block}}.conv{{k}}",
            ),
            (
                f"layer{stage + 1}.{{block}}.bn{{k}}",
                f"trunk.stages.{stage}.{{block}}.bn{{k}}",
            ),
            (
                f"layer{stage + 1}.{{block}}.downsample.0",
                f"trunk.stages.{stage}.{{block}}.shortcut_conv",
            ),
            (
                f"layer{stage + 1}.{{block}}.downsample.1",
                f"trunk.stages.{stage}.{{block}}.shortcut_bn",
            ),
        )
    ),
)

# What the original puts before the trunk's names, and how zoos call the classifier.
PREFIX = "features."
ZOO_CLASSIFIER = "fc"
