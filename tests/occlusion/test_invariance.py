"""What must not change a result: chunks, company, devices, jit, the order of classes, a shift.

Bitwise for sums of small integers, which are exact, and for one and the same program; to 1e-5 of
probabilities where XLA sums in another order.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh
from jax.tree_util import Partial
from scorers import convolutional, integers, weighted_sums

from jaxviz.jaxpr.cache import clear_caches
from jaxviz.occlusion.kernel import occlusion_scores
from jaxviz.occlusion.occlude import occlude
from jaxviz.occlusion.segments import occlude_segments

SHAPE = (10, 12, 2)
IMAGES = np.random.default_rng(0).uniform(size=(8, *SHAPE)).astype(np.float32)
NETWORK = convolutional(2, size=SHAPE[:2])
SUMS = weighted_sums(SHAPE)
OPTIONS = dict(patch=(4, 3), stride=(2, 3), fill="mean")
METHODS = pytest.mark.parametrize("method", ["dense", "incremental"])


def same(one, two):
    """Equal scores, bit for bit."""
    np.testing.assert_array_equal(one.scores, two.scores)
    np.testing.assert_array_equal(one.base, two.base)


def close(one, two):
    np.testing.assert_allclose(one.scores, two.scores, rtol=0, atol=1e-5)
    np.testing.assert_allclose(one.base, two.base, rtol=0, atol=1e-5)


@pytest.mark.slow
@METHODS
@pytest.mark.parametrize("batch_size", [1, 7, 64, "fastest"])
def test_chunk_size(method, batch_size):
    images = integers((3, *SHAPE))
    options = dict(patch=(4, 3), stride=(2, 3), fill=3.0, method=method)
    same(occlude(SUMS, images, **options), occlude(SUMS, images, **options, batch_size=batch_size))
    one, two = (
        occlude(NETWORK, IMAGES[:3], **OPTIONS, method=method, batch_size=size)
        for size in (16, batch_size)
    )
    close(one, two)


@pytest.mark.slow
@METHODS
@pytest.mark.parametrize("options", [OPTIONS, dict(patch=(5, 6))], ids=["21 rows", "5 rows"])
def test_batch_position(method, options):
    everything = occlude(NETWORK, IMAGES, **options, method=method)
    order = np.array([3, 0, 7, 1])
    some = occlude(NETWORK, IMAGES[order], **options, method=method)
    np.testing.assert_array_equal(some.scores, everything.scores[order])
    np.testing.assert_array_equal(some.base, everything.base[order])
    alone = occlude(NETWORK, IMAGES[5], **options, method=method)
    np.testing.assert_array_equal(alone.scores, everything.scores[5])


def mesh_of(**sizes):
    """Some of the devices, by the names of the mesh's axes."""
    count = int(np.prod(list(sizes.values())))
    if len(jax.devices()) < count:
        pytest.skip(f"needs {count} devices: set XLA_FLAGS before JAX starts")
    return Mesh(np.array(jax.devices()[:count]).reshape(*sizes.values()), tuple(sizes))


MESHES = [dict(images=n) for n in (1, 2, 4, 8)] + [dict(positions=n) for n in (2, 8)]
MESHES += [dict(images=2, positions=4), dict(rows=2, images=2, cols=2)]


@pytest.fixture(scope="module")
def on_one_device():
    return {m: occlude(NETWORK, IMAGES[:7], **OPTIONS, method=m) for m in ("dense", "incremental")}


@pytest.mark.slow
@pytest.mark.parametrize("sizes", MESHES, ids=str)
def test_device_count(on_one_device, sizes):
    same(
        occlude(NETWORK, IMAGES[:7], **OPTIONS, method="dense", mesh=mesh_of(**sizes)),
        on_one_device["dense"],
    )


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [dict(images=2, positions=4)], ids=str)
def test_device_count_for_incremental_updates(on_one_device, sizes):
    same(
        occlude(NETWORK, IMAGES[:7], **OPTIONS, method="incremental", mesh=mesh_of(**sizes)),
        on_one_device["incremental"],
    )


@pytest.mark.slow
def test_device_count_for_segments():
    labels = np.arange(120).reshape(SHAPE[:2]) // 17
    one, two = (
        occlude_segments(NETWORK, IMAGES[:3], labels, mesh=mesh)
        for mesh in (None, mesh_of(images=2, positions=4))
    )
    same(one, two)


EXPLICIT = [((4,), ("images",)), ((8,), ("images",)), ((2, 4), ("images", "positions"))]


def made_mesh(shape, names):
    """What `jax.make_mesh` makes, whose axes are Explicit."""
    mesh = jax.make_mesh(shape, names, devices=jax.devices()[: int(np.prod(shape))])
    assert set(mesh.axis_types) == {AxisType.Explicit}
    return mesh


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "names"), EXPLICIT, ids=str)
def test_meshes_of_make_mesh(on_one_device, shape, names):
    for method in ("dense", "incremental"):
        ours = occlude(NETWORK, IMAGES[:7], **OPTIONS, method=method, mesh=made_mesh(shape, names))
        same(ours, on_one_device[method])


