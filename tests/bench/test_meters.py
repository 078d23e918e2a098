"""Memory and energy of a measured stretch: from what the system offers, or not told."""

import ctypes
import platform
import threading
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from jaxviz.bench import meters
from jaxviz.bench.meters import PeakMemory, Power


def test_peak_memory_is_the_most_that_the_block_added(monkeypatch):
    sizes, seen = iter([100, 150, 900, 300]), threading.Event()

    def resident():
        size = next(sizes, None)
        if size is None:
            seen.set()
        return size or 300

    monkeypatch.setattr(meters, "_resident", resident)
    with PeakMemory() as peak:
        assert seen.wait(600)
    assert peak.bytes == 800


def test_what_a_block_holds_at_its_end_counts_however_short_it_is(monkeypatch):
    monkeypatch.setattr(meters, "SAMPLED", 600)
    monkeypatch.setattr(meters, "_resident", iter([100, 400]).__next__)
    with PeakMemory() as peak:
        pass
    assert peak.bytes == 300


def test_a_process_takes_memory():
    assert 2**20 < meters._resident() < 2**45


def test_machine_names_neither_host_nor_path():
    told = meters.machine()
    assert told["cores"] >= 1 and told["devices"] == 8 and told["memory_gb"] >= 1
    assert platform.node() not in told.values() and "/" not in str(list(told))


def test_speed_of_a_matrix_product_is_that_of_the_fastest(monkeypatch):
    times = iter(np.cumsum([0, *[5] * 59]).tolist())
    monkeypatch.setattr(meters, "time", SimpleNamespace(perf_counter=times.__next__))
    assert meters.matmul_speed("float32", 8) == 2 * 8**3 / 5


@pytest.fixture
def powercap(tmp_path, monkeypatch):
    """Two processor packages, one with a part of its own, and what is none."""
    for name in ("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0", "dtpm"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text("5000000\n")
        (tmp_path / name / "max_energy_range_uj").write_text("60000000\n")
    monkeypatch.setattr(meters, "POWERCAP", tmp_path)
    return tmp_path


def test_energy_of_processors_is_the_sum_of_their_packages(powercap, monkeypatch):
    clock = SimpleNamespace(perf_counter=lambda: now)
    monkeypatch.setattr(meters, "time", clock)
    now = 10.0
    power = Power()
    assert power.before == {"counted": 10.0, "range": 60.0}
    now = 12.0
    (powercap / "intel-rapl:0" / "energy_uj").write_text("9000000")
    assert power.watts() == pytest.approx(2.0)
    (powercap / "intel-rapl:1" / "energy_uj").write_text("1000000")
    power.before["counted"] = 64.0 - 4.0 - 2.0
    assert power.watts() == pytest.approx((10.0 + 60.0 - 58.0) / 2.0)


def test_energy_is_not_told_without_a_counter_that_can_be_read(powercap, monkeypatch):
    power = Power()
    (powercap / "intel-rapl:0" / "energy_uj").unlink()
    assert meters.joules() is None and power.watts() is None
    monkeypatch.setattr(meters, "POWERCAP", powercap / "dtpm")
    assert meters.joules() is None
    monkeypatch.setattr(meters, "POWERCAP", powercap / "missing")
    assert meters.joules() is None


def test_energy_of_gpus_is_what_nvml_counts(monkeypatch):
    counts = {0: 3_000, 1: 4_000}

    def handle(device, pointer):
        pointer._obj.value = device + 1
        return 0

    def energy(handle, pointer):
        pointer._obj.value = counts[handle.value - 1]
        return 0

    library = SimpleNamespace(
        nvmlInit_v2=lambda: 0,
        nvmlDeviceGetHandleByIndex_v2=handle,
        nvmlDeviceGetTotalEnergyConsumption=energy,
    )
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    gpus = [SimpleNamespace(platform="gpu", local_hardware_id=i) for i in (0, 1)]
    monkeypatch.setattr(jax, "local_devices", lambda: gpus)
    assert meters.joules() == {"counted": 7.0, "range": 0.0}
    for name in vars(library):
        broken = SimpleNamespace(**{**vars(library), name: lambda *arguments: 3})
        monkeypatch.setattr(ctypes, "CDLL", lambda name, broken=broken: broken)
        assert meters.joules() is None

    def missing(name):
        raise OSError

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert meters.joules() is None
