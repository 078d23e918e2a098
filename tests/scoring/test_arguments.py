"""Arguments made plain, or refused in one sentence."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import Mesh

from jaxviz.scoring.arguments import checked_dtype, checked_memory, checked_mesh, checked_refinement


@pytest.mark.parametrize(
    "memory, wanted",
    [
        (None, None),
        (5, 5),
        (np.int64(2**40), 2**40),
        ("7B", 7),
        ("512MB", 512 * 10**6),
        ("1GB", 10**9),
        (" 1.5 gib", 3 * 2**29),
        ("2TiB", 2**41),
        ("3kb", 3000),
    ],
)
def test_memory_is_bytes_or_a_text_with_a_unit(memory, wanted):
    assert checked_memory(memory) == wanted


@pytest.mark.parametrize(
    "memory", [0, -1, 1e9, True, "", "1", "GB", "-1GB", "1 elephant", "iB", []]
)
def test_other_memory_is_refused(memory):
    with pytest.raises(ValueError, match="`memory` must be a whole number of bytes .* got"):
        checked_memory(memory)


def test_a_mesh_is_a_mesh():
    mesh = jax.make_mesh((1,), ("images",), devices=jax.devices()[:1])
    plain = Mesh(mesh.devices, mesh.axis_names)  # Explicit axes are as good as Auto ones
    assert checked_mesh(mesh) == plain == checked_mesh(plain) and checked_mesh(None) is None
    for other in (jax.devices(), 8, "cpu"):
        with pytest.raises(
            TypeError, match="`mesh` must be a jax.sharding.Mesh.* got (list|int|str)"
        ):
            checked_mesh(other)  # pyright: ignore


def test_a_dtype_is_a_floating_one():
    assert checked_dtype("bfloat16") == ml_dtypes.bfloat16
    assert checked_dtype(jnp.float16) == np.float16
    for dtype, got in (("int8", "int8"), ("half a float", "'half a float'"), (3, "3")):
        with pytest.raises(ValueError, match=f"`dtype` must be a floating dtype.* got {got}"):
            checked_dtype(dtype)
    with pytest.raises(ValueError, match="`dtype` float64 needs jax.config.update"):
        checked_dtype("float64")


def test_a_refinement_is_a_factor_and_a_share():
    assert checked_refinement((4, 0.25)) == (4, 0.25, None)
    assert checked_refinement([np.int64(2), 1]) == (2, 1.0, None)  # pyright: ignore
    assert checked_refinement((4, 0.25, 0.1)) == (4, 0.25, 0.1)


@pytest.mark.parametrize(
    "refine",
    [
        3,
        "fast",
        (2,),
        (1, 0.5),
        (2.5, 0.5),
        (4, 1.5),
        (4, -0.1),
        (4, np.nan),
        (np.inf, 0.5),
        (True, 0),
    ]
    + [("4", "0.5"), None],
)
def test_other_refinements_are_refused(refine):
    with pytest.raises(ValueError, match=r"`refine` must be \(factor, share\) or .* got"):
        checked_refinement(refine)