def test_meshes_of_make_mesh_for_segments():
    labels = np.arange(120).reshape(SHAPE[:2]) // 17
    alone = occlude_segments(NETWORK, IMAGES[:3], labels)
    for mesh in EXPLICIT[1:]:
        same(occlude_segments(NETWORK, IMAGES[:3], labels, mesh=made_mesh(*mesh)), alone)


@pytest.mark.slow
@pytest.mark.parametrize("axis_type", [AxisType.Explicit, AxisType.Auto], ids=str)
def test_a_mesh_that_is_set_around_the_call(on_one_device, axis_type):
    clear_caches()  # a program that is there would not be traced
    mesh = jax.make_mesh((4,), ("images",), (axis_type,), devices=jax.devices()[:4])
    with jax.set_mesh(mesh):
        for given in (mesh, mesh_of(images=2, positions=4), None):
            ours = occlude(NETWORK, IMAGES[:7], **OPTIONS, method="dense", mesh=given)
            same(ours, on_one_device["dense"])


@pytest.mark.slow
@METHODS
def test_jit_or_not(method):
    def scores(image):
        return occlusion_scores(NETWORK, image, **OPTIONS, method=method)

    wanted = occlude(NETWORK, IMAGES[0], **OPTIONS).scores
    ours = jax.jit(scores)(jnp.asarray(IMAGES[0]))
    np.testing.assert_allclose(ours, wanted, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_neither_jit_nor_driver():
    image = integers(SHAPE)
    np.testing.assert_array_equal(
        occlusion_scores(SUMS, image, patch=2, fill=3.0),
        occlude(SUMS, image, patch=2, fill=3.0).scores,
    )


@pytest.mark.slow
def test_class_permutation():
    order = np.array([2, 0, 1])
    images = integers((2, *SHAPE))
    one = occlude(SUMS, images, patch=3, fill=3.0)
    two = occlude(lambda x: SUMS(x)[:, order], images, patch=3, fill=3.0)
    np.testing.assert_array_equal(two.scores, one.scores[..., order])
    np.testing.assert_array_equal(two.heatmap(0), one.heatmap(2))
    np.testing.assert_array_equal(two.heatmap(), one.heatmap())
    np.testing.assert_array_equal(order[two.class_map()], one.class_map())


@pytest.mark.slow
@METHODS
def test_translation(method):
    kernel = integers((3, 3, 1, 4), seed=1) - 4

    def f(images):
        x = jax.lax.conv_general_dilated(
            images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return jnp.maximum(x, 0).sum((1, 2))

    still = np.zeros((16, 18, 1), np.float32)
    still[5:9, 5:10] = integers((4, 5, 1))
    moved = np.roll(still, (3, 2), (0, 1))
    runs = [occlude(f, image, patch=(4, 3), stride=1, method=method) for image in (still, moved)]
    inner = slice(6, -3), slice(5, -2)  # where as many patches lie on a pixel in both
    for reduce in ("mean", "sum", "cell"):
        one, two = (occ.heatmap(2, reduce=reduce) for occ in runs)
        np.testing.assert_array_equal(two[inner], np.roll(one, (3, 2), (0, 1))[inner])
        assert np.any(two[inner] != 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "border, method", [("clip", "incremental"), ("valid", "dense"), ("shift", "dense")]
)
def test_transposition_of_an_image_that_is_not_square(border, method):
    def transposed(f):
        return lambda images: f(images.transpose(0, 2, 1, 3))

    image = integers(SHAPE)
    tall = dict(patch=(4, 3), stride=(3, 5), border=border, fill=3.0, method=method)
    wide = dict(tall, patch=(3, 4), stride=(5, 3))
    one = occlude(SUMS, image, **tall)
    two = occlude(transposed(SUMS), image.transpose(1, 0, 2), **wide)
    np.testing.assert_array_equal(two.scores, one.scores.transpose(1, 0, 2))
    for reduce in ("mean", "sum", "cell"):
        ours, wanted = two.heatmap(1, reduce=reduce), one.heatmap(1, reduce=reduce).T
        np.testing.assert_array_equal(ours, wanted)
    np.testing.assert_array_equal(two.class_map(), one.class_map().T)


@pytest.mark.slow
def test_method():
    one, two = (occlude(NETWORK, IMAGES, **OPTIONS, method=m) for m in ("dense", "incremental"))
    close(one, two)


@pytest.mark.slow
def test_another_model_in_between():
    other = Partial(NETWORK.func, *(2 * array for array in NETWORK.args))
    before = occlude(NETWORK, IMAGES[:2], **OPTIONS)
    assert np.any(occlude(other, IMAGES[:2], **OPTIONS).scores != before.scores)
    same(before, occlude(NETWORK, IMAGES[:2], **OPTIONS))
