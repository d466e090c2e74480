"""From a training configuration to everything that is built once."""

from collections.abc import Callable, Generator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import optax

from multigrain_jax.data.digest import data_digest
from multigrain_jax.data.notes import NoteLog
from multigrain_jax.data.repeated import KnownInstances, RepeatedStream
from multigrain_jax.data.skips import SkipLog
from multigrain_jax.data.sources.source import ImageSource
from multigrain_jax.data.sources.tfrecord import TfrecordSource
from multigrain_jax.data.tfrecord_batches import make_tfrecord_batches
from multigrain_jax.data.train_batches import make_train_batches
from multigrain_jax.errors import InputError
from multigrain_jax.losses.infonce import infonce_loss
from multigrain_jax.losses.koleo import koleo_loss
from multigrain_jax.losses.sampling import Pairs, sample_pairs
from multigrain_jax.mesh import make_mesh, put_replicated
from multigrain_jax.models.multigrain import BACKBONES, create_model
from multigrain_jax.runtime import compiler_options, compute_dtype
from multigrain_jax.tasks.idle import idle_of_training, say_idle
from multigrain_jax.tasks.inputs import reading_from_config
from multigrain_jax.tasks.train_data import open_train_data
from multigrain_jax.tasks.train_views import make_mix_views, make_prepare_images
from multigrain_jax.train.config_change import config_record
from multigrain_jax.train.feed import MakeShare, train_batches
from multigrain_jax.train.optimizer import make_learning_rate, make_optimizer
from multigrain_jax.train.recorder import Run
from multigrain_jax.train.resume import DataRecord, Resume
from multigrain_jax.train.sample_log import SampleLog
from multigrain_jax.train.start import Beginning, open_checkpoints, start_state
from multigrain_jax.train.state import create_state, split_for_training, with_average
from multigrain_jax.train.step import TrainStep, make_train_step

# The batch for which the recipes' learning rates were chosen.
BASE_BATCH_SIZE = 512


def build_run(config: Mapping[str, Any], workdir: Path) -> Run:
    """Open the data, create the model and the optimiser, find the state to start."""
    mesh = make_mesh()
    say_idle(config)
    data = open_train_data(config)
    source = data.train
    stream = _make_stream(config, source)
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
    fresh = create_state(variables, tx, beta=config["beta_init"])
    record = config_record(config)
    digest = data_digest(source, root=config["data"]["root"])
    started = start_state(
        _beginning(config, stream),
        workdir,
        fresh=with_average(fresh) if config["ema_decay"] else fresh,
        tx=tx,
        stream=stream,
        data=DataRecord(source.class_names, digest),
        record=record,
        last_step=config["num_epochs"] * stream.steps_per_epoch,
    )
    checkpoints = None
    if not config["dry_run"]:
        checkpoints = open_checkpoints(
            workdir,
            first_step=int(started.state.step),
            keep_every_steps=config["keep_every_epochs"] * stream.steps_per_epoch,
            meta={
                "backbone": config["backbone"],
                "num_classes": num_classes,
                "class_names": list(source.class_names),
                "config": record,
            },
            stream=stream,
            digest=digest,
        )
    return Run(
        mesh=mesh,
        source=source,
        val_source=data.val,
        report_source=data.report,
        stream=stream,
        train_graphdef=train_graphdef,
        eval_graphdef=eval_graphdef,
        tx=tx,
        learning_rate=learning_rate,
        state=put_replicated(mesh, started.state),
        record=started.record,
        checkpoints=checkpoints,
    )


def _make_stream(config: Mapping[str, Any], source: ImageSource) -> RepeatedStream:
    known = None
    if source.instances is not None:
        photos = config["data"]["photos_per_instance"]
        known = KnownInstances(source.instances, photos_per_instance=photos)
    return RepeatedStream(
        num_images=len(source),
        num_repeats=config["num_repeats"],
        epoch_len_factor=config["epoch_len_factor"],
        batch_size=config["batch_size"] * config["gradient_accumulation_steps"],
        seed=config["seed"],
        known=known,
    )


def _beginning(config: Mapping[str, Any], stream: RepeatedStream) -> Beginning:
    return Beginning(
        backbone=config["backbone"],
        init_from=config["init_from"],
        init_step=config["init_step"],
        init_raw=config["init_raw"],
        pretrained_backbone=config["pretrained_backbone"],
        resume=Resume(
            step=config["resume_step"],
            allow_config_change=config["allow_config_change"],
            start_anew=config["start_anew"],
            save_every=config["checkpoint_every_epochs"] * stream.steps_per_epoch,
            dry_run=config["dry_run"],
            idle_keys=idle_of_training(config).keys(),
        ),
    )


