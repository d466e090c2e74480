"""`multigrain convert`, which `tools/convert_checkpoint.py` is too."""

import json

import pytest

from multigrain_jax import commands
from multigrain_jax.commands import convert


@pytest.mark.parametrize("program", ["multigrain convert", "python tools/x.py"])
def test_help_has_examples_under_its_own_name(program, capsys):
    with pytest.raises(SystemExit) as ended:
        convert.main(["--help"], program=program)
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert f"{program} joint_3B_0.5.pth weights/joint_3B_0.5\n" in printed
    assert "{" not in printed.replace("{square,rect}", "").partition("--head")[0]


def test_what_cannot_be_converted_is_one_line(tmp_path, capsys):
    (tmp_path / "model.pth").write_bytes(b"no weights")
    words = ["convert", str(tmp_path / "model.pth"), str(tmp_path / "out")]
    assert commands.main(words) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ") and printed.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_where_weights_are_is_one_object_of_json(tmp_path, monkeypatch, capsys):
    def keep(name, destination):
        print("downloading")
        return tmp_path / name

    monkeypatch.setattr(convert, "keep_weights", keep)
    assert commands.main(["convert", "joint_3B_0.5", "--json"]) == 0
    printed = capsys.readouterr()
    written = str(tmp_path / "joint_3B_0.5")
    assert json.loads(printed.out) == {"written_to": written}
    assert printed.err == f"downloading\nwritten to {written}\n"
