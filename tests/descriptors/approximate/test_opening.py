"""The engine that made an index is opened again."""

import pytest
from helpers.approximate import SETTINGS

from multigrain_jax.descriptors.approximate.opening import ENGINES, open_engine
from multigrain_jax.descriptors.approximate.record import Record
from multigrain_jax.errors import InputError


def test_an_engine_of_another_version_is_refused(tmp_path):
    record = Record(SETTINGS, "annoy", {}, {})
    with pytest.raises(InputError, match=rf"'annoy', expected one of {ENGINES[0]}, "):
        open_engine(record, tmp_path)
