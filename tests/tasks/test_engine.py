"""Tasks whose network ONNX Runtime computes give what they give by JAX."""

from functools import partial

import numpy as np
import pytest
from helpers.browsing import make_collection
from helpers.configs import small_eval_config
from helpers.descriptors import read_table

import multigrain_jax
from configs import (
    browse,
    embed,
    eval_base,
    eval_retrieval,
    finetune_p,
    predict,
    search,
    sweep_p,
    whiten,
)
from multigrain_jax.browse.meters import Meters
from multigrain_jax.descriptors.index import DescriptorIndex
from multigrain_jax.engines import sessions
from multigrain_jax.errors import InputError
from multigrain_jax.tasks import browse as run_browse
from multigrain_jax.tasks import embed as run_embed
from multigrain_jax.tasks import eval_classification as run_classification
from multigrain_jax.tasks import eval_retrieval as run_retrieval
from multigrain_jax.tasks import predict as run_predict
from multigrain_jax.tasks import search as run_search
from multigrain_jax.tasks import sweep_pooling as run_sweep
from multigrain_jax.tasks.browse import _start_embedder
from multigrain_jax.tasks.embed_record import open_database
from multigrain_jax.tasks.search import open_query_model

ENGINE = "onnxruntime"
make_config = partial(
    small_eval_config, embed.get_config, descriptor_dtype="float32", batch_size=8
)


@pytest.fixture
def made_by(monkeypatch):
    """How many batches ONNX Runtime has computed."""
    pytest.importorskip(ENGINE)
    calls, run = [], sessions.EngineStep.__call__

    def counted(step, variables, inputs):
        calls.append(len(next(iter(inputs.values()))))
        return run(step, variables, inputs)

    monkeypatch.setattr(sessions.EngineStep, "__call__", counted)
    return calls


@pytest.mark.parametrize("sizes", [48, (40, 48)])
def test_a_collection_is_the_same_by_either_engine(
    photo_folder, tiny_checkpoint, tmp_path, made_by, sizes
):
    for engine in (ENGINE, "jax"):
        config = make_config(
            photo_folder, tiny_checkpoint, test_size=sizes, engine=engine
        )
        before = len(made_by)
        assert run_embed.run(config, tmp_path / engine)["num_new"] == 18
        assert (len(made_by) > before) == (engine == ENGINE)
    theirs, ours = (
        DescriptorIndex.open(tmp_path / e / "descriptors") for e in (ENGINE, "jax")
    )
    assert theirs.settings == ours.settings
    assert list(theirs.paths(range(18))) == list(ours.paths(range(18)))
    rows = [index.read(0, len(index)) for index in (theirs, ours)]
    np.testing.assert_allclose(*rows, rtol=0, atol=2e-6)
    # It is one collection: the other engine goes on with it.
    assert run_embed.run(config, tmp_path / ENGINE)["num_new"] == 0


def test_a_search_finds_the_same_by_either_engine(
    database, tiny_checkpoint, tmp_path, made_by
):
    found = {}
    for engine in ("jax", ENGINE):
        config = search.get_config()
        config.database = str(database)
        config.queries = str(database.parent / "photos" / "=copy.png")
        config.num_neighbours = 3
        config.engine = engine
        assert run_search.run(config, tmp_path / engine)["num_queries"] == 1
        lines = (tmp_path / engine / "results.csv").read_text().splitlines()
        found[engine] = [line.rpartition(",") for line in lines[1:]]
    assert made_by
    assert [row[0] for row in found["jax"]] == [row[0] for row in found[ENGINE]]
    assert len(found["jax"]) == 3


def test_a_served_page_embeds_by_either_engine(tiny_checkpoint, tmp_path, made_by):
    made = make_collection(tmp_path, tiny_checkpoint)
    index = open_database(made.database, verify=False, root=None)
    image = np.full((48, 48, 3), 99, np.uint8)
    found = {}
    for engine in ("jax", ENGINE):
        settings = browse.get_config().to_dict() | {
            "database": str(made.database),
            "engine": engine,
        }
        opened = open_query_model(settings, index)
        assert index.settings is not None
        embedder = _start_embedder(opened, index.settings, Meters({}), batch_size=1)
        found[engine] = embedder.submit(image).result(60).descriptor
        embedder.close()
    assert made_by
    np.testing.assert_allclose(found[ENGINE], found["jax"], rtol=0, atol=2e-6)


# Their recipe, its run, and changes that lead through all of its steps.
EVALUATIONS = {
    "evaluate": (
        eval_base.get_config,
        run_classification,
        {"data": {"split": "train"}, "test_mode": "rect", "knn_probe": True},
    ),
    "sweep": (
        sweep_p.get_config,
        run_sweep,
        {
            "data": {"split": "train"},
            "test_sizes": (40, 56),
            "pooling_exponent": (1.0, 3.0, "inf"),
        },
    ),
    "predict": (predict.get_config, run_predict, {"test_mode": "rect"}),
    "retrieval": (
        partial(eval_retrieval.get_config, "folder"),
        run_retrieval,
        {"test_size": (40, 56), "test_mode": "rect"},
    ),
}


