import io
import os

import pytest

from multigrain_jax.data.sources.random_access import open_part, read_at, stamp_file

DATA = bytes(range(200))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(DATA)
    return str(path)


def test_a_part_is_read_by_its_place_and_never_in_part(file):
    stamp = stamp_file(file)
    assert read_at(file, 10, 5, stamp=stamp) == DATA[10:15]
    with pytest.raises(OSError, match=r"50 bytes were expected at 190 .*found 10"):
        read_at(file, 190, 50, stamp=stamp)
    with pytest.raises(OSError, match="changed since it was indexed"):
        read_at(file, 0, 5, stamp=stamp._replace(size=199))
    os.utime(file, ns=(5, 5))
    with pytest.raises(OSError, match="changed since it was indexed"):
        read_at(file, 0, 5, stamp=stamp)


def test_a_part_is_a_file_of_its_own(file):
    with open_part(file, 100, 50, stamp=stamp_file(file), buffer_bytes=8) as part:
        assert part.read(20) == DATA[100:120]
        assert part.seek(-10, io.SEEK_CUR) == 10
        assert part.read(3) == DATA[110:113]
        assert part.seek(-2, io.SEEK_END) == 48
        assert part.read() == DATA[148:150]
        assert part.read(1) == b""
        part.seek(0)
        assert part.read() == DATA[100:150]
