"""Google Cloud Storage, by its own client: each request may name a generation."""

import base64
import contextlib
import os
from collections.abc import Generator
from typing import IO, Any

from multigrain_jax.buckets.paths import Address
from multigrain_jax.buckets.retry import (
    CONNECT_S,
    PASSING_CODES,
    READ_S,
    PassingFault,
    in_short,
)
from multigrain_jax.buckets.storage import (
    Connections,
    Status,
    changed,
    missing_extra,
    no_bucket,
    no_permission,
    not_found,
)
from multigrain_jax.errors import InputError

EXTRA = "gcs"
_REMEDY = (
    "log in (gcloud auth application-default login), name a key "
    "(GOOGLE_APPLICATION_CREDENTIALS), or ask for the permission"
)
# The service's words; those for an object have its name, which may be "my-bucket/…".
_NO_BUCKET = "The specified bucket does not exist"
_FIELDS = "name,size,generation,updated,md5Hash"
# The library sends what is larger in a session of several requests. One that the
# storage has forgotten (404, 410), or whose address came cut, is begun anew.
_ONE_REQUEST = 8 << 20
_OF_A_SESSION = (400, 404, 410, 501)
# No tries of the library's own: `persist` bounds them, and tells of them.
_ONCE: dict[str, Any] = {"retry": None, "timeout": (CONNECT_S, READ_S)}


class GoogleStorage:
    """Requests to `gs://`, or to the emulator of STORAGE_EMULATOR_HOST."""

    def read(
        self, at: Address, start: int, length: int | None, generation: str | None
    ) -> bytes:
        """The bytes of an object, or a part of them."""
        end = None if length is None else start + length - 1
        if length == 0:
            return b""
        whole = start == 0 and end is None
        with _translated(at, generation, past_end_is_empty=True):
            blob = _blob(at)
            data = blob.download_as_bytes(
                start=None if whole else start,
                end=end,
                raw_download=True,
                if_generation_match=_number(generation),
                checksum="auto" if whole else None,
                **_ONCE,
            )
            if whole:
                _require_checked(blob)
            elif length is None or len(data) < length:
                self._require_end(at, start + len(data))
            return data
        return b""  # the part begins behind the end

    def _require_end(self, at: Address, end: int) -> None:
        """Without its headers an answer can stop anywhere, and look whole."""
        if self.status(at).size > end:
            raise PassingFault("an answer that was cut")

    def fetch(self, at: Address, file: IO[bytes], generation: str | None) -> None:
        """Write the bytes of an object to a file."""
        blob = _blob(at)
        with _translated(at, generation):
            blob.download_to_file(
                file,
                raw_download=True,
                if_generation_match=_number(generation),
                **_ONCE,
            )
            _require_checked(blob)

    def status(self, at: Address) -> Status:
        """What is known of an object."""
        blob = _blob(at)
        with _translated(at):
            blob.reload(**_ONCE)
        return _status(at, blob)

    def page(self, at: Address, token: str | None) -> tuple[list[Status], str | None]:
        """Objects whose names begin so, and how to ask for those that follow."""
        prefix = f"{at.key}/" if at.key else None
        with _translated(at):
            pages = _client(at).list_blobs(
                at.bucket,
                prefix=prefix,
                page_token=token,
                fields=f"items({_FIELDS}),nextPageToken",
                **_ONCE,
            )
            blobs = list(next(pages.pages, ()))
        return [_status(at, blob) for blob in blobs], pages.next_page_token

    def write(
        self, at: Address, file: IO[bytes], size: int, if_generation: str | None
    ) -> str:
        """Write an object; its generation."""
        blob = _blob(at)
        try:
            with _translated(at, if_generation, in_session=size > _ONE_REQUEST):
                blob.upload_from_file(
                    file,
                    size=size,
                    content_type="application/octet-stream",
                    if_generation_match=_number(if_generation),
                    **_ONCE,
                )
        except FileNotFoundError as error:
            raise no_bucket(at) from error  # nothing else can be missing
        return str(blob.generation)

    def delete(self, at: Address, if_generation: str | None) -> None:
        """Delete an object."""
        with _translated(at, if_generation):
            _blob(at).delete(if_generation_match=_number(if_generation), **_ONCE)


