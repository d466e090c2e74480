"""Fetches one file over HTTPS: whole and checked, to be gone on with later, or refused.

What has come so far lies beside the file as `<name>.part`, with a note of which version
of the file it is of. A broken connection, this process's end or another day's attempt
costs nothing of it, where the server gives ranges.
"""

import contextlib
import hashlib
import http.client
import json
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from multigrain_jax.errors import InputError
from multigrain_jax.files import read_json

_CHUNK = 2**16
# A connection that brought as much counts as no failure.
_WORTH_AN_ATTEMPT = 2**20
# Of a file whose length nobody knows.
_LARGEST = 2**32
# What a server says that may be otherwise in a moment.
_PASSING = {408, 425, 429, 500, 502, 503, 504}
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)$")


class DownloadError(InputError):
    """The file did not come, or is not the one that was wanted; the reason in words."""


class _BrokenOffError(Exception):
    """This connection brought no more; another may."""


@dataclass(frozen=True)
class Patience:
    """How long a server is waited for.

    Attributes:
        timeout_s: seconds without a byte that end a connection.
        attempts: how many connections in a row may bring less than a megabyte.
        wait_s: seconds before the second of them; before each later one twice as long.
    """

    timeout_s: float = 30.0
    attempts: int = 4
    wait_s: float = 1.0


PATIENCE = Patience()


def download(
    address: str,
    path: Path,
    *,
    length: int | None,
    sha256: str,
    trusted: Sequence[str] = (),
    patience: Patience = PATIENCE,
) -> None:
    """Fetch a file, go on with what an earlier attempt has fetched, and check it.

    Args:
        address: where it is, https://.
        path: where it shall be, in an existing folder; appears whole or not at all. One
            process at a time may fetch it.
        length: in bytes; None is what the server says.
        sha256: the first digits of its digest; "" if none are known.
        trusted: how addresses begin that may do without HTTPS.
        patience: how long the server is waited for.

    Raises:
        DownloadError: it did not come, or is another file than was expected.
    """
    if path.exists():  # put there by hand, or what a conversion has refused
        _check(path, length, sha256)
        return
    _require_secure(address, trusted)
    opener = urllib.request.build_opener(_Redirects(trusted))
    part = _Part(path)
    failures, most = 0, part.size
    while not part.is_whole:
        try:
            with _answer(opener, address, part, patience.timeout_s) as answer:
                _receive(answer, part, length, path.name)
        except _BrokenOffError as error:
            grown, most = part.size - most, max(part.size, most)
            failures = 1 if grown >= _WORTH_AN_ATTEMPT else failures + 1
            if failures >= patience.attempts:
                raise DownloadError(f"{error} ({failures} attempts)") from error
            print(f"{path.name}: {error}; trying again", flush=True)
            time.sleep(patience.wait_s * 2 ** (failures - 1))
    try:
        _check(part.file, length, sha256)
    except DownloadError:
        part.remove()
        raise
    part.become(path)


