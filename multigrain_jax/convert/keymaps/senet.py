"""Modules of pretrainedmodels' SENets and where they are here."""

from multigrain_jax.convert.keymaps.keymap import KeyMap, Modules

_MODULES: Modules = (
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

SENET154 = KeyMap(
    modules=_MODULES,
    prefix="features.",
    zoo_classifier="last_linear",
    # Smaller ones of the family have one convolution in layer0.
    has=(
        "layer0.conv1.weight",
        "layer0.conv3.weight",
        "layer1.0.se_module.fc1.weight",
    ),
    known_as=("legacy_senet154",),
)