def _make_client() -> Any:
    client = _anonymous_or_known()
    # It would ask in a thread of its own what kind of bucket this is, for traces.
    client._bucket_metadata_cache = None
    return client


def _anonymous_or_known() -> Any:
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError
    from google.cloud import storage

    if os.environ.get("STORAGE_EMULATOR_HOST"):
        return storage.Client.create_anonymous_client()
    try:
        credentials, project = google.auth.default(
            scopes=("https://www.googleapis.com/auth/devstorage.read_write",)
        )
    except DefaultCredentialsError:
        # Public buckets can be read all the same.
        return storage.Client.create_anonymous_client()
    return storage.Client(project=project or "<none>", credentials=credentials)


connections = Connections(
    _make_client,
    settings=("STORAGE_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS"),
    for_all_threads=False,
)


def _client(at: Address) -> Any:
    try:
        return connections.get()
    except ImportError as error:
        raise missing_extra(at, EXTRA) from error


def _blob(at: Address) -> Any:
    return _client(at).bucket(at.bucket).blob(at.key)


def _status(at: Address, blob: Any) -> Status:
    return Status(
        path=str(at._replace(key=blob.name)),
        size=int(blob.size or 0),
        generation=str(blob.generation),
        modified=blob.updated.timestamp() if blob.updated else 0.0,
        md5=base64.b64decode(blob.md5_hash).hex() if blob.md5_hash else None,
    )


def _require_checked(blob: Any) -> None:
    """Whether the library had what to compare with: headers can be cut off."""
    if blob.crc32c is None and blob.md5_hash is None:
        raise PassingFault("an answer without its checksum")


def _number(generation: str | None) -> int | None:
    return None if generation is None else int(generation)


@contextlib.contextmanager
def _translated(
    at: Address,
    generation: str | None = None,
    *,
    past_end_is_empty: bool = False,
    in_session: bool = False,
) -> Generator[None]:
    """Turn the library's errors into those of `buckets`."""
    try:
        import requests
        import urllib3
        from google.api_core.exceptions import GoogleAPICallError
        from google.auth.exceptions import GoogleAuthError, TransportError
        from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
    except ImportError as error:
        raise missing_extra(at, EXTRA) from error
    try:
        yield
    except (GoogleAPICallError, InvalidResponse) as error:
        answer = getattr(error, "response", None)
        code = int(getattr(error, "code", None) or getattr(answer, "status_code", 0))
        if code == 416 and past_end_is_empty:
            return
        meaning = _meaning(at, code, str(error), generation)
        if in_session and code in _OF_A_SESSION and not isinstance(meaning, InputError):
            meaning = PassingFault(f"HTTP {code}")
        raise meaning from error
    except (
        requests.RequestException,
        urllib3.exceptions.HTTPError,  # of an answer that stops, as it is streamed
        TransportError,
        DataCorruption,
    ) as error:
        raise PassingFault(in_short(error)) from error
    except GoogleAuthError as error:
        if getattr(error, "retryable", False):
            raise PassingFault(in_short(error)) from error
        raise no_permission(at, str(error), _REMEDY) from error
    except (ConnectionError, ValueError) as error:
        # A part of an answer is sometimes taken for a strange one.
        if isinstance(error, InputError):
            raise
        raise PassingFault(in_short(error)) from error


def _meaning(at: Address, code: int, text: str, generation: str | None) -> Exception:
    if code == 404 and _NO_BUCKET in text:
        return no_bucket(at)
    if code == 404:
        return not_found(at)
    if code == 412:
        return changed(at, generation)
    if code in (401, 403):
        return no_permission(at, text, _REMEDY)
    if code in PASSING_CODES:
        return PassingFault(f"HTTP {code}")
    return OSError(5, f"HTTP {code}: {in_short(text)}", str(at))
