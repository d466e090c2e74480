"""The most similar photos of a collection that `embed` made.

    python -m multigrain_jax.main --config configs/search.py \
        --config.database=workdirs/embed --config.queries=holiday.jpg

Queries are a photo, a folder of photos, or the workdir of another `embed`. They are
embedded as the collection was: by the checkpoint that its workdir names, or that
--config.init_from gives. Results: results.csv and report.html.
"""

import ml_collections
from ml_collections import config_dict


def get_config() -> ml_collections.ConfigDict:
    """The configuration; every value can be set with --config.key=value."""
    config = ml_collections.ConfigDict()
    config.task = "search"

    config.database = config_dict.placeholder(str)
    config.verify = False  # check all digests first; each is checked when it is read
    config.queries = config_dict.placeholder(str)
    config.num_neighbours = 10  # a query is never among its own

    # The workdir of `configs/index.py`: a search through its index instead of all
    # descriptors. What it proposes is ranked by exact similarities.
    config.index = config_dict.placeholder(str)
    config.approximate = ml_collections.ConfigDict()
    config.approximate.num_candidates = 200  # of each query that are ranked so
    config.approximate.num_probes = 32  # lists that are looked through, of ivf_*
    config.approximate.ef_search = 256  # photos that a walk keeps, of hnsw
    # Queries that are searched exactly too, for recall_at_10; 0: none.
    config.approximate.num_recall_queries = 32

    # α-query expansion: this many neighbours (0: none) are added to a query, weighted
    # by similarity^alpha, and their sum is searched for.
    config.query_expansion = ml_collections.ConfigDict()
    config.query_expansion.num_neighbours = 0
    config.query_expansion.alpha = 3.0

    # Subtracts weight · (similarity of the num_neighbours-th nearest training image):
    # one threshold then serves all queries. training: the workdir of a third `embed`;
    # without it nothing is normalised, and only the values below are allowed.
    config.score_normalization = ml_collections.ConfigDict()
    config.score_normalization.training = config_dict.placeholder(str)
    config.score_normalization.num_neighbours = 10
    config.score_normalization.weight = 2.0
    config.score_normalization.reduction = "nth"  # or "mean" of the num_neighbours

    config.data = ml_collections.ConfigDict()
    # Where the photos of the database are now, if they were moved since.
    config.data.root = config_dict.placeholder(str)
    # For queries that are photos; they become pixels as the database's did.
    config.data.exclude = (  # names in a folder of queries that are passed over
        ".*",
        "@eaDir",
        "__MACOSX",
        "$RECYCLE.BIN",
        "lost+found",
        "Thumbs.db",
    )
    config.data.max_megapixels = 128.0  # as in base.py
    # None: as the database's workdir. Of several collections in it, the one that this
    # checkpoint has made.
    config.init_from = config_dict.placeholder(str)
    config.init_step = config_dict.placeholder(int)
    # Take the last weights even if a checkpoint has their running average (ema).
    config.init_raw = False
    config.compute_dtype = "auto"  # bfloat16 on GPU and TPU, float32 on CPU
    # What computes the network: on CPUs "onnxruntime", with the extra of that name, can
    # be faster; the descriptors are the same but for rounding.
    config.engine = "jax"
    config.batch_size = 32
    config.num_workers = 0  # reading processes; 0 reads with threads
    config.prefetch_batches = 4
    config.data_timeout_s = 600.0  # no batch for so long ends the run
    # Many hosts, as in base.py; all see the photos, the collections and the workdir.
    config.distributed = ml_collections.ConfigDict()
    config.distributed.coordinator = config_dict.placeholder(str)
    config.distributed.num_processes = config_dict.placeholder(int)
    config.distributed.process_index = config_dict.placeholder(int)
    return config
