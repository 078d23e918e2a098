"""Budgets from what a device or the machine tells."""

import builtins
import io
from types import SimpleNamespace

import jax
import jax.numpy as jnp
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


def test_what_is_available_counts_not_what_is_unused(monkeypatch):
    text = "MemTotal:  100 kB\nMemFree:  1 kB\nMemAvailable:  50 kB\n"
    monkeypatch.setattr(builtins, "open", lambda name: io.StringIO(text))
    assert memory._free_memory() == 50 * 1024


@pytest.mark.parametrize("pages", [2**22, -1])
def test_without_meminfo_it_is_all_the_memory_and_at_least_two_gigabytes(monkeypatch, pages):
    def refuse(name):
        raise OSError

    names = {"SC_PHYS_PAGES": pages, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(builtins, "open", refuse)
    monkeypatch.setattr(memory.os, "sysconf", names.get)
    assert memory._free_memory() == max(pages * 4096, 2 * 1024**3)


def test_a_program_tells_its_temporary_and_output_bytes():
    def double(x):
        return jnp.sort(x * 2)

    compiled = jax.jit(double).lower(jnp.ones(1000)).compile()
    assert 4000 <= memory.program_bytes(compiled) <= 12000


def test_a_program_that_tells_nothing_counts_nothing():
    assert memory.program_bytes(SimpleNamespace(memory_analysis=lambda: None)) == 0
