"""What every row of published weights must have."""

import json
import string

import pytest

from multigrain_jax.data.eval_batches import TEST_MODES
from multigrain_jax.models.backbones import BACKBONES
from multigrain_jax.weights.table import CC_BY_NC, PUBLISHED

# What the original's authors have published.
ORIGINAL = {"joint_1B_1.0", "joint_3B_1.0", "joint_1B_0.5", "joint_3B_0.5"}
ORIGINAL |= {"joint_3BAA_0.5", "nasnetamobile-finetune350", "senet154-finetune400"}
ORIGINAL |= {"pnasnet5large-finetune500"}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_row(name):
    row = PUBLISHED[name]
    assert row.address.startswith("https://") and row.file_name.endswith(
        (".pth", ".pth.tar")
    )
    assert row.backbone in BACKBONES and name.startswith(("joint_", row.backbone))
    assert (row.licence == CC_BY_NC) == (name in ORIGINAL)
    assert row.test_mode in TEST_MODES and row.test_size >= 224
    assert row.pooling_exponent is None or row.pooling_exponent > 1
    assert row.results and all(16 < score < 100 for score in row.results.values())
    assert json.loads(json.dumps(row.record(name))) == row.record(name)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_digest_in_the_name_of_a_file_is_checked(name):
    row = PUBLISHED[name]
    stem = row.file_name.partition(".pth")[0]
    digits = stem.rpartition("-")[2] if "-" in stem else ""
    carried = digits if set(digits) <= set(string.hexdigits) else ""
    assert row.sha256[:8] == carried
    assert len(row.sha256) in (0, 8, 64)


def test_the_originals_files_are_all_there():
    assert set(PUBLISHED) >= ORIGINAL
    files = [row.file_name for row in PUBLISHED.values()]
    assert len(set(files)) == len(files)
