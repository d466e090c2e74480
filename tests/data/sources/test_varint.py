"""Whole numbers of any length, in bytes."""

import pytest

from multigrain_jax.data.sources.varint import read_varint


@pytest.mark.parametrize(
    ("data", "value"),
    [(b"\0", 0), (b"\x7f", 127), (b"\x80\x01", 128), (b"\xac\x02", 300)],
)
def test_a_number_is_read_to_its_end(data, value):
    assert read_varint(b"x" + data + b"y", 1) == (value, 1 + len(data))


def test_what_has_no_end_is_none():
    with pytest.raises(IndexError):
        read_varint(b"\x80", 0)
    with pytest.raises(ValueError, match="without an end"):
        read_varint(b"\xff" * 20, 0)
