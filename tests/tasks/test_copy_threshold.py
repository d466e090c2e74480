"""Where "the same photo" begins."""

import json
from types import SimpleNamespace

from multigrain_jax.tasks.copy_threshold import threshold_of


def opened(path, **meta):
    return SimpleNamespace(checkpoint=SimpleNamespace(path=path, meta=meta))


def test_the_threshold_is_the_measured_one_else_the_published_one(tmp_path):
    step = tmp_path / "run" / "checkpoints" / "5"
    step.mkdir(parents=True)
    assert threshold_of(opened(step)).start == 0.9
    assert "guess" in threshold_of(opened(step)).origin
    known = {"name": "n", "results": {"test/copy_threshold_at_p90": 0.6}}
    found = threshold_of(opened(step, published=known))
    assert (found.start, found.origin) == (0.6, "published for n")
    results = tmp_path / "run" / "results.json"
    results.write_text(json.dumps({"val/copy_threshold_at_p90": 0.7, "x": 1}))
    assert threshold_of(opened(step, published=known)).start == 0.7
    for broken in ("[]", "{", '{"a/copy_threshold_at_p90": "x"}'):
        results.write_text(broken)
        assert threshold_of(opened(step, published=known)).start == 0.6
