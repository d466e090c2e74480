"""What pretrainedmodels' NASNet and PNASNet name alike."""

from multigrain_jax.convert.keymaps.keymap import KeyMap, Modules

_STEPS = (("1", "first"), ("2", "second"))
_SIDES = (("left", "0"), ("right", "1"))

# Of a branch: separable convolutions, or a pointwise convolution or projected pool.
_BRANCH: Modules = (
    *(
        row
        for number, step in _STEPS
        for row in (
            (f"separable_{number}.depthwise_conv2d", f"{step}.depthwise"),
            (f"separable_{number}.pointwise_conv2d", f"{step}.pointwise"),
            (f"bn_sep_{number}", f"{step}.norm"),
        )
    ),
    ("conv", "conv"),
    ("bn", "norm"),
)

# Everything of a cell but what its left input goes through first.
CELL: Modules = (
    *(
        (f"comb_iter_{{sum}}_{side}.{torch}", f"branches.{{sum}}.{position}.{here}")
        for side, position in _SIDES
        for torch, here in _BRANCH
    ),
    ("conv_1x1.conv", "right.conv"),
    ("conv_1x1.bn", "right.norm"),
)

# The left input, and the left input where the cell before halved the map.
LEFT: Modules = (
    ("conv_prev_1x1.conv", "left.conv"),
    ("conv_prev_1x1.bn", "left.norm"),
)
REDUCED_LEFT: Modules = (
    ("path_1.conv", "left.even"),
    ("path_2.conv", "left.odd"),
    ("final_path_bn", "left.norm"),
)


def keymap(
    modules: Modules,
    *,
    has: tuple[str, ...],
    lacks: tuple[str, ...] = (),
    zoo_notes: tuple[str, ...] = (),
) -> KeyMap:
    """The key map of a network with these modules; the rest as of `KeyMap`."""
    return KeyMap(
        modules=modules,
        prefix="features.0.base_net.",
        zoo_classifier="last_linear",
        has=has,
        lacks=lacks,
        zoo_notes=zoo_notes,
        aliases=("features.0.base_net.last_linear",),
        zoo_background=True,
    )
