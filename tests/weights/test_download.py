"""A file comes whole and checked, or is refused, whatever a server does."""

import hashlib
import io
import os
import ssl
import sys
import threading
import urllib.error

import numpy as np
import pytest

from multigrain_jax.errors import InputError
from multigrain_jax.weights import download as module
from multigrain_jax.weights.download import DownloadError, Patience, download

DATA = np.random.default_rng(0).bytes(300_000)
DIGEST = hashlib.sha256(DATA).hexdigest()
HURRIED = Patience(timeout_s=20.0, attempts=2, wait_s=0.0)


@pytest.fixture
def server(serve):
    return serve(DATA)


@pytest.fixture
def fetch(tmp_path):
    """(server, more arguments) -> the path that the server's file came to."""

    def fetch(server, *, address=None, patience=HURRIED, length=None, sha256=""):
        path = tmp_path / "file.bin"
        download(
            address or server.address,
            path,
            length=length,
            sha256=sha256,
            trusted=[server.root],
            patience=patience,
        )
        assert os.listdir(tmp_path) == ["file.bin"]
        return path

    return fetch


@pytest.mark.parametrize("length", [None, len(DATA)])
@pytest.mark.parametrize("sha256", ["", DIGEST[:8], DIGEST])
def test_a_file_comes_whole(server, fetch, length, sha256):
    path = fetch(server, length=length, sha256=sha256)
    assert path.read_bytes() == DATA
    # What is there is checked, and not asked for again.
    fetch(server, length=length, sha256=sha256)
    assert server.ranges_asked == [None]


