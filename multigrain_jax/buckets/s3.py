"""Amazon's S3 and what speaks its language, by `botocore`."""

import contextlib
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
    ABSENT,
    Connections,
    Status,
    changed,
    missing_extra,
    no_bucket,
    no_permission,
    not_found,
)

EXTRA = "s3"
_REMEDY = (
    "name a user (AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY), or ask "
    "for the permission"
)
_PASSING_WORDS = ("SlowDown", "RequestTimeout", "InternalError", "Throttling")


class AmazonStorage:
    """Requests to `s3://`, or to the service of AWS_ENDPOINT_URL."""

    def read(
        self, at: Address, start: int, length: int | None, generation: str | None
    ) -> bytes:
        """The bytes of an object, or a part of them."""
        if length == 0:
            return b""
        end = "" if length is None else start + length - 1
        part = (
            {} if start == 0 and length is None else {"Range": f"bytes={start}-{end}"}
        )
        match = {} if generation is None else {"IfMatch": generation}
        with _translated(at, generation, past_end_is_empty=True):
            answer = _client(at).get_object(**_place(at), **part, **match)
            _require_length(answer)
            return answer["Body"].read()
        return b""  # the part begins behind the end

    def fetch(self, at: Address, file: IO[bytes], generation: str | None) -> None:
        """Write the bytes of an object to a file."""
        match = {} if generation is None else {"IfMatch": generation}
        with _translated(at, generation):
            answer = _client(at).get_object(**_place(at), **match)
            _require_length(answer)
            for block in answer["Body"].iter_chunks(1 << 20):
                file.write(block)

    def status(self, at: Address) -> Status:
        """What is known of an object."""
        with _translated(at):
            found = _client(at).head_object(**_place(at))
        return _status(at, at.key, found["ContentLength"], found)

    def page(self, at: Address, token: str | None) -> tuple[list[Status], str | None]:
        """Objects whose names begin so, and how to ask for those that follow."""
        more = {} if token is None else {"ContinuationToken": token}
        prefix = f"{at.key}/" if at.key else ""
        with _translated(at):
            answer = _client(at).list_objects_v2(
                Bucket=at.bucket, Prefix=prefix, **more
            )
        found = [
            _status(at, each["Key"], each["Size"], each)
            for each in answer.get("Contents", ())
        ]
        return found, answer.get("NextContinuationToken")

    def write(
        self, at: Address, file: IO[bytes], size: int, if_generation: str | None
    ) -> str:
        """Write an object; its generation."""
        match = {} if if_generation is None else {"IfMatch": if_generation}
        if if_generation == ABSENT:
            match = {"IfNoneMatch": "*"}
        with _translated(at, if_generation):
            answer = _client(at).put_object(
                **_place(at), Body=file, ContentLength=size, **match
            )
        return answer["ETag"]

    def delete(self, at: Address, if_generation: str | None) -> None:
        """Delete an object."""
        # Two requests, since few services know deletes with a condition; S3 reports
        # no error for what is not there.
        found = self.status(at)
        if if_generation is not None and found.generation != if_generation:
            raise changed(at, if_generation)
        with _translated(at, if_generation):
            _client(at).delete_object(**_place(at))


def _make_client() -> Any:
    import botocore.session
    from botocore import UNSIGNED
    from botocore.config import Config

    session = botocore.session.get_session()
    signed = {} if session.get_credentials() else {"signature_version": UNSIGNED}
    region = session.get_config_variable("region") or "us-east-1"
    settings = Config(
        connect_timeout=CONNECT_S,
        read_timeout=READ_S,
        # No tries of the library's own: `persist` bounds them, and tells of them.
        retries={"total_max_attempts": 1},
        **signed,
    )
    return session.create_client("s3", region_name=region, config=settings)


connections = Connections(
    _make_client,
    settings=("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE"),
    for_all_threads=True,  # each would read the description of the service anew
)


def _client(at: Address) -> Any:
    try:
        return connections.get()
    except ImportError as error:
        raise missing_extra(at, EXTRA) from error


def _place(at: Address) -> dict[str, str]:
    return {"Bucket": at.bucket, "Key": at.key}


def _require_length(answer: Any) -> None:
    """Without its headers an answer can stop anywhere, and look whole."""
    if "ContentLength" not in answer:
        raise PassingFault("an answer without its length")


def _status(at: Address, key: str, size: int, found: Any) -> Status:
    tag = found["ETag"].strip('"')
    return Status(
        path=str(at._replace(key=key)),
        size=int(size),
        generation=found["ETag"],
        modified=found["LastModified"].timestamp(),
        md5=tag if len(tag) == 32 and "-" not in tag else None,
    )


@contextlib.contextmanager
def _translated(
    at: Address, generation: str | None = None, *, past_end_is_empty: bool = False
) -> Generator[None]:
    """Turn the library's errors into those of `buckets`."""
    try:
        from botocore import exceptions
    except ImportError as error:
        raise missing_extra(at, EXTRA) from error
    try:
        yield
    except exceptions.ClientError as error:
        code = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        word = error.response.get("Error", {}).get("Code", "")
        if code == 416 and past_end_is_empty:
            return
        raise _meaning(at, code, word, str(error), generation) from error
    except (
        exceptions.NoCredentialsError,
        exceptions.PartialCredentialsError,
        exceptions.ProfileNotFound,
        exceptions.TokenRetrievalError,
    ) as error:
        raise no_permission(at, str(error), _REMEDY) from error
    except (
        exceptions.HTTPClientError,
        exceptions.IncompleteReadError,
        exceptions.CredentialRetrievalError,
        ConnectionError,
    ) as error:
        raise PassingFault(in_short(error)) from error


def _meaning(
    at: Address, code: int, word: str, text: str, generation: str | None
) -> Exception:
    if word == "NoSuchBucket":
        return no_bucket(at)
    if code == 404 and generation not in (None, ABSENT):
        return changed(at, generation)
    if code == 404:
        return not_found(at)
    if code == 412:
        return changed(at, generation)
    if code in (401, 403):
        return no_permission(at, text, _REMEDY)
    if code in PASSING_CODES or word.startswith(_PASSING_WORDS):
        return PassingFault(f"HTTP {code} {word}")
    return OSError(5, f"HTTP {code}: {in_short(text)}", str(at))
