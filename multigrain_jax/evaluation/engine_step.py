"""The steps that embed and score a batch, by whichever engine."""

from collections.abc import Mapping, Sequence

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from multigrain_jax.engines.sessions import (
    JAX,
    MOST_SESSIONS,
    EngineStep,
    require_engine,
)
from multigrain_jax.evaluation.classification import (
    EvalStep,
    class_sums,
    logits_of_exponents,
    make_eval_step,
)
from multigrain_jax.evaluation.embed import FACTS, EmbedStep, make_embed_step
from multigrain_jax.evaluation.inputs import features_of_uint8
from multigrain_jax.models.multigrain import Backbone, Output, Variables, merge_model

INPUTS = ("image", "size")
TARGETS = ("label", "mask", "bad")


def embed_step_of(
    engine: str,
    graphdef: nnx.GraphDef,
    *,
    backbone: Backbone,
    mesh: Mesh,
    num_shapes: int = MOST_SESSIONS,
) -> EmbedStep:
    """`make_embed_step`, or what another engine makes of the same batches.

    Args:
        engine: a name of `ENGINES`; another one than JAX wants the same `Variables` in
            every call.
        graphdef: the model's evaluation structure.
        backbone: the model's row of `BACKBONES`, for its input statistics.
        mesh: the devices of JAX.
        num_shapes: how many shapes of batches another engine than JAX stays ready for.

    Raises:
        InputError: an engine that cannot be used.
    """
    require_engine(engine)
    if engine == JAX:
        return make_embed_step(graphdef, backbone=backbone, mesh=mesh)

    def compute(
        variables: Variables, batch: Mapping[str, jax.Array]
    ) -> dict[str, jax.Array]:
        model = merge_model(graphdef, variables)
        return by_name(model.head(features_of_uint8(model, batch, backbone=backbone)))

    run = EngineStep(compute, most_sessions=num_shapes)

    def step(
        variables: Variables, batch: dict[str, jax.Array]
    ) -> tuple[Output, dict[str, jax.Array]]:
        facts = {name: batch[name] for name in FACTS}
        return as_output(run(variables, _inputs(batch))), facts

    return step


def eval_step_of(
    engine: str,
    graphdef: nnx.GraphDef,
    *,
    backbone: Backbone,
    mesh: Mesh,
    exponents: Sequence[float | None] = (None,),
) -> EvalStep:
    """`make_eval_step`, or one with another engine's logits.

    Args:
        engine: as of `embed_step_of`.
        graphdef: the model's evaluation structure.
        backbone: the model's row of `BACKBONES`, for its input statistics.
        mesh: the devices of JAX.
        exponents: as of `make_eval_step`.

    Raises:
        InputError: an engine that cannot be used.
    """
    require_engine(engine)
    if engine == JAX:
        return make_eval_step(
            graphdef, backbone=backbone, mesh=mesh, exponents=exponents
        )

    def compute(
        variables: Variables, batch: Mapping[str, jax.Array]
    ) -> dict[str, jax.Array]:
        model = merge_model(graphdef, variables)
        each = logits_of_exponents(model, batch, exponents, backbone=backbone)
        return {str(place): logits for place, logits in enumerate(each)}

    run, sums = EngineStep(compute), jax.jit(class_sums)

    def step(variables: Variables, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        found = run(variables, _inputs(batch))
        logits = [found[str(place)] for place in range(len(exponents))]
        return sums(logits, {name: batch[name] for name in TARGETS})

    return step


def _inputs(batch: Mapping[str, jax.Array]) -> dict[str, np.ndarray]:
    return {name: np.asarray(batch[name]) for name in INPUTS if name in batch}


def by_name(output: Output) -> dict[str, jax.Array]:
    """What there is of an output, by name."""
    return {
        name: array for name, array in output._asdict().items() if array is not None
    }


def as_output(found: Mapping[str, np.ndarray]) -> Output:
    """The inverse of `by_name`, of what an engine gives."""
    arrays = {name: jax.numpy.asarray(array) for name, array in found.items()}
    return Output(**{"logits": None, **arrays})
