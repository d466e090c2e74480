"""From a training configuration to everything that is built once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh

from multigrain_jax.data.repeated import RepeatedStream
from multigrain_jax.data.sources.open import class_statistics
from multigrain_jax.data.sources.source import ImageSource
from multigrain_jax.errors import InputError
from multigrain_jax.evaluation.classification import make_eval_step
from multigrain_jax.evaluation.inputs import open_split
from multigrain_jax.losses.sampling import Pairs, sample_pairs
from multigrain_jax.mesh import make_mesh, put_replicated
from multigrain_jax.models.multigrain import BACKBONES, create_model
from multigrain_jax.ops.color import augment
from multigrain_jax.runtime import compiler_options, compute_dtype
from multigrain_jax.train.optimizer import make_learning_rate, make_optimizer
from multigrain_jax.train.start import RunCheckpoints, start_state
from multigrain_jax.train.state import TrainState, split_for_training
from multigrain_jax.train.step import make_train_step

# The batch for which the recipes' learning rates were chosen.
BASE_BATCH_SIZE = 512


@dataclass(frozen=True)
class Run:
    """Everything that is built once from the config."""

    mesh: Mesh
    source: ImageSource
    val_source: ImageSource | None
    stream: RepeatedStream
    train_graphdef: nnx.GraphDef
    eval_graphdef: nnx.GraphDef
    tx: optax.GradientTransformation
    learning_rate: Callable[[Any], jax.Array]
    state: TrainState
    eval_step: Callable[..., Any]
    checkpoints: RunCheckpoints | None


def build_run(config: Mapping[str, Any], workdir: Path) -> Run:
    """Open the data, create the model and the optimiser, find the state to start."""
    mesh = make_mesh()
    source, val_source = _open_data(config)
    accumulation = config["gradient_accumulation_steps"]
    stream = RepeatedStream(
        num_images=len(source),
        num_repeats=config["num_repeats"],
        epoch_len_factor=config["epoch_len_factor"],
        batch_size=config["batch_size"] * accumulation,
        seed=config["seed"],
    )
    # Without labels the classifier is there, and its one row is not trained.
    num_classes = config["num_classes"] or max(1, len(source.class_names))
    model = create_model(
        config["backbone"],
        num_classes=num_classes,
        pooling_exponent=config["pooling_exponent"],
        dtype=compute_dtype(config["compute_dtype"]),
        batch_norm_group_size=config["batch_norm_group_size"],
        seed=config["seed"],
    )
    train_graphdef, eval_graphdef, variables = split_for_training(model)
    learning_rate, tx = _make_optimizer(config, stream)
    state, checkpoints = start_state(
        config,
        workdir,
        variables=variables,
        tx=tx,
        stream=stream,
        num_classes=num_classes,
        class_names=source.class_names,
    )
    return Run(
        mesh=mesh,
        source=source,
        val_source=val_source,
        stream=stream,
        train_graphdef=train_graphdef,
        eval_graphdef=eval_graphdef,
        tx=tx,
        learning_rate=learning_rate,
        state=put_replicated(mesh, state),
        eval_step=make_eval_step(
            eval_graphdef, backbone=BACKBONES[config["backbone"]], mesh=mesh
        ),
        checkpoints=checkpoints,
    )


def _open_data(config: Mapping[str, Any]) -> tuple[ImageSource, ImageSource | None]:
    """The images for training and for validation, which images without labels lack."""
    split, val_split = config["data"]["split"], config["data"]["val_split"]
    source = open_split(config, split)
    print(f"{split}: {class_statistics(source)}")
    num_classes, found = config["num_classes"], len(source.class_names)
    if num_classes is not None and num_classes < found:
        raise InputError(
            f"num_classes: found {num_classes}, and the images have {found} classes; "
            "expected at least as many, or None to count them"
        )
    unlabelled = np.flatnonzero(source.labels < 0)
    if unlabelled.size and config["classification_weight"] > 0:
        raise InputError(
            f"{unlabelled.size} of {len(source)} images have no label, among them "
            f"{source.describe(int(unlabelled[0]))}; training needs one folder per "
            "class and no images beside the folders, or with "
            "--config.classification_weight=0 no labels at all"
        )
    if not source.class_names:
        print("no labels: the margin loss alone is trained, and there is no validation")
        return source, None
    if not val_split:
        return source, None
    val_source = open_split(config, val_split, source.class_names)
    print(f"{val_split}: {class_statistics(val_source)}")
    return source, val_source


def _make_optimizer(
    config: Mapping[str, Any], stream: RepeatedStream
) -> tuple[Callable[[Any], jax.Array], optax.GradientTransformation]:
    base = config["learning_rate"]
    if config["scale_learning_rate"]:
        base *= max(1.0, stream.batch_size / BASE_BATCH_SIZE)
    learning_rate = make_learning_rate(
        config["learning_rate_schedule"],
        base=base,
        steps_per_epoch=stream.steps_per_epoch,
        num_epochs=config["num_epochs"],
        drop_epochs=config["learning_rate_drop_epochs"],
        drop_factors=config["learning_rate_drop_factors"],
        warmup_epochs=config["warmup_epochs"],
    )
    tx = make_optimizer(
        learning_rate,
        momentum=config["momentum"],
        weight_decay=config["weight_decay"],
        beta_learning_rate_factor=config["beta_learning_rate_factor"],
    )
    return learning_rate, tx


def make_step(config: Mapping[str, Any], built: Run) -> Callable[..., Any]:
    """The compiled training step, as the configuration wants it."""
    backbone = BACKBONES[config["backbone"]]
    group_size = config["sampling_group_size"]
    max_positives = min(
        built.stream.max_positives, group_size - 1, config["batch_size"]
    )

    def select_pairs(
        key: jax.Array, normalized: jax.Array, instance_ids: jax.Array
    ) -> Pairs | None:
        if config["classification_weight"] == 1:
            return None
        return sample_pairs(
            key,
            normalized,
            instance_ids,
            negative_sampling=config["negative_sampling"],
            group_size=group_size,
            max_positives=max_positives,
        )

    return make_train_step(
        built.train_graphdef,
        built.tx,
        mesh=built.mesh,
        seed=config["seed"],
        prepare_images=partial(
            augment,
            augmentation=config["augmentation"],
            mean=backbone.mean,
            std=backbone.std,
        ),
        select_pairs=select_pairs,
        classification_weight=config["classification_weight"],
        margin=config["margin"],
        gradient_accumulation_steps=config["gradient_accumulation_steps"],
        compiler_options=compiler_options(
            backbone, deterministic=config["deterministic"]
        ),
    )
