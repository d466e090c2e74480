"""The scripts of measure/ as functions, and whether they understand a command line."""

import argparse
import importlib

import pytest


def main_of(name: str):
    return importlib.import_module(f"measure.{name}").main


def check_understood(
    name: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let a script parse its arguments and do nothing more."""

    class Understood(Exception):
        pass

    parse = argparse.ArgumentParser.parse_args

    def parse_only(parser, given):
        parse(parser, given)
        raise Understood

    with monkeypatch.context() as patch, pytest.raises(Understood):
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
        main_of(name)(arguments)
