"""Every key of a training run, with the defaults of the original's training script.

The other recipes start from this file and state only their differences. In brackets:
the option's name in the original.

    python -m multigrain_jax.main --config configs/base.py --config.data.root=/data/in
"""

import ml_collections
from ml_collections import config_dict


def get_config() -> ml_collections.ConfigDict:
    """The configuration; every value can be set with --config.key=value."""
    config = ml_collections.ConfigDict()
    config.task = "train"
    config.seed = 0

    # Start: from a workdir or a step folder, or the name of published weights, at
    # epoch 0 with a fresh optimiser.
    config.init_from = config_dict.placeholder(str)
    config.init_step = config_dict.placeholder(int)
    # Take the last weights even if a checkpoint has their running average (ema).
    config.init_raw = False
    # Start of the trunk alone, from a converted zoo checkpoint, or by such a name.
    config.pretrained_backbone = config_dict.placeholder(str)
    # A run continues from its workdir's newest sound checkpoint; or from this one.
    config.resume_step = config_dict.placeholder(int)
    # Continue although the config changed the order of the data or a shape.
    config.allow_config_change = False
    # Begin at step 0 in a workdir that was trained and has lost its checkpoints.
    config.start_anew = False

    # Model.
    config.backbone = "resnet50"
    config.num_classes = config_dict.placeholder(int)  # None: counted from the data
    config.pooling_exponent = 1.0  # p of GeM [pooling-exponent]
    config.compute_dtype = "auto"  # bfloat16 on GPU and TPU, float32 on CPU
    # The same bits in every run on a GPU too, at some cost; a CPU gives them anyway.
    config.deterministic = False
    config.batch_norm_group_size = 64  # consecutive samples that share statistics

    # Losses.
    config.classification_weight = 1.0  # λ: 1 is cross-entropy alone [classif-weight]
    config.margin = 0.2  # α
    config.beta_init = 1.2
    config.label_smoothing = 0.0  # ε of the cross-entropy (docs/options.md)
    # "infonce" in the margin loss's place, with the temperature τ (docs/options.md).
    config.instance_loss = "margin"
    config.temperature = 0.05
    config.koleo_weight = 0.0  # of a term that spreads instances (docs/options.md)
    config.negative_sampling = "reference"  # or "distance_weighted"
    config.sampling_group_size = 64  # negatives come from these consecutive samples

    # Data.
    config.data = ml_collections.ConfigDict()
    # "folder", "imagenet", "tfds", "parquet", "webdataset" (tar shards), "quickstart".
    config.data.source = "imagenet"
    config.data.backend = "grain"  # or "tfdata", for TFRecord files (extra `tf`)
    config.data.root = config_dict.placeholder(str)
    config.data.split = config_dict.placeholder(str)  # None: all images
    config.data.split = "train"
    config.data.val_split = config_dict.placeholder(str)  # None: no validation
    config.data.val_split = "val"
    # Of source "folder" without a part "val": this share of each class becomes it.
    config.data.val_fraction = 0.0
    # Of source "folder": a list of files, or a folder of train.txt, val.txt, …
    config.data.list_file = config_dict.placeholder(str)
    config.data.num_images = config_dict.placeholder(int)
    # Of source "folder": what names the thing that several photos show: a level of
    # folders ("1" is the class's) or "list", the list file's third column. The other
    # photos are positives then, and m of them stand side by side, R times each
    # (docs/photos.md). None: each photo is an instance of its own.
    config.data.instances = config_dict.placeholder(str)
    config.data.photos_per_instance = 2
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
    # "exact": JPEGs are decoded whole; "fast": at a half, a quarter or an eighth of
    # their size where every crop of a photo is then still twice train_size (and in
    # validation twice what is looked at). "auto": "fast" for source "folder".
    config.data.decode = "exact"
    config.data.background = "white"  # of transparent photos, or "#rrggbb"
    config.data.depth = "metadata"  # of 16 bits; "maximum": the brightest is white
    # Larger photos are decoded at a fraction of their size, or are unreadable.
    config.data.max_megapixels = 128.0
    config.num_repeats = 1  # R [repeated-augmentations]
    config.epoch_len_factor = 2.0
    # "torch", "full", "senet", "AA"; "copies", "trivial" are told in docs/views.md.
    config.augmentation = "full"
    config.random_erasing = 0.0  # share of views with a part erased (docs/views.md)
    # α of mixtures of two views, for the cross-entropy alone; 0: none (docs/views.md).
    config.mixup_alpha = 0.0
    config.cutmix_alpha = 0.0
    config.crop_area_min = 0.08  # smallest share of the image that a crop takes
    # "pillow", or "simd": faster, with values within 1 of 255 of Pillow's (one in some
    # ten million: 2); "auto" is "simd" where its package is installed.
    config.crop_resize = "auto"
    config.train_size = 224  # s
    config.test_size = 224  # s*
    config.test_mode = "square"
    # Compare each copy in `data.local_cache_dir` with its file, which is read too: also
    # finds photos that were replaced by others of the same size and time.
    config.verify_cache = False
    config.num_workers = 0  # reading processes; 0 reads with threads
    config.prefetch_batches = 4
    config.max_skipped_fraction = 0.01  # more unreadable images end the run
    config.data_timeout_s = 600.0  # no batch for so long ends the run

    # Optimisation.
    config.batch_size = 512
    config.gradient_accumulation_steps = 1
    config.num_epochs = 120
    # "lars" or "lamb": for batches above 4 096 (docs/options.md).
    config.optimizer = "sgd"
    config.learning_rate = 0.2
    # Linear rule: the rate times (samples of a step) / 512 if a step has more than 512.
    config.scale_learning_rate = False
    config.learning_rate_schedule = "drops"  # or "cosine"
    config.learning_rate_drop_epochs = (30, 60, 90)
    config.learning_rate_drop_factors = (0.1, 0.1, 0.1)
    config.warmup_epochs = 0.0
    config.beta_learning_rate_factor = 1.0
    config.momentum = 0.9
    config.weight_decay = 1e-4
    # A running average of the weights with this decay, evaluated and saved beside them
    # (docs/options.md); None: none.
    config.ema_decay = config_dict.placeholder(float)
    config.decay_norms = True  # False: norms' scales and biases do not decay

    # What is written, and when.
    config.log_every_steps = 100
    config.eval_every_epochs = 1
    config.validate_first = True
    config.checkpoint_every_epochs = 1
    # These are kept for good, and so are the last two: if the newest is damaged, a run
    # falls back on the one before.
    config.keep_every_epochs = 10
    # Split that is evaluated and shown in report.html at the end (None: no report).
    config.report_split = config_dict.placeholder(str)
    # Look through the photos of training for near duplicates of those of the report,
    # which costs a pass over them.
    config.report_leaks = False
    # Write sample_ids.jsonl: which images every step was made from.
    config.log_sample_ids = False
    # Trace so many steps, from the 11th on, into the workdir's profile/ (for XProf).
    config.profile_steps = 0
    # Save and leave (exit code 3) before the task has lasted so long (None: never).
    config.max_train_hours = config_dict.placeholder(float)
    # Many hosts (docs/scaling.md): None, "auto" (TPU pods, SLURM, …), or host:port of
    # process 0 with the two numbers.
    config.distributed = ml_collections.ConfigDict()
    config.distributed.coordinator = config_dict.placeholder(str)
    config.distributed.num_processes = config_dict.placeholder(int)
    config.distributed.process_index = config_dict.placeholder(int)
    # Build everything, run two steps and one evaluation batch, write nothing.
    config.dry_run = False
    # Save and leave (exit code 3) after this step, as if interrupted (None: never).
    config.stop_at_step = config_dict.placeholder(int)
    return config
