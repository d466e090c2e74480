"""Every key that the evaluation tasks share, with its default.

The recipes that evaluate, fine-tune p or whiten start from this file.
"""

import ml_collections
from ml_collections import config_dict


def get_config() -> ml_collections.ConfigDict:
    """The configuration; every value can be set with --config.key=value."""
    config = ml_collections.ConfigDict()
    config.task = "eval_classification"
    config.seed = 0

    # The model: a workdir or a step folder (of a workdir, None is the newest step), or
    # the name of published weights.
    config.init_from = config_dict.placeholder(str)
    config.init_step = config_dict.placeholder(int)
    # Take the last weights even if a checkpoint has their running average (ema).
    config.init_raw = False
    # p of GeM; None: the checkpoint's. Some tasks take several: "(1, 2.5, 3)".
    config.pooling_exponent = config_dict.placeholder(object)
    config.compute_dtype = "auto"  # bfloat16 on GPU and TPU, float32 on CPU

    # Of eval_classification: also score the embedding without its classifier, by the
    # class of each image's nearest other one. A second pass over the images.
    config.knn_probe = False

    # The images.
    config.data = ml_collections.ConfigDict()
    # "folder", "imagenet", "tfds", "parquet", "webdataset" (tar shards), "quickstart".
    config.data.source = "folder"
    config.data.root = config_dict.placeholder(str)
    config.data.split = config_dict.placeholder(str)
    config.data.list_file = config_dict.placeholder(str)  # as in base.py
    # As in training, where this share of a folder without a "val" became its "val".
    config.data.val_fraction = 0.0
    config.data.num_images = config_dict.placeholder(int)
    # Files are copied to this folder when they are first read. The oldest copies are
    # deleted when all of them would exceed this many gigabytes (None: all stay).
    config.data.local_cache_dir = config_dict.placeholder(str)
    config.data.local_cache_gb = config_dict.placeholder(float)
    # Which files are photos, and how they become pixels (docs/photos.md). Names and
    # paths that are passed over, as patterns.
    config.data.exclude = (
        ".*",
        "@eaDir",
        "__MACOSX",
        "$RECYCLE.BIN",
        "lost+found",
        "Thumbs.db",
    )
    # "viewer": colours, transparency and orientation as a viewer shows them; "upright":
    # turned only; "plain": as published numbers were made. "auto": "viewer" for source
    # "folder", "plain" for the others.
    config.data.decoding = "auto"
    # "fast": JPEGs of at least four times the size that they are resized to are decoded
    # at a half, a quarter or an eighth: large photos several times faster, and pixels a
    # little different; "exact": at their whole size. "auto": "fast" for source
    # "folder", but descriptors that are there already go on as they were made.
    config.data.decode = "auto"
    config.data.background = "white"  # of transparent photos, or "#rrggbb"
    config.data.depth = "metadata"  # of 16 bits; "maximum": the brightest is white
    # Larger photos are decoded at a fraction of their size, or are unreadable.
    config.data.max_megapixels = 128.0

    # "square": the shorter side becomes 256/224 · test_size, and the centre is cut out.
    # "rect": the longer side becomes test_size, and nothing is cut; images of similar
    # shape share a batch, with exact results.
    # eval_classification takes "auto" for both and for pooling_exponent: as a network
    # was trained, published weights as they were published.
    config.test_size = config_dict.FieldReference(224, field_type=object)
    config.test_mode = "square"
    # What computes the network: on CPUs "onnxruntime", with the extra of that name, can
    # be faster; the numbers are the same but for rounding.
    config.engine = "jax"
    config.batch_size = 64  # at most: a CPU takes fewer large images at once
    # Compare each copy in `data.local_cache_dir` with its file, which is read too: also
    # finds photos that were replaced by others of the same size and time.
    config.verify_cache = False
    config.num_workers = 0  # reading processes; 0 reads with threads
    config.prefetch_batches = 4
    config.data_timeout_s = 600.0  # no batch for so long ends the run
    # Many hosts, as in base.py; all see the photos and the workdir.
    config.distributed = ml_collections.ConfigDict()
    config.distributed.coordinator = config_dict.placeholder(str)
    config.distributed.num_processes = config_dict.placeholder(int)
    config.distributed.process_index = config_dict.placeholder(int)
    return config
