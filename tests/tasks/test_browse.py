"""The task `browse`: what it refuses, and that it serves."""

import http.client
import os
import re
import signal
import subprocess
import threading

import numpy as np
import pytest
from helpers.commands import ENVIRONMENT
from helpers.descriptor_folders import SETTINGS
from starlette.responses import PlainTextResponse

from configs import browse
from measure.commands import ROOT, command_line
from multigrain_jax.browse.server import listen, serve
from multigrain_jax.browse.trash import Trash
from multigrain_jax.descriptors.folder import OK, ImageStamp
from multigrain_jax.descriptors.index import DescriptorIndex
from multigrain_jax.descriptors.writer import DescriptorWriter
from multigrain_jax.errors import InputError
from multigrain_jax.lock import lock_workdir
from multigrain_jax.tasks.browse import open_services, run


def config_of(database, **changes):
    config = browse.get_config()
    config.database = str(database)
    config.update(changes)
    return config


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "photos.lan"])
def test_other_machines_need_a_token(database, tmp_path, host):
    with pytest.raises(InputError, match="token: found none"):
        run(config_of(database, host=host), tmp_path / "w")
    assert not (tmp_path / "w").exists()


def test_a_token_that_http_cannot_send_is_refused(database, tmp_path):
    with pytest.raises(InputError, match="token: found other characters"):
        run(config_of(database, token="ü b"), tmp_path / "w")


def test_an_empty_token_as_an_unset_variable_gives_it_is_refused(database, tmp_path):
    with pytest.raises(InputError, match="token: found an empty one"):
        run(config_of(database, token=""), tmp_path / "w")


def test_photos_embedded_at_several_sizes_are_refused(tmp_path):
    settings = SETTINGS._replace(test_sizes=(48, 64))
    writer = DescriptorWriter(tmp_path / "d", settings, rows_per_shard=4)
    writer.begin([ImageStamp("/p/1.jpg", 1, 1)], lambda indices: indices)
    writer.add([ImageStamp("/p/1.jpg", 1, 1)], np.eye(1, 3, dtype=np.float32), [OK])
    writer.finish()
    index = DescriptorIndex.open(tmp_path / "d")
    with (
        pytest.raises(InputError, match=r"sizes \(48, 64\), and the server embeds at"),
        open_services({"database": "d"}, index, tmp_path, []),
    ):
        pass


def test_a_workdir_among_the_photos_is_refused(database, tmp_path):
    workdir = database.parent / "photos" / "w"
    with pytest.raises(InputError, match="inside of"):
        run(config_of(database), workdir)
    assert not workdir.exists()


def test_a_host_that_is_not_this_machine_is_refused(database, tmp_path):
    config = config_of(database, host="192.0.2.1", token="x")
    with pytest.raises(InputError, match=r"listening on 192\.0\.2\.1"):
        run(config, tmp_path / "w")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_either_signal_ends_the_server_and_what_called_it_goes_on(number):
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]

    def end_once_it_answers(port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/")
        assert connection.getresponse().status == 200
        connection.close()
        os.kill(os.getpid(), number)

    with listen("127.0.0.1", 0) as opened:
        port = opened.getsockname()[1]
        thread = threading.Thread(target=end_once_it_answers, args=(port,))
        thread.start()
        serve(PlainTextResponse("here"), opened)
        thread.join()
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_restore_is_a_command_that_needs_no_collection(tmp_path, capsys):
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"photo")
    found = photo.stat()
    Trash(tmp_path / "w" / "trash").move(
        str(photo), size=found.st_size, mtime_ns=found.st_mtime_ns, digest=None
    )
    config = browse.get_config()
    config.restore = True
    run(config, tmp_path / "w")
    assert photo.read_bytes() == b"photo"
    assert "1 files are back" in capsys.readouterr().out


@pytest.mark.slow
def test_the_command_prints_an_address_answers_and_ends(database, tmp_path):
    settings = {"database": database, "open_browser": False, "token": "secret"}
    settings["batch_size"] = 1
    command = command_line("browse", tmp_path / "w", settings)
    # An `embed` may be at work where the collection is.
    with (
        lock_workdir(database),
        subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=ENVIRONMENT
        ) as process,
    ):
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("http://"):
                break
        (port,) = re.findall(r"^http://127\.0\.0\.1:(\d+)\n$", lines[-1])
        connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=60)
        headers = {"Authorization": "Bearer secret"}
        connection.request("POST", "/api/search", b"not a photo", headers)
        assert connection.getresponse().status == 422
        connection.close()
        second = subprocess.run(
            command, capture_output=True, text=True, cwd=ROOT, env=ENVIRONMENT
        )
        assert second.returncode == 2 and "is in use by" in second.stderr
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    assert "secret" not in (tmp_path / "w" / "config.json").read_text()