class _Part:
    """What has come of a file, and the version of the file that it is of."""

    def __init__(self, path: Path):
        self.file = path.with_name(f"{path.name}.part")
        self._note = path.with_name(f"{path.name}.part.json")
        # Without a note the bytes are of nobody knows what.
        self.validator: str | None = None
        self.total: int | None = None
        try:
            note = read_json(self._note)
            self.validator, self.total = note["validator"], note["total"]
        except (OSError, ValueError, KeyError, TypeError):
            self.remove()

    @property
    def size(self) -> int:
        return self.file.stat().st_size if self.file.exists() else 0

    @property
    def is_whole(self) -> bool:
        return self.total is not None and self.size == self.total

    def begin(self, validator: str | None, total: int | None) -> None:
        """Take down whose bytes come now, of which there are none yet."""
        self.remove()
        self.validator, self.total = validator, total
        note = {"validator": validator, "total": total}
        self._note.write_text(json.dumps(note), encoding="utf-8")

    def come_to_its_end(self) -> None:
        """Take down that a file whose length was not said has come to its end."""
        self.total = self.size

    def remove(self) -> None:
        self.file.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)
        self.validator = self.total = None

    def become(self, path: Path) -> None:
        self.file.replace(path)
        self._note.unlink(missing_ok=True)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a server to another address, if that is secure too."""

    def __init__(self, trusted: Sequence[str]):
        self._trusted = trusted

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        try:
            _require_secure(newurl, self._trusted)
        except DownloadError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _require_secure(address: str, trusted: Sequence[str]) -> None:
    if not address.startswith(("https://", *trusted)):
        raise DownloadError(
            f"it would come from {address}, and only https:// is taken: what comes "
            "otherwise may be anybody's"
        )


@contextlib.contextmanager
def _answer(
    opener: urllib.request.OpenerDirector, address: str, part: _Part, timeout_s: float
) -> Generator[http.client.HTTPResponse]:
    """What the server answers when it is asked for the bytes that are not here yet."""
    # Some servers answer 403 to whom they take for a robot of Python's.
    request = urllib.request.Request(address, headers={"User-Agent": "multigrain_jax"})
    if part.size and (part.validator or part.total):
        request.add_header("Range", f"bytes={part.size}-")
        if part.validator:
            request.add_header("If-Range", part.validator)
    try:
        answer = opener.open(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        with error:
            said = f"the server answered {error.code} ({error.reason})"
        if error.code == 416:  # it has fewer bytes than are here
            part.remove()
        elif error.code not in _PASSING:
            raise DownloadError(said) from error
        raise _BrokenOffError(said) from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        said = f"no connection: {reason or type(error).__name__}"
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise DownloadError(said) from error
        raise _BrokenOffError(said) from error
    with answer:
        yield answer


def _receive(
    answer: http.client.HTTPResponse, part: _Part, length: int | None, name: str
) -> None:
    """Write what comes behind what is here, or in its place if the file is another."""
    start, total = _extent(answer)
    if answer.headers.get_content_type() == "text/html":
        raise DownloadError(
            "a web page came instead of the file: does the network ask to log in?"
        )
    if None not in (length, total) and total != length:
        raise DownloadError(
            f"the server's file has {total} bytes, expected {length}: it is another one"
        )
    if start == 0:
        part.begin(_validator(answer.headers), length if total is None else total)
    elif start != part.size or total not in (None, part.total):
        part.remove()
        raise _BrokenOffError("the server's file has changed")
    bar = tqdm(
        total=part.total,
        initial=part.size,
        desc=name,
        unit="B",
        unit_scale=True,
        unit_divisor=1024,
        dynamic_ncols=True,
        disable=None,  # where nobody looks
    )
    limit = _LARGEST if part.total is None else part.total
    with bar, part.file.open("ab") as file:
        for chunk in _chunks(answer, limit - part.size):
            file.write(chunk)
            bar.update(len(chunk))
    if part.size == _LARGEST:
        part.remove()
        raise DownloadError(f"{_LARGEST} bytes came, and no end")
    if part.total is None:
        part.come_to_its_end()
    elif part.size < part.total:
        raise _BrokenOffError(f"cut off at {part.size} of {part.total} bytes")


def _extent(answer: http.client.HTTPResponse) -> tuple[int, int | None]:
    """Where in the file the answer begins, and the length of all of it, if said."""
    if answer.status != 206:
        said = answer.headers.get("Content-Length", "")
        return 0, int(said) if said.isdecimal() else None
    found = _RANGE.match(answer.headers.get("Content-Range", ""))
    if found is None:
        raise DownloadError("the server sent a part of the file, and not which one")
    return int(found[1]), None if found[2] == "*" else int(found[2])


def _validator(headers: Any) -> str | None:
    """What tells this version of a file from others, for If-Range."""
    tag = headers.get("ETag", "")
    if tag.startswith('"'):  # a weak one says nothing of the bytes
        return tag
    return headers.get("Last-Modified")


def _chunks(answer: http.client.HTTPResponse, most: int) -> Iterator[bytes]:
    """The answer as it comes, up to so many bytes: some servers never close."""
    while most:
        try:
            chunk = answer.read1(min(_CHUNK, most))
        except (OSError, http.client.HTTPException) as error:
            said = str(error) or type(error).__name__
            raise _BrokenOffError(f"the connection broke: {said}") from error
        if not chunk:
            return
        most -= len(chunk)
        yield chunk


def _check(path: Path, length: int | None, sha256: str) -> None:
    """Refuse a file that is not the expected one."""
    size = path.stat().st_size
    if length is not None and size != length:
        raise DownloadError(f"{path} has {size} bytes, expected {length}")
    if sha256:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if not found.startswith(sha256):
            raise DownloadError(
                f"{path} has the SHA-256 {found[: len(sha256)]}, expected {sha256}: it "
                "is damaged, or another file"
            )
