"""A checkpoint becomes a file of the original's format again."""

import numpy as np
import pytest


@pytest.mark.parametrize("name", ["resnet18", "nasnetamobile"])
def test_convert_export_convert_is_bit_equal(
    name, torch, state_dict_of, save_reference, run_tool, tmp_path
):
    state_dict = state_dict_of(name)
    source = save_reference(state_dict, tmp_path / "file.pth")
    digests = []
    for turn in ("first", "second"):
        code, table, _ = run_tool("convert_checkpoint", source, tmp_path / turn)
        assert code == 0
        digests.append(table["digest"])
        source = tmp_path / "exported" / f"{turn}.pth"
        assert run_tool("export_torch", tmp_path / turn, source)[0] == 0
    assert digests[0] == digests[1]
    content = torch.load(source, weights_only=True)
    assert content["extra"] == {"beta": 0.625}
    exported = {key: value.numpy() for key, value in content["model_state"].items()}
    assert exported.keys() == state_dict.keys()
    for key, value in exported.items():
        np.testing.assert_array_equal(value, state_dict[key])
    code, _, error = run_tool("export_torch", tmp_path / "first", source)
    assert code == 2 and "exists already" in error
