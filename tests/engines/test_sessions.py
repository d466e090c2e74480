"""A network of ONNX Runtime gives what it gives by JAX."""

import concurrent.futures
import errno
import importlib.util
import os
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from multigrain_jax.engines import sessions
from multigrain_jax.engines.sessions import ENGINES, EngineStep, engine_problems
from multigrain_jax.errors import InputError

NOTHING: dict[str, np.ndarray] = {}


def test_an_engine_is_a_known_one():
    assert engine_problems("jax") == []
    assert engine_problems("onnx") == [
        "engine: found 'onnx', expected one of jax, onnxruntime"
    ]
    assert ENGINES == ("jax", "onnxruntime")


def test_a_package_that_is_missing_is_named_with_the_command_that_brings_it(
    monkeypatch,
):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n: None if "onnx" in n else found(n)
    )
    (line,) = engine_problems("onnxruntime")
    assert "expected onnx and onnxruntime to be installed for it: pip install" in line
    assert line.endswith("'.[onnxruntime]'")
    assert engine_problems("jax") == []
    with pytest.raises(InputError, match="expected onnx and onnxruntime"):
        EngineStep(lambda variables, inputs: inputs)


def test_several_hosts_want_jax(monkeypatch):
    pytest.importorskip("onnxruntime")
    assert engine_problems("onnxruntime") == []
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    (line,) = engine_problems("onnxruntime")
    assert "'onnxruntime' on 2 hosts, expected one; jax computes on several" in line
    assert engine_problems("jax") == []


def test_a_step_is_traced_once_for_each_shape(monkeypatch):
    pytest.importorskip("onnxruntime")
    traced = []

    def function(variables, inputs):
        traced.append(inputs["x"].shape)
        return {"y": inputs["x"] @ variables["kernel"]}

    step = EngineStep(function)
    variables = {"kernel": jnp.asarray([[1.0], [2.0]])}
    inputs = [np.full((rows, 2), rows, np.float32) for rows in (1, 3, 1, 3, 3, 1)]
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda x: step(variables, {"x": x})["y"], inputs))
    for x, y in zip(inputs, found, strict=True):
        np.testing.assert_array_equal(y, x @ [[1.0], [2.0]])
    assert sorted(traced) == [(1, 2), (3, 2)]
    with pytest.raises(ValueError, match="found other arrays than in the first"):
        step({"kernel": jnp.zeros((2, 1))}, {"x": inputs[0]})


def test_a_network_that_it_cannot_compute_is_refused_by_its_operation():
    pytest.importorskip("onnxruntime")
    step = EngineStep(lambda variables, inputs: {"y": jnp.sort(inputs["x"], axis=0)})
    message = "'onnxruntime' cannot compute this network, found the operation sort; "
    with pytest.raises(InputError, match=message):
        step(NOTHING, {"x": np.zeros((2, 2), np.float32)})


def test_a_session_has_the_threads_that_it_may_have(monkeypatch):
    onnxruntime = pytest.importorskip("onnxruntime")
    asked, make = [], onnxruntime.InferenceSession

    def session(path, options, providers):
        asked.append(options.intra_op_num_threads)
        return make(path, options, providers=providers)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    monkeypatch.setattr(sessions, "num_cores", lambda: 3)
    step = EngineStep(lambda variables, inputs: {"y": inputs["x"] + 1})
    assert step(NOTHING, {"x": np.ones((1, 1), np.float32)})["y"] == 2
    assert asked == [3]


@pytest.mark.parametrize("most", [1, 3])
def test_no_more_sessions_are_kept_than_were_asked_for(most):
    pytest.importorskip("onnxruntime")
    traced = []

    def function(variables, inputs):
        # What is kept beside the new one while that is made.
        traced.append(len(step._sessions))
        return {"y": inputs["x"] * 2}

    step = EngineStep(function, most_sessions=most)

    def go_round(num_shapes):
        before = len(traced)
        for count in range(1, num_shapes + 1):
            x = np.full((count, 1), count, np.float32)
            np.testing.assert_array_equal(step(NOTHING, {"x": x})["y"], 2 * x)
        return len(traced) - before

    assert [go_round(most) for _ in range(3)] == [most, 0, 0]
    assert go_round(most + 2) == 2
    assert len(step._sessions) == most
    assert go_round(most + 2) == most + 2
    assert len(step._sessions) == most
    assert max(traced) == most - 1


def test_the_same_shapes_of_another_dtype_are_another_session():
    pytest.importorskip("onnxruntime")
    step = EngineStep(lambda variables, inputs: {"y": inputs["x"] + inputs["x"]})
    for dtype in (np.float32, np.int32):
        found = step(NOTHING, {"x": np.ones((2, 1), dtype)})["y"]
        assert found.dtype == dtype and np.all(found == 2)


def test_a_model_that_the_engine_refuses_is_an_error_of_one_line(monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(sessions, "to_onnx", lambda function, shapes: b"no model")
    with pytest.raises(InputError, match="cannot compute this network, found"):
        EngineStep(lambda variables, inputs: inputs)({}, {"x": np.ones((1, 1))})


def test_a_full_temporary_folder_is_named_with_what_it_lacks(monkeypatch, tmp_path):
    pytest.importorskip("onnxruntime")
    written = []

    def write(path, data):
        written.append((path, data))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(Path, "write_bytes", write)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    step = EngineStep(lambda variables, inputs: {"y": inputs["x"] + 1})
    with pytest.raises(InputError, match="engine: found 'onnxruntime'") as error:
        step(NOTHING, {"x": np.ones((1, 1), np.float32)})
    ((path, data),) = written
    assert path.is_relative_to(tmp_path)
    line = str(error.value)
    assert f"and {tmp_path} has " in line and " bytes free (No space left" in line
    assert f"expected {len(data)} bytes; make room, or name another folder by T" in line
    # Once there is room the same step goes on, and nothing was left behind.
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []
    assert step(NOTHING, {"x": np.ones((1, 1), np.float32)})["y"] == 2


def test_a_temporary_folder_that_is_gone_is_told_of(monkeypatch, tmp_path):
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    step = EngineStep(lambda variables, inputs: {"y": inputs["x"] + 1})
    message = r"no temporary folder can be written \(No such file or directory\), exp"
    with pytest.raises(InputError, match=message):
        step(NOTHING, {"x": np.ones((1, 1), np.float32)})


def test_beside_an_accelerator_jax_is_wanted(monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    (line,) = engine_problems("onnxruntime")
    assert "which computes on the CPU, where JAX has a gpu, expected 'jax'" in line
    assert engine_problems("jax") == []
