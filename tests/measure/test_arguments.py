"""Numbers that cannot do end a script with a line, before it measures anything."""

import argparse

import pytest
from helpers.scripts import main_of

from measure.arguments import at_least, not_negative, positive, require_whole_groups


@pytest.mark.parametrize("text", ["-1", "0", "1", "1.5", "nan", "x", ""])
def test_a_whole_number_is_at_least_what_is_asked_for(text):
    with pytest.raises(argparse.ArgumentTypeError, match="whole number of 2 or more"):
        at_least(2)(text)
    assert (at_least(2)("2"), at_least(0)("0")) == (2, 0)


@pytest.mark.parametrize("text", ["-1", "-1e-9", "nan", "inf", "-inf", "x", ""])
def test_numbers_are_finite_and_not_below_zero(text):
    for parse in (positive, not_negative):
        with pytest.raises(argparse.ArgumentTypeError, match=f"found {text}, expected"):
            parse(text)
    assert (positive("1e-9"), not_negative("0")) == (1e-9, 0.0)
    with pytest.raises(argparse.ArgumentTypeError, match="above 0"):
        positive("0")


def test_a_batch_consists_of_groups_or_is_one():
    parser = argparse.ArgumentParser()
    for batch_size, group_size in ((6, 3), (3, 3), (3, 64)):
        require_whole_groups(parser, batch_size, group_size)
    with pytest.raises(SystemExit):
        require_whole_groups(parser, 7, 3)


WRONG = [
    ("quality", "--seeds 0", "argument --seeds: found 0, expected a whole number of 1"),
    ("quality", "--seeds -1", "argument --seeds: found -1, expected a whole number"),
    ("quality", "--processes -1", "argument --processes: found -1, expected a whole"),
    ("quality", "--folds 1", "argument --folds: found 1, expected a whole number of 2"),
    ("quality", "--steps 0", "argument --steps: found 0"),
    ("quality", "--deadline nan", "argument --deadline: found nan"),
    ("options", "--rounds 0", "argument --rounds: found 0"),
    ("options", "--steps 0", "argument --steps: found 0"),
    ("options", "--repeats 1", "argument --repeats: found 1"),
    ("options", "--dtype int8", "argument --dtype: invalid choice"),
    ("options", "--batch-size 7 --group-size 3", "--group-size: found 3, expected a"),
    ("step", "--batch-size 7 --group-size 3", "--group-size: found 3, expected a div"),
    ("step", "--accumulation 3 --own-only", "--accumulation: found 3, expected a div"),
    (
        "step",
        "--batch-size 24 --accumulation 2 --group-size 8 --own-only",
        "--group-size: found 8, expected a divisor of the 12 photos",
    ),
    ("gpu_program", "--batch-size 7 --group-size 3", "--group-size: found 3, expected"),
    ("against_original", "clone photos --seeds 0", "argument --seeds: found 0"),
    ("against_original", "clone photos --learning-rate nan", "--learning-rate: found"),
    ("against_original", "clone photos --processes -1", "argument --processes: found"),
    ("index", "--rows-of flat", "argument --rows-of: found flat, expected INDEX=N"),
    ("index", "--rows-of hnsw=0", "argument --rows-of: found 0, expected a whole num"),
    ("search", "--k 0", "argument --k: found 0"),
    ("backbones", "--rounds 0", "argument --rounds: found 0"),
    ("input", "--seconds 0", "argument --seconds: found 0"),
    ("formats", "--workers -1", "argument --workers: found -1"),
]


@pytest.mark.parametrize(("name", "given", "said"), WRONG, ids=lambda word: str(word))
def test_wrong_arguments_end_in_one_line(name, given, said, capsys):
    with pytest.raises(SystemExit) as exit_:
        main_of(name)(given.split())
    assert exit_.value.code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]
