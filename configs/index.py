"""An approximate index over a collection that `embed` made, for `search`.

    python -m multigrain_jax.main --config configs/index.py \
        --config.database=workdirs/embed
    python -m multigrain_jax.main --config configs/search.py \
        --config.database=workdirs/embed --config.index=workdirs/index \
        --config.queries=holiday.jpg

Worth its while from about a million photos on (docs/large_collections.md). The same
command again adds the photos that are new and takes out those that are gone, and goes
on where it was if it was killed. Needs the extra `faiss`, or `milvus`.
"""

import ml_collections
from ml_collections import config_dict


def get_config() -> ml_collections.ConfigDict:
    """The configuration; every value can be set with --config.key=value."""
    config = ml_collections.ConfigDict()
    config.task = "index"
    config.seed = 0  # of the sample, and of what is learnt from it

    config.database = config_dict.placeholder(str)
    config.verify = False  # check all digests first; each is checked when it is read
    # Begin anew even if there is an index. Without this, a run that was killed goes on.
    config.rebuild = False

    config.engine = "faiss"  # files; or "milvus": a file of Milvus Lite, or a cluster
    # "flat": exact. "hnsw": a graph, more memory. "ivf_pq" (of faiss): lists of codes,
    # least memory; "ivf_flat" (of milvus): lists of descriptors. "auto": by the number
    # of photos; of faiss "flat" up to 50 000, "hnsw" up to 500 000, then "ivf_pq".
    config.kind = "auto"
    config.num_lists = config_dict.placeholder(int)  # of ivf_*; None: 4 · √photos
    # Of ivf_pq, per photo, a divisor of D; None: half of D.
    config.num_code_bytes = config_dict.placeholder(int)
    config.num_links = 32  # of hnsw, per photo
    config.ef_construction = 80  # of hnsw: more is slower, and finds more
    # Descriptors that lists and codes are learned from, 4 · D bytes each. At least 40
    # for each list: the default is enough for 6 500 lists.
    config.train_rows = 262_144

    config.rows_per_commit = 262_144  # what a kill costs at most
    config.rows_per_part = 4_194_304  # of a file of faiss; one is in memory at a time

    config.milvus = ml_collections.ConfigDict()
    # "lite": milvus.db in the workdir. Else the address of a cluster, "http://…:19530";
    # its name and password are read from the environment variable MILVUS_TOKEN.
    config.milvus.uri = "lite"
    config.milvus.collection = "multigrain_photos"
    config.milvus.rows_per_insert = 2_000
    return config
