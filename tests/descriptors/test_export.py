"""Descriptors as Parquet, read back by PyArrow."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from helpers.approximate import DIM, photos, random_rows, unit, write_folder
from helpers.descriptor_folders import all_found, embed, stamps

from multigrain_jax.descriptors.export import export_parquet
from multigrain_jax.descriptors.folder import VANISHED
from multigrain_jax.errors import InputError
from multigrain_jax.files import escape_name, unescape_name

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
ROOT = Path(__file__).parents[2]


def export(database, destination, **changes):
    values = {"dtype": None, "only_live": True, "rows_per_group": 8} | changes
    return export_parquet(database, destination, **values)


def test_pyarrow_reads_what_the_folder_has(tmp_path):
    database, file = tmp_path / "descriptors", tmp_path / "d.parquet"
    embed(database, stamps(23))
    embed(database, stamps(23)[4:])  # four have vanished
    rows = export(database, file)
    table = pq.read_table(file)
    assert table.schema.field("descriptor").type == pa.list_(pa.float16(), 3)
    assert pq.ParquetFile(file).num_row_groups == -(-rows // 8)
    found = dict(
        zip(
            map(unescape_name, table["path"].to_pylist()),
            np.stack(table["descriptor"].to_numpy()).tolist(),
            strict=True,
        )
    )
    assert found == all_found(database) and len(found) == rows == table.num_rows
    assert set(table["status"].to_pylist()) == {"ok"}
    record = json.loads(table.schema.metadata[b"multigrain_jax.descriptors"])
    assert (record["backbone"], record["pooling_exponent"]) == ("tiny", "inf")


def test_all_photos_with_their_status(tmp_path):
    database, file = tmp_path / "descriptors", tmp_path / "d.parquet"
    embed(database, stamps(11))
    embed(database, stamps(11)[4:])
    assert export(database, file, only_live=False, dtype="float32") == 11
    table = pq.read_table(file)
    lines = table.to_pylist()
    assert table.schema.field("descriptor").type == pa.list_(pa.float32(), 3)
    assert {line["path"] for line in lines} == {escape_name(s.path) for s in stamps(11)}
    without = [line for line in lines if line["descriptor"] is None]
    gone = [line for line in lines if line["status"] == VANISHED]
    assert {line["status"] for line in without} >= {"truncated, at byte 5"}
    assert len(gone) == 4 and all(
        len(line["descriptor"] or [0] * 3) == 3 for line in gone
    )
    live = {
        unescape_name(line["path"]): line["descriptor"]
        for line in lines
        if line["status"] == "ok"
    }
    assert live == all_found(database)


def test_a_row_group_is_what_is_in_memory(tmp_path):
    rows = unit(np.random.default_rng(0).standard_normal((40_000, DIM)))
    write_folder(tmp_path / "a", photos(40_000), rows, rows_per_shard=10_000)
    pool = pa.default_memory_pool()
    before = pool.max_memory()
    export(tmp_path / "a", tmp_path / "a.parquet", rows_per_group=500)
    assert pq.ParquetFile(tmp_path / "a.parquet").num_row_groups == 80
    assert pool.max_memory() - before < 8 << 20


def test_what_cannot_be_is_one_line_and_leaves_nothing(tmp_path):
    with pytest.raises(InputError, match="a folder of descriptors was expected"):
        export(tmp_path, tmp_path / "d.parquet")
    embed(tmp_path / "descriptors", stamps(9))
    with pytest.raises(InputError, match="its folder was expected to be there"):
        export(tmp_path, tmp_path / "nowhere" / "d.parquet")
    shard = next((tmp_path / "descriptors").glob("shard-*.npy"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"!")
    with pytest.raises(InputError, match="its content has changed"):
        export(tmp_path, tmp_path / "d.parquet")
    (tmp_path / "d.parquet").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        embed(tmp_path / "other" / "descriptors", stamps(9))
        export(tmp_path / "other", tmp_path / "d.parquet")
    assert not list(tmp_path.glob("*.partial"))


def test_the_tool(tmp_path, capsys):
    spec = importlib.util.spec_from_file_location(
        "export_descriptors", ROOT / "tools" / "export_descriptors.py"
    )
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    write_folder(tmp_path / "descriptors", photos(25), random_rows(25))
    file = str(tmp_path / "d.parquet")
    assert tool.main([str(tmp_path), file, "--rows-per-group", "10"]) == 0
    assert f"25 photos written to {file}" in capsys.readouterr().out
    assert pq.ParquetFile(file).num_row_groups == 3
    assert tool.main([str(tmp_path / "none"), file]) == 2
    assert tool.main([str(tmp_path), file, "--rows-per-group", "0"]) == 2
    assert capsys.readouterr().err.count("error: ") == 2