@pytest.mark.parametrize("task", EVALUATIONS)
def test_an_evaluation_has_the_scores_of_either_engine(
    task, photo_folder, tiny_checkpoint, tmp_path, made_by
):
    get_config, module, changes = EVALUATIONS[task]
    found = {}
    for engine in ("jax", ENGINE):
        config = small_eval_config(
            get_config, photo_folder, tiny_checkpoint, **changes, engine=engine
        )
        before = len(made_by)
        found[engine] = module.run(config, tmp_path / engine)
        assert (len(made_by) > before) == (engine == ENGINE)
    for results in found.values():
        del results["seconds"]
    assert found["jax"] == pytest.approx(found[ENGINE], rel=2e-5)
    if task == "predict":
        tables = [read_table(tmp_path / e / "predictions.csv") for e in found]
        for mine, other in zip(*tables, strict=True):
            for key in ("path", "class_1", "class_2"):
                assert mine[key] == other[key]
            probabilities = [float(row["probability_1"]) for row in (mine, other)]
            assert probabilities[0] == pytest.approx(probabilities[1], abs=2e-6)


@pytest.mark.parametrize("recipe", [whiten, finetune_p])
def test_jax_computes_what_becomes_part_of_a_model(recipe):
    assert "engine" not in recipe.get_config()


@pytest.mark.parametrize("task", ["embed", "search", "browse", *EVALUATIONS])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"engine": "onnx"}, "engine: found 'onnx', expected one of jax, onnxruntime"),
        (
            {"engine": ENGINE, "compute_dtype": "bfloat16"},
            "compute_dtype: found 'bfloat16', here bfloat16, with engine = "
            "'onnxruntime', expected 'float32'",
        ),
    ],
)
def test_an_engine_that_cannot_compute_is_refused(task, changes, message, tmp_path):
    if changes["engine"] == ENGINE:
        pytest.importorskip(ENGINE)
    tasks = {
        "embed": (embed.get_config, run_embed),
        "search": (search.get_config, run_search),
        "browse": (browse.get_config, run_browse),
        **{name: row[:2] for name, row in EVALUATIONS.items()},
    }
    get_config, module = tasks[task]
    config = get_config()
    for key, value in changes.items():
        config[key] = value
    with pytest.raises(InputError, match=message):
        module.run(config, tmp_path / "w")


def test_a_loaded_model_computes_by_either_engine(
    photo_folder, tiny_checkpoint, made_by
):
    ours = multigrain_jax.load_model(tiny_checkpoint)
    theirs = multigrain_jax.load_model(tiny_checkpoint, engine=ENGINE)
    assert (ours.engine, theirs.engine) == ("jax", ENGINE)
    images = np.random.default_rng(0).standard_normal((4, 40, 56, 3), np.float32)
    for given in (images, [images[0], images[1, :, :40], images[2]]):
        before = len(made_by)
        for mine, other in zip(ours(given), theirs(given), strict=True):
            assert mine is not None and other is not None
            np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-5)
        assert len(made_by) > before
    paths = sorted(photo_folder.rglob("*.png"))[:7]
    mine, other = (
        model.embed(paths, test_size=40, mode="rect") for model in (ours, theirs)
    )
    np.testing.assert_allclose(mine, other, rtol=0, atol=2e-6)
    before = len(made_by)
    again = theirs.embed(paths, test_size=40, mode="rect")
    np.testing.assert_array_equal(again, other)
    assert len(made_by) > before
    with pytest.raises(InputError, match="engine: found 'tpu', expected one of jax"):
        multigrain_jax.load_model(tiny_checkpoint, engine="tpu")


def test_each_size_of_a_list_is_made_once_by_an_engine_that_forgets(
    tiny_checkpoint, made_by, monkeypatch
):
    models, open_session = [], sessions.open_session

    def counted(model):
        models.append(model)
        return open_session(model)

    monkeypatch.setattr(sessions, "open_session", counted)
    num_sizes = sessions.MOST_SESSIONS + 1
    rng = np.random.default_rng(0)
    images = [
        rng.standard_normal((32, 32 + n % num_sizes, 3), np.float32)
        for n in range(2 * num_sizes)
    ]
    ours, theirs = (
        multigrain_jax.load_model(tiny_checkpoint, engine=e)(images)
        for e in ("jax", ENGINE)
    )
    # In the order in which they were given.
    for mine, other in zip(ours, theirs, strict=True):
        assert mine is not None and other is not None
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-5)
    assert (len(models), len(made_by)) == (num_sizes, len(images))


def test_gradients_through_a_model_are_those_of_jax(tiny_checkpoint, made_by):
    import jax
    import jax.numpy as jnp

    image = np.random.default_rng(0).standard_normal((1, 40, 40, 3), np.float32)
    found = []
    for engine in ("jax", ENGINE):
        model = multigrain_jax.load_model(tiny_checkpoint, engine=engine)
        found.append(jax.grad(lambda x, m=model: jnp.sum(m(x).embedding))(image))
    assert not made_by
    np.testing.assert_array_equal(*found)
