"""States of a few numbers in place of a network's, saved and begun from."""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from multigrain_jax.checkpoint import CheckpointStore
from multigrain_jax.data.repeated import RepeatedStream
from multigrain_jax.train.resume import DataRecord, Resume
from multigrain_jax.train.start import Beginning, start_state
from multigrain_jax.train.state import TrainState, checkpoint_average, checkpoint_model
from multigrain_jax.train.versions import current_versions

TX = optax.trace(decay=0.9)
STREAM = RepeatedStream(
    num_images=9, num_repeats=1, epoch_len_factor=1.0, batch_size=4, seed=0
)
RECORD = {"seed": 0, "learning_rate": 0.1}
FROM_SCRATCH = Beginning(
    backbone="tiny",
    init_from=None,
    init_step=None,
    init_raw=False,
    pretrained_backbone=None,
    resume=Resume(
        step=None,
        allow_config_change=False,
        start_anew=False,
        save_every=5,
        dry_run=False,
    ),
)
DATA = DataRecord(["a", "b"], {"names": "n", "sizes": "s", "labels": "l"})


def make_state(value=0.0, *, num_classes=2, step=0, exponent=3.0, average=None):
    """A state whose every number is `value`, but for the exponent and the average."""

    def full(*shape):
        return jnp.full(shape, value, jnp.float32)

    classifier = {"kernel": full(3, num_classes), "bias": full(num_classes)}
    params = {"trunk": {"kernel": full(2, 3)}, "classifier": classifier}
    params["margin"] = {"beta": full()}
    opt_state = jax.tree.map(lambda x: x + 1, TX.init(params))
    ema = None
    if average is not None:
        weights = {"params": params, "batch_stats": {"trunk": {"mean": full(3)}}}
        ema = jax.tree.map(lambda x: jnp.full_like(x, average), weights)
    return TrainState(
        step=jnp.int32(step),
        params=params,
        batch_stats={"trunk": {"mean": full(3)}},
        pooling_exponent=jnp.float32(exponent),
        opt_state=opt_state if step else TX.init(params),
        ema=ema,
    )


def save(
    workdir,
    *values,
    step=5,
    backbone="tiny",
    num_images=9,
    data=None,
    record=RECORD,
    **changes,
):
    """Checkpoints of a run at multiples of `step`, each of its value."""
    store = CheckpointStore(workdir)
    for number, value in enumerate(values, start=1):
        state = make_state(value, step=number * step, **changes)
        num_classes = state.params["classifier"]["bias"].size
        store.save(
            number * step,
            model=checkpoint_model(state),
            optimizer=state.opt_state,
            ema=checkpoint_average(state),
            data={
                "position": 4 * number * step,
                "num_images": num_images,
                "versions": current_versions(),
                **({"digest": dict(data.digest)} if data else {}),
            },
            meta={
                "backbone": backbone,
                "num_classes": num_classes,
                "config": record,
                **({"class_names": list(data.class_names)} if data else {}),
            },
        )
    store.close()
    return workdir


OWN = {field.name for field in dataclasses.fields(Resume)}


def begin(workdir, *, fresh=None, record=RECORD, data=DATA, last_step=100, **changes):
    """Where a run begins; changes of `Beginning` and of its `Resume` by name."""
    own = {name: changes.pop(name) for name in OWN & changes.keys()}
    resume = dataclasses.replace(FROM_SCRATCH.resume, **own)
    return start_state(
        dataclasses.replace(FROM_SCRATCH, resume=resume, **changes),
        workdir,
        fresh=fresh or make_state(-1.0),
        tx=TX,
        stream=STREAM,
        data=data,
        record=record,
        last_step=last_step,
    )


def start(workdir, **options):
    return begin(workdir, **options).state


def average_of(state):
    return float(state.ema["params"]["trunk"]["kernel"][0, 0])


def value_of(state):
    return float(state.params["trunk"]["kernel"][0, 0])
