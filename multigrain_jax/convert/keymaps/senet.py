"""Modules of pretrainedmodels' SENets and where they are here.

Each row pairs two module names; {…} stands for the same text in both.
"""

MODULES = (
    *(
        row
        for position in range(3)
        for row in (
            (f"layer0.conv{position + 1}", f"trunk.stem_convs.{position}"),
            (f"layer0.bn{position + 1}", f"trunk.stem_norms.{position}"),
        )
    ),
    *(
        (
            f"layer{stage + 1}.{{block}}.{torch}",
            f"trunk.stages.{stage}.{{block}}.{here}",
        )
        for stage in range(4)
        for torch, here in (
            ("conv{k}", "conv{k}"),
            ("bn{k}", "bn{k}"),
            ("se_module.fc1", "squeeze_excite.squeeze"),
            ("se_module.fc2", "squeeze_excite.expand"),
            ("downsample.0", "shortcut_conv"),
            ("downsample.1", "shortcut_bn"),
        )
    ),
)

# What the original puts before the trunk's names, and how zoos call the classifier.
PREFIX = "features."
ZOO_CLASSIFIER = "last_linear"
