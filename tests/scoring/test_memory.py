"""Budgets from what a device or the machine tells."""

from types import SimpleNamespace

import jax
import pytest

from jaxviz.scoring import memory


def device(**stats):
    """A device that tells these figures."""
    return SimpleNamespace(memory_stats=lambda: stats or None)


def test_an_accelerator_is_asked_for_what_it_has_free():
    assert memory.memory_budget(device(bytes_limit=1000, bytes_in_use=200)) == 200
    assert memory.memory_budget(device(bytes_limit=1000)) == 250


def test_otherwise_it_is_a_share_of_the_machine(monkeypatch):
    monkeypatch.setattr(memory, "_free_memory", lambda: 4000)
    assert memory.memory_budget(device()) == 1000
    assert memory.memory_budget() == memory.memory_budget(jax.devices()[0]) == 1000


GIB = 2**30


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A machine with 50 GiB available; writes the files of its control groups."""
    monkeypatch.setattr(
        memory.psutil, "virtual_memory", lambda: SimpleNamespace(available=50 * GIB)
    )
    monkeypatch.setattr(memory, "GROUPS", tmp_path)
    monkeypatch.setattr(memory, "OWN_GROUPS", tmp_path / "own")

    def write(own, **groups):
        (tmp_path / "own").write_text(own)
        for name, (limit, used, cached) in groups.items():
            second = not name.startswith("memory")
            folder = tmp_path / name.replace("_", "/")
            folder.mkdir(parents=True, exist_ok=True)
            names = memory.LIMITS_2 if second else memory.LIMITS_1
            (folder / names[0]).write_text(f"{limit}\n")
            (folder / names[1]).write_text(f"{used}\n")
            (folder / "memory.stat").write_text(f"anon 1\n{names[2]} {cached}\n")

    return write


def test_without_control_groups_it_is_what_the_machine_has_available(system):
    assert memory._free_memory() == 50 * GIB


@pytest.mark.parametrize(
    ("own", "groups", "free"),
    [
        ("0::/job\n", {"job": ("max", GIB, 0)}, 50),
        ("0::/job\n", {"job": (8 * GIB, 3 * GIB, GIB)}, 6),
        ("0::/job/task\n", {"job": (8 * GIB, 3 * GIB, 0), "job_task": ("max", GIB, 0)}, 5),
        ("0::/job\n", {"job": (8 * GIB, 9 * GIB, 0)}, 0),
        ("0::/job\n", {"job": (80 * GIB, GIB, 0)}, 50),
        ("0::/of/the/host\n", {"": (4 * GIB, GIB, 0)}, 3),  # in a container: the root is its own
        ("4:memory:/a\n3:cpu:/\n0::/\n", {"memory_a": (4 * GIB, 2 * GIB, GIB)}, 3),
        ("4:memory:/a\n", {"memory_a": (2**63 - 4096, GIB, 0)}, 50),
    ],
)
def test_limits_of_control_groups_are_respected(system, own, groups, free):
    system(own, **groups)
    assert memory._free_memory() == free * GIB
    assert memory.memory_budget(device()) == free * GIB // 4