def test_a_bar_shows_how_far_it_is_where_somebody_looks(server, fetch, monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    interrupted(server, fetch)
    monkeypatch.setattr(sys, "stderr", screen)
    fetch(server)
    first, *_, last = screen.getvalue().strip().split("\r")
    assert first.startswith("file.bin:  33%") and "97.7k/293k" in first
    assert last.startswith("file.bin: 100%")


@pytest.mark.parametrize("tag", ['"one"', 'W/"one"', None])
def test_a_broken_connection_is_gone_on_with(server, fetch, tag, capsys):
    server.tag, server.cuts = tag, [100_000, 150_000]
    patience = Patience(timeout_s=20.0, attempts=3, wait_s=0.0)
    assert fetch(server, patience=patience).read_bytes() == DATA
    assert server.ranges_asked == [None, "bytes=100000-", "bytes=250000-"]
    condition = tag if tag == '"one"' else None  # a weak one says nothing of bytes
    asked = [headers.get("If-Range") for headers in server.requests]
    assert asked == [None, condition, condition]
    said = "file.bin: cut off at 250000 of 300000 bytes; trying again"
    assert said in capsys.readouterr().out


def test_a_later_attempt_goes_on_with_what_an_earlier_one_left(server, fetch, tmp_path):
    server.cuts = [100_000, 0]
    with pytest.raises(DownloadError, match=r"cut off at 100000 .* \(2 attempts\)"):
        fetch(server)
    assert not (tmp_path / "file.bin").exists()
    assert fetch(server, sha256=DIGEST).read_bytes() == DATA
    assert server.ranges_asked == [None, "bytes=100000-", "bytes=100000-"]


def test_connections_that_bring_much_are_no_failures(serve, fetch):
    server = serve(np.random.default_rng(1).bytes(5 * 2**20))
    server.cuts = [2**20] * 4
    assert fetch(server).read_bytes() == server.data
    assert len(server.requests) == 5


def interrupted(server, fetch):
    """The first 100 000 bytes are here, and the rest is for another day."""
    server.cuts = [100_000]
    with pytest.raises(DownloadError):
        fetch(server, patience=Patience(timeout_s=20.0, attempts=1, wait_s=0.0))
    server.requests.clear()


def test_a_server_without_ranges_is_begun_anew(server, fetch):
    interrupted(server, fetch)
    server.ranges = False
    assert fetch(server).read_bytes() == DATA
    assert server.ranges_asked == ["bytes=100000-"]


def test_a_file_that_has_changed_is_begun_anew(server, fetch):
    interrupted(server, fetch)
    server.data, server.tag = DATA[::-1], '"two"'
    assert fetch(server).read_bytes() == DATA[::-1]
    assert server.ranges_asked == ["bytes=100000-"]


@pytest.mark.parametrize("changed", [DATA + b"more", DATA[:50_000]])
def test_without_a_tag_another_length_tells_of_a_change(server, fetch, changed):
    server.tag = None
    interrupted(server, fetch)
    server.data = changed
    assert fetch(server).read_bytes() == changed
    assert server.ranges_asked == ["bytes=100000-", None]


@pytest.mark.parametrize("note", [None, b"", b"[]", b'{"total": 3}'])
def test_bytes_of_an_unknown_version_are_not_gone_on_with(
    server, fetch, tmp_path, note
):
    (tmp_path / "file.bin.part").write_bytes(b"of nobody knows what")
    if note is not None:
        (tmp_path / "file.bin.part.json").write_bytes(note)
    assert fetch(server).read_bytes() == DATA
    assert server.ranges_asked == [None]


def test_a_file_whose_length_is_not_said(server, fetch):
    server.says_length = False
    (path := fetch(server, sha256=DIGEST)).unlink()
    assert server.ranges_asked == [None]
    # Whoever knows it goes on where the connection broke.
    server.cuts = [100_000]
    assert fetch(server, length=len(DATA)).read_bytes() == DATA
    assert server.ranges_asked == [None, None, "bytes=100000-"] and path.exists()


def test_a_file_without_an_end_is_left(server, fetch, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_LARGEST", 200_000)
    server.says_length = False
    with pytest.raises(DownloadError, match="200000 bytes came, and no end"):
        fetch(server)
    assert os.listdir(tmp_path) == []


def test_a_whole_part_needs_no_server(server, fetch, tmp_path, monkeypatch):
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):

        def stop(*_):
            raise KeyboardInterrupt

        patched.setattr(module, "_check", stop)
        fetch(server)
    assert not (tmp_path / "file.bin").exists()
    assert fetch(server).read_bytes() == DATA
    assert server.ranges_asked == [None]


def test_another_length_is_refused_before_the_bytes_come(server, fetch, tmp_path):
    said = "the server's file has 300000 bytes, expected 300001"
    with pytest.raises(DownloadError, match=said):
        fetch(server, length=300_001)
    assert os.listdir(tmp_path) == [] and len(server.requests) == 1
    server.says_length = False
    with pytest.raises(DownloadError, match="answered 416"):
        fetch(server, length=300_001)
    assert os.listdir(tmp_path) == []


def test_another_digest_is_refused_and_nothing_stays(server, fetch, tmp_path):
    with pytest.raises(DownloadError, match=f"SHA-256 {DIGEST[:8]}, expected 01234567"):
        fetch(server, sha256="01234567")
    assert os.listdir(tmp_path) == []
    (tmp_path / "file.bin").write_bytes(b"fetched by hand")
    with pytest.raises(DownloadError, match=r"bin has the SHA-256 .* another file"):
        fetch(server, sha256=DIGEST)
    assert (tmp_path / "file.bin").read_bytes() == b"fetched by hand"


def test_a_file_that_is_not_there_is_asked_for_once(server, fetch):
    server.codes = [404] * 3
    with pytest.raises(DownloadError, match=r"the server answered 404 \(Not Found\)"):
        fetch(server)
    assert len(server.requests) == 1


def test_what_may_pass_is_asked_for_again(server, fetch, tmp_path):
    server.codes = [503]
    assert fetch(server).read_bytes() == DATA
    (tmp_path / "file.bin").unlink()
    server.codes = [503, 429]
    with pytest.raises(DownloadError, match=r"answered 429 .* \(2 attempts\)"):
        fetch(server)
    assert len(server.requests) == 4


def test_a_server_that_keeps_silent_is_left(server, fetch):
    server.held = threading.Event()
    impatient = Patience(timeout_s=0.1, attempts=2, wait_s=0.0)
    with pytest.raises(DownloadError, match=r"timed out \(2 attempts\)"):
        fetch(server, patience=impatient)
    assert len(server.requests) == 2


def test_nobody_there(server, fetch):
    server.server_close()
    with pytest.raises(DownloadError, match=r"no connection: .*refused"):
        fetch(server)


def test_a_page_to_log_in_is_not_taken_for_the_file(server, fetch, tmp_path):
    server.content_type = "text/html; charset=utf-8"
    with pytest.raises(DownloadError, match=r"a web page came .* log in"):
        fetch(server)
    assert os.listdir(tmp_path) == [] and len(server.requests) == 1


def test_only_https_is_asked(server, tmp_path):
    with pytest.raises(InputError, match="only https:// is taken"):
        download(server.address, tmp_path / "file.bin", length=None, sha256="")
    assert server.requests == []


def test_a_redirect_is_followed_with_its_range(serve, server, fetch):
    server.location = server.address
    interrupted(server, fetch)
    assert fetch(server, address=f"{server.root}moved").read_bytes() == DATA
    assert server.ranges_asked == ["bytes=100000-"] * 2


@pytest.mark.parametrize(
    "target", ["another", "ftp://127.0.0.1/f", "file:///etc/hosts"]
)
def test_a_redirect_to_another_protocol_is_refused(serve, server, fetch, target):
    other = serve(DATA)
    server.location = other.address if target == "another" else target
    with pytest.raises(DownloadError, match=r"only https:// is taken|answered 302"):
        fetch(server, address=f"{server.root}moved")
    assert other.requests == [] and len(server.requests) == 1


def test_a_certificate_that_does_not_hold_is_no_passing_fault(
    server, fetch, monkeypatch
):
    seen = []

    def open_(self, request, timeout):
        seen.append(request.full_url)
        raise urllib.error.URLError(ssl.SSLCertVerificationError("expired"))

    monkeypatch.setattr(module.urllib.request.OpenerDirector, "open", open_)
    with pytest.raises(DownloadError, match=r"no connection: .*expired"):
        fetch(server)
    assert seen == [server.address]
