import pyarrow as pa
import pytest

from multigrain_jax.data.sources.parquet_pages import (
    SNAPPY_BLOCK,
    Chunk,
    _block_starts,
    find_values,
    pack_length,
)


def snappy(data):
    return pa.Codec("snappy").compress(data, asbytes=True)


def test_a_length_is_written_as_snappy_does():
    for length in (1, 127, 128, 300, 70_000):
        packed = pack_length(length)
        assert snappy(b"a" * length)[: len(packed)] == packed


@pytest.mark.parametrize("size", [1, SNAPPY_BLOCK, SNAPPY_BLOCK + 1, 5 * SNAPPY_BLOCK])
def test_each_block_of_snappy_can_be_unpacked_alone(size):
    data = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    packed = snappy(data)
    starts = _block_starts(packed)
    blocks = [data[i : i + SNAPPY_BLOCK] for i in range(0, size, SNAPPY_BLOCK)]
    assert len(starts) == len(blocks) + 1
    for block, start, end in zip(blocks, starts, starts[1:], strict=False):
        alone = pack_length(len(block)) + packed[start:end]
        found = pa.Codec("snappy").decompress(
            alone, decompressed_size=len(block), asbytes=True
        )
        assert found == block


def test_blocks_that_need_what_was_before_them_are_one():
    literal = bytes([62 << 2, *(SNAPPY_BLOCK - 1).to_bytes(3, "little")])
    first = literal + bytes(SNAPPY_BLOCK)
    copy = bytes([(4 - 1) << 2 | 2, 8, 0])  # of 4 bytes, 8 back
    packed = pack_length(SNAPPY_BLOCK + 4) + first + copy
    head = len(pack_length(SNAPPY_BLOCK + 4))
    assert _block_starts(packed) == [head, len(packed)]
    # And a literal over the edge.
    over = bytes([62 << 2, *(SNAPPY_BLOCK + 9).to_bytes(3, "little")])
    packed = pack_length(SNAPPY_BLOCK + 10) + over + bytes(SNAPPY_BLOCK + 10)
    assert _block_starts(packed) == [head, len(packed)]


@pytest.mark.parametrize(
    "data",
    [b"", b"\x15\x04", b"\x15\x00\x15\x14\x15\x80\x01\x00", b"\x1d\x00", b"\xff" * 40],
)
def test_what_is_no_page_is_told_from_the_end_of_a_file(data):
    def read(offset, length):
        return data[offset : offset + length]

    chunk = Chunk(0, max(1, len(data)), True, "")
    with pytest.raises((ValueError, LookupError)):
        list(find_values(read, chunk, lambda packed, size: packed))
