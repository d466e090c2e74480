"""Descriptors of one's own photos, to search and to find duplicates among.

    python -m multigrain_jax.main --config configs/embed.py \
        --config.init_from=workdirs/joint_3B --config.data.root=~/photos

A folder is taken with all its subfolders; --config.data.list_file=FILE takes those
files of it that a text file names, --config.data.source=tfds a prepared data set. Files
that cannot be read are listed in skipped.txt, and tried again by the next run; what was
passed over or read with a remark is in notes.txt. The same command again embeds what is
new or has changed, and goes on where it was if it was killed; with another data.root it
adds the photos of that folder to the same ones. With other settings they go to
workdirs/embed/<backbone>-<size>-<digest of the weights>.
"""

import ml_collections
from ml_collections import config_dict

from configs import eval_base


def get_config() -> ml_collections.ConfigDict:
    """The configuration; every value can be set with --config.key=value."""
    config = eval_base.get_config()
    config.task = "embed"
    del config.test_size
    # "auto": as the descriptors in the workdir, or in a folder of it, if they are of
    # these weights. Else, for your own network, the size that it was tested at, whole
    # photos ("rect") and the checkpoint's p. Else what published weights search best
    # with. Else 500, the longer side in the paper's retrieval results. Of several
    # sizes, "(352, 500)", the descriptor is the mean over them.
    config.test_size = config_dict.FieldReference("auto", field_type=object)
    config.test_mode = "auto"  # or "square", "rect"
    config.pooling_exponent = "auto"  # or p; None: the checkpoint's
    config.batch_size = 32
    config.descriptor_dtype = "float16"  # or "float32", twice as large
    config.rows_per_shard = 16_384  # what a kill costs at most
    # Compare descriptors that are there with their digests; False: by sizes alone.
    config.verify = True
    return config
