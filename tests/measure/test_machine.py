"""What stands above every measurement: the machine and the versions."""

import importlib.metadata
import platform
from types import SimpleNamespace

import jax
import pytest

from measure import machine


def test_what_is_printed_is_returned(capsys):
    text = machine.print_machine(["jax", "no-such-package"], load=1.25)
    assert capsys.readouterr().out == text + "\n"
    first, second = text.splitlines()
    assert first.startswith(f"{platform.machine()}, ")
    # The tests' eight devices are the processor's own.
    assert first.endswith(" GiB of memory, load 1.2 before; no accelerator")
    jax_version = importlib.metadata.version("jax")
    versions = f"jax {jax_version}, no-such-package not installed"
    assert second == f"Python {platform.python_version()}, {versions}"


def test_the_load_is_that_of_now_where_none_is_given(monkeypatch, capsys):
    monkeypatch.setattr(machine.os, "getloadavg", lambda: (3.5, 2.0, 1.0))
    assert "load 3.5 before" in machine.print_machine(["numpy"])


@pytest.mark.parametrize(
    ("cpu_info", "from_python", "expected"),
    [
        ("model\t: 17\nmodel name\t: A: 2 GHz\n\nmodel name\t: B\n", "C", "A: 2 GHz"),
        ("processor\t: 0\nCPU implementer\t: 0x41\n", "C", "C"),
        (None, "C", "C"),
        (None, "", "unknown processor"),
    ],
)
def test_the_processor_is_named_where_the_system_tells_it(
    tmp_path, monkeypatch, cpu_info, from_python, expected
):
    path = tmp_path / "cpuinfo"
    if cpu_info is not None:
        path.write_text(cpu_info)
    monkeypatch.setattr(machine, "CPU_INFO", path)
    monkeypatch.setattr(machine.platform, "processor", lambda: from_python)
    assert machine.processor() == expected


def test_unknown_memory_is_said_so(monkeypatch):
    def unknown(name):
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(machine.os, "sysconf", unknown)
    assert machine.memory() == "unknown memory"


def test_accelerators_are_counted_by_kind(monkeypatch):
    kinds = ["NVIDIA H200", "NVIDIA H100", "NVIDIA H200"]
    devices = [SimpleNamespace(platform="gpu", device_kind=kind) for kind in kinds]
    devices.append(SimpleNamespace(platform="cpu", device_kind="cpu"))
    monkeypatch.setattr(jax, "devices", lambda: devices)
    assert machine.accelerators() == "2 x NVIDIA H200, 1 x NVIDIA H100"
