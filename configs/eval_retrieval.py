"""A retrieval benchmark: the argument behind the file's name says which.

    holidays    INRIA Holidays: mAP; data.rotations: the table that turns photos upright
    ukbench     UKBench: how many of the four are among the first four
    copydays    INRIA Copydays: mAP of crop, jpeg, strong and all copies;
                data.distractors: a folder that joins the database, and
                data.distractor_list: which of its images (10 000 of them: CD10k)
    roxford5k   revisited Oxford and Paris, query boxes cropped: mAP and mP@k of easy,
    rparis6k    medium and hard
    disc21      the Image Similarity Challenge: µAP, recall at a precision of 90 % and
                at ranks 1 and 10; data.training: the folder from which scores are
                normalised; data.query_list, data.reference_list: files that name the
                queries and references of a subset, such as the challenge's subset_1;
                data.ground_truth: its file, of which pairs that a list leaves out are
                passed over
    copies      the same scores of copies that are made of one's own photos, by six
                edits: a third of the photos is looked for, a third distracts, and
                copies of a third find nothing; data.distractors: a folder that joins
                the database; data.training: as of disc21
    folder      one's own: a subfolder per object, each image looks for the others: mAP;
                data.training: a folder of other images, from which scores are
                normalised

Published (MultiGrain, arXiv 1902.05509; DISC21: arXiv 2106.09672):

    holidays                                  mAP 0.925
    ukbench                                   3.91 of 4
    copydays, strong, 10 000 distractors      mAP 0.751 at 224 x 224 ("square"), 0.825
                                              of whole images, longer side 800
    disc21, joint_3B_0.5, p = 7, longer       µAP 0.165, and 0.364 with normalised
    side 512, whitened to 1500 dimensions     scores

They are of whitened checkpoints, which `configs/whiten.py` makes. No data set is
downloaded; what is missing is named, with where it comes from.

    python -m multigrain_jax.main --config configs/eval_retrieval.py:holidays \
        --config.data.root=/data/holidays --config.init_from=workdirs/whiten
    python -m multigrain_jax.main --config configs/eval_retrieval.py:copydays \
        --config.data.root=/data/copydays --config.data.distractors=/data/flickr10k \
        --config.test_size=800 --config.init_from=workdirs/whiten
    python -m multigrain_jax.main --config configs/eval_retrieval.py:disc21 \
        --config.data.root=/data/disc21 --config.data.training=/data/disc21/train \
        --config.test_size=512 --config.pooling_exponent=7 \
        --config.init_from=workdirs/whiten

    python -m multigrain_jax.main --config configs/eval_retrieval.py:copies \
        --config.data.root=/data/photos --config.init_from=workdirs/quickstart \
        --config.test_size=56 --config.test_mode=square

Descriptors of several sizes are averaged: --config.test_size="(352, 500, 707)".
"""

import ml_collections
from ml_collections import config_dict

from configs import eval_base
from multigrain_jax.data.benchmarks import benchmark_row


def get_config(name: str = "holidays") -> ml_collections.ConfigDict:
    """The configuration for the benchmark of that name."""
    row = benchmark_row(name)
    config = eval_base.get_config()
    config.task = "eval_retrieval"
    config.benchmark = name

    photos = config.data
    config.data = ml_collections.ConfigDict()
    config.data.root = config_dict.placeholder(str)
    for key in ("exclude", "decoding", "background", "depth", "max_megapixels"):
        config.data[key] = photos[key]
    for optional in row.optional_files:
        config.data[optional] = config_dict.placeholder(str)
    # What the benchmark has. For a smaller copy, say what that has.
    config.expected_counts = ml_collections.ConfigDict(dict(row.counts))

    del config.verify_cache, config.test_size  # benchmarks' files are not copied
    # S, in pixels; of several, the descriptor is the mean over the sizes. Benchmarks
    # have the published size; photos of one's own "auto", as configs/embed.py has it.
    is_own = name in ("folder", "copies")
    config.test_size = config_dict.FieldReference(
        "auto" if is_own else 500, field_type=object
    )
    config.test_mode = "auto" if is_own else "rect"
    if is_own:
        config.pooling_exponent = "auto"
    config.batch_size = 32
    config.use_whitening = True  # False: the descriptors before a whitening

    # α-query expansion: so many neighbours join a query (0: none), weighted by
    # similarity^alpha.
    config.query_expansion = ml_collections.ConfigDict()
    config.query_expansion.num_neighbours = 0
    config.query_expansion.alpha = 3.0
    # Of the "normalized" protocol, which there is with data.training alone: similarity
    # minus weight times the query's num_neighbours-th largest similarity to training
    # images. Without it, and for other benchmarks, only the values below are allowed.
    config.score_normalization = ml_collections.ConfigDict()
    config.score_normalization.num_neighbours = 10
    config.score_normalization.weight = 2.0
    # As published; "mean" subtracts the mean of the num_neighbours largest instead.
    config.score_normalization.reduction = "nth"
    return config
