"""A page to search a collection, look through it and review its duplicates; HTTP API.

    pip install -e '.[browse]'
    python -m multigrain_jax.main --config configs/browse.py \
        --config.database=workdirs/embed

Prints an address and opens it. It listens on this machine alone, and moves no file
unless --config.allow_moves=True; docs/browse.md says more.
"""

import ml_collections
from ml_collections import config_dict


def get_config() -> ml_collections.ConfigDict:
    """The configuration; every value can be set with --config.key=value."""
    config = ml_collections.ConfigDict()
    config.task = "browse"
    config.database = config_dict.placeholder(str)
    config.verify = False  # check all digests first; each is checked when it is read

    # Where it listens. Another host than this machine's own needs a token, which
    # clients send as `Authorization: Bearer TOKEN`.
    config.host = "127.0.0.1"
    config.port = 0  # 0 is a free one
    config.token = config_dict.placeholder(str)
    config.open_browser = True

    # Duplicates: pairs from this similarity on are looked for, once; the slider groups
    # them from any higher one on.
    config.lowest_threshold = 0.7
    # Lets the page move files that are marked to the workdir's trash, with a log.
    # Nothing is ever deleted; restore=True brings all of it back, and ends.
    config.allow_moves = False
    config.restore = False

    # Uploads: how many may be under way, and how long one may take to decode.
    config.queue_size = 48
    config.decode_timeout_s = 20.0
    config.decode_processes = config_dict.placeholder(int)  # None: as many as cores
    config.thumbnail_cache_mb = 500.0  # in the workdir; the longest unused go first

    config.data = ml_collections.ConfigDict()
    # Where the photos of the database are now, if they were moved since.
    config.data.root = config_dict.placeholder(str)
    config.data.max_megapixels = 128.0  # as in base.py
    # None: as the database's workdir. Of several collections in it, the one that this
    # checkpoint has made.
    config.init_from = config_dict.placeholder(str)
    config.init_step = config_dict.placeholder(int)
    config.init_raw = False  # as in base.py
    config.compute_dtype = "auto"  # bfloat16 on GPU and TPU, float32 on CPU
    # What computes the network: on CPUs "onnxruntime", with the extra of that name, can
    # be faster; the descriptors are the same but for rounding.
    config.engine = "jax"
    config.batch_size = 32  # at most: a CPU takes fewer large images at once
    return config
