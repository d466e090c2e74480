"""Buckets: objects of Google Cloud Storage (`gs://`) and S3 (`s3://`).

There are no folders, no appending, no renaming and no locks in a bucket: there are
objects, which are written whole, and conditions on the generation they replace.
"""

from multigrain_jax.buckets.objects import (
    delete,
    disconnect,
    download,
    exists,
    list_objects,
    read_bytes,
    read_range,
    stat,
    upload,
    write_bytes,
)
from multigrain_jax.buckets.paths import (
    expand,
    is_bucket,
    join,
    local_or_bucket,
    normalize,
    split,
)
from multigrain_jax.buckets.storage import ABSENT, ObjectChangedError, Status

__all__ = [
    "ABSENT",
    "ObjectChangedError",
    "Status",
    "delete",
    "disconnect",
    "download",
    "exists",
    "expand",
    "is_bucket",
    "join",
    "list_objects",
    "local_or_bucket",
    "normalize",
    "read_bytes",
    "read_range",
    "split",
    "stat",
    "upload",
    "write_bytes",
]
