"""Every fault before every task, by the real command."""

import importlib

import pytest


@pytest.mark.long
def test_no_command_is_silent_hangs_or_leaves_a_traceback(capsys):
    importlib.import_module("measure.fault_matrix").main([])
    assert "NOT TRIED" not in capsys.readouterr().out