def _make_optimizer(
    config: Mapping[str, Any], stream: RepeatedStream
) -> tuple[Callable[[jax.Array | int], jax.Array], optax.GradientTransformation]:
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
        optimizer=config["optimizer"],
        momentum=config["momentum"],
        weight_decay=config["weight_decay"],
        decay_norms=config["decay_norms"],
        beta_learning_rate_factor=config["beta_learning_rate_factor"],
    )
    return learning_rate, tx


def make_step(config: Mapping[str, Any], built: Run) -> TrainStep:
    """The compiled training step, as the configuration wants it."""
    backbone = BACKBONES[config["backbone"]]
    group_size = config["sampling_group_size"]
    max_positives = min(
        built.stream.max_positives, group_size - 1, config["batch_size"]
    )

    infonce = koleo = None
    if config["instance_loss"] == "infonce":
        infonce = partial(
            infonce_loss, temperature=config["temperature"], group_size=group_size
        )
    if config["koleo_weight"]:
        koleo = partial(koleo_loss, group_size=group_size)

    def select_pairs(
        key: jax.Array, normalized: jax.Array, instance_ids: jax.Array
    ) -> Pairs | None:
        if config["classification_weight"] == 1 or infonce is not None:
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
        prepare_images=make_prepare_images(config),
        select_pairs=select_pairs,
        classification_weight=config["classification_weight"],
        margin=config["margin"],
        mix_views=make_mix_views(config),
        label_smoothing=config["label_smoothing"],
        infonce=infonce,
        koleo=koleo,
        koleo_weight=config["koleo_weight"],
        ema_decay=config["ema_decay"] or 0.0,
        gradient_accumulation_steps=config["gradient_accumulation_steps"],
        compiler_options=compiler_options(
            backbone, deterministic=config["deterministic"]
        ),
    )


def make_feed(
    config: Mapping[str, Any],
    built: Run,
    workdir: Path,
    *,
    first_step: int,
    last_step: int,
    give_up: Callable[[], bool],
) -> Generator[dict[str, jax.Array]]:
    """Training batches on the devices, as the configuration wants them.

    `give_up` is asked while no batch comes.

    Unreadable images are listed in the workdir's skipped.txt, what there is to say of
    others in notes.txt, and with `log_sample_ids` all samples in sample_ids.jsonl.
    """
    records = None if config["dry_run"] else workdir
    notes = NoteLog(built.source, workdir=records)
    skips = SkipLog(
        built.source,
        workdir=records,
        max_fraction=config["max_skipped_fraction"],
    )
    sample_log = None
    if config["log_sample_ids"] and not config["dry_run"]:
        sample_log = SampleLog(workdir, first_step=first_step)
    by_tfdata = config["data"]["backend"] == "tfdata"
    return train_batches(
        (
            _tfrecord_share(config, built)
            if by_tfdata
            else _grain_share(config, built, give_up)
        ),
        batch_size=config["batch_size"],
        microbatches=config["gradient_accumulation_steps"],
        first_step=first_step,
        last_step=last_step,
        skips=skips,
        notes=notes,
        sample_log=sample_log,
        mesh=built.mesh,
    )


def _grain_share(
    config: Mapping[str, Any], built: Run, give_up: Callable[[], bool]
) -> MakeShare:
    return lambda first_step, num_steps, batch_slice: make_train_batches(
        built.source,
        built.stream,
        train_size=config["train_size"],
        augmentation=config["augmentation"],
        crop_area_min=config["crop_area_min"],
        crop_resize=config["crop_resize"],
        seed=config["seed"],
        first_step=first_step,
        num_steps=num_steps,
        batch_slice=batch_slice,
        reading=reading_from_config(config, give_up=give_up),
    )


def _tfrecord_share(config: Mapping[str, Any], built: Run) -> MakeShare:
    source = built.source
    if not isinstance(source, TfrecordSource):
        raise InputError(
            'data.backend = "tfdata" reads whole splits that TFDS prepared as TFRecord '
            f"files; {config['data']['root']} is not one, or data.num_images takes a "
            'part of it: set data.backend to "grain"'
        )
    return lambda first_step, num_steps, batch_slice: make_tfrecord_batches(
        source,
        num_repeats=built.stream.num_repeats,
        batch_size=built.stream.batch_size,
        train_size=config["train_size"],
        crop_area_min=config["crop_area_min"],
        seed=config["seed"],
        first_step=first_step,
        num_steps=num_steps,
        batch_slice=batch_slice,
        prefetch=config["prefetch_batches"],
    )
