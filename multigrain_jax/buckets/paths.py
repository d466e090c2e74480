"""What is a bucket's address, and what a path of this machine."""

import os
import re
from pathlib import Path
from typing import NamedTuple

from multigrain_jax.errors import InputError

SCHEMES = ("gs", "s3")
# What `pathlib` leaves of an address has one slash.
_ADDRESS = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+):(?P<slashes>/+)(?P<rest>.*)"
)


class Address(NamedTuple):
    """One object, or the names that begin alike.

    Attributes:
        scheme: "gs" or "s3".
        bucket: its name.
        key: the object's name in it, without slashes around it; empty: the bucket.
    """

    scheme: str
    bucket: str
    key: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}" + (f"/{self.key}" if self.key else "")


def is_bucket(path: str | os.PathLike[str]) -> bool:
    """Whether a path is an address in a bucket: `gs://…` or `s3://…`.

    The one place that decides. An address of which `pathlib` has eaten a slash
    (`gs:/bucket/run`) counts, as `normalize` gives it back.

    Raises:
        InputError: an address of another kind, which is no path either.
    """
    found = _ADDRESS.fullmatch(os.fspath(path))
    if found is None:
        return False
    if found["scheme"] in SCHEMES:
        return True
    if len(found["slashes"]) < 2:
        return False  # a folder whose name ends with a colon
    raise InputError(
        f"{os.fspath(path)}: found an address that begins with {found['scheme']}://, "
        "expected a path of this machine, gs://BUCKET/NAME (Google Cloud Storage; not "
        "gcs://) or s3://BUCKET/NAME; give one of these, or a mounted folder"
    )


def split(path: str | os.PathLike[str]) -> Address:
    """The parts of an address; a slash at its end does not count.

    Raises:
        InputError: it is none, names no bucket, or has `.` or `..` in it.
    """
    text = os.fspath(path)
    found = _ADDRESS.fullmatch(text) if is_bucket(text) else None
    bucket, _, key = found["rest"].partition("/") if found else ("", "", "")
    if found is None or not bucket or {".", ".."} & {bucket, *key.split("/")}:
        raise InputError(
            f"{text!r}: expected gs://BUCKET/NAME or s3://BUCKET/NAME, with the name "
            "of a bucket and without . or .. in it"
        )
    return Address(found["scheme"], bucket, key.strip("/"))


def normalize(path: str | os.PathLike[str]) -> str:
    """An address as it is shown, stored and compared: with two slashes.

    Raises:
        InputError: it is none.
    """
    return str(split(path))


def join(path: str | os.PathLike[str], *names: str) -> str:
    """The address of something below another one."""
    return normalize("/".join([normalize(path), *(name.strip("/") for name in names)]))


def expand(path: str) -> str:
    """A path of this machine without ~, or the address of a bucket made plain."""
    return normalize(path) if is_bucket(path) else os.path.expanduser(path)


def local_or_bucket(path: str | os.PathLike[str]) -> Path | str:
    """A `Path` of this machine, absolute; an address stays text, which keeps `//`."""
    text = expand(os.fspath(path))
    return text if is_bucket(text) else Path(text).absolute()
