"""What is bad is refused in one sentence, and what is odd is told."""

import jax.numpy as jnp
import numpy as np
import pytest
from scorers import integers, weighted_sums

from jaxviz.occlusion.kernel import occlusion_scores
from jaxviz.occlusion.occlude import occlude
from jaxviz.occlusion.segments import occlude_segments

SHAPE = (6, 8, 2)
IMAGE = integers(SHAPE)
F = weighted_sums(SHAPE)
LABELS = np.random.default_rng(3).integers(0, 4, SHAPE[:2])
MASK = np.zeros(SHAPE[:2], bool)
MASK[1:4, 3:6] = True


def test_a_fill_off_the_scale_warns_once():
    with pytest.warns(UserWarning, match="`fill` leaves the range of the images: 127.5") as told:
        occlude(F, integers((3, *SHAPE)), patch=2, fill=127.5)
    assert len(told) == 1 and told[0].filename == __file__


def test_scores_of_nan_are_told():
    def f(images):
        return jnp.where(images[:, :1, 0, 0] == 0, jnp.nan, images.sum((1, 2)))

    image = IMAGE.copy()
    image[0, 0, 0] = 1
    with pytest.warns(UserWarning, match="`f` gave NaN for some positions"):
        occ = occlude(f, image, patch=2)
    assert np.isnan(occ.scores[0, 0]).all() and np.isfinite(occ.scores[1:]).all()


@pytest.mark.parametrize(
    "images, error, match",
    [
        (
            IMAGE[..., 0],
            ValueError,
            r"`images` must be \(N, H, W, C\) or .* \(6, 8\); add a channel",
        ),
        (
            IMAGE[None, None],
            ValueError,
            r"`images` must be .* got an array of shape \(1, 1, 6, 8, 2",
        ),
        (np.zeros((0, 6, 8, 2)), ValueError, "`images` must hold at least one pixel"),
        ("x.png", TypeError, "`images` must be an array of pixels: got a str"),
        (None, TypeError, "`images` must be an array of pixels: got a NoneType"),
        ([[1], [2, 3]], ValueError, "`images` must be .* got parts of unequal shapes"),
        (np.full(SHAPE, "a"), TypeError, "`images` must be real numbers: got <U1"),
        (IMAGE * 1j, TypeError, "`images` must be real numbers: got complex64"),
        (
            np.where(np.arange(2) == 1, np.nan, IMAGE),
            ValueError,
            r"finite: got nan at index \(0, 0, 1",
        ),
        (
            np.where(np.arange(2) == 1, np.inf, IMAGE),
            ValueError,
            "`images` must be finite: got inf",
        ),
    ],
)
def test_bad_images_are_refused(images, error, match):
    with pytest.raises(error, match=match):
        occlude(F, images, patch=2)


@pytest.mark.parametrize(
    "options, error, match",
    [
        (dict(patch=7), ValueError, r"`patch` must not exceed the image: got \(7, 7\)"),
        (dict(patch=2, stride=0), ValueError, "`stride` must be at least 1"),
        (
            dict(patch=2, fill=[1, 2, 3]),
            ValueError,
            "`fill` must hold one value per channel: got 3",
        ),
        (dict(patch=2, fill=IMAGE[1:]), ValueError, "`fill` must have the image's shape"),
        (dict(patch=2, method="fast"), ValueError, "`method` must be .* got 'fast'"),
        (
            dict(patch=2, batch_size=0),
            ValueError,
            "must be .auto., .fastest. or a whole .* got 0",
        ),
        (dict(patch=2, batch_size="large"), ValueError, "`batch_size` must be .* got 'large'"),
        (dict(patch=2, batch_size=2.5), ValueError, "`batch_size` must be .* got 2.5"),
        (dict(patch=2, dtype="int8"), ValueError, "`dtype` must be a floating dtype: got int8"),
        (dict(patch=2, dtype="quarter"), ValueError, "`dtype` must be a floating .* got 'quarter'"),
        (dict(patch=2, memory="lots"), ValueError, "`memory` must be .* got 'lots'"),
        (dict(patch=2, mesh=[1]), TypeError, "`mesh` must be a jax.sharding.Mesh.* got list"),
        (dict(patch=2, reading={"score": "raw"}), TypeError, "`reading` must be .*: got a dict"),
        (dict(patch=2, refine=3), ValueError, r"`refine` must be \(factor, share\).* got 3"),
        (dict(patch=2, channels=[2]), ValueError, r"`channels` must name .* 0 to 1: got \(2,\)"),
        (dict(patch=2, channels=[]), ValueError, "`channels` must name some"),
        (dict(patch=2, channels=[0.5]), ValueError, "`channels` must name some"),
        (dict(patch=2, region=(1, 2, 3)), ValueError, "`region` must be a box .* got tuple"),
        (dict(patch=2, region=[1, 2, 3, 4]), ValueError, "`region` must be a box .* got list"),
        (dict(patch=2, region=MASK.T), ValueError, r"`region` must be .* of shape \(8, 6\)"),
        (dict(patch=2, region=MASK * 1), ValueError, "`region` must be a box"),
        (dict(patch=2, region=(0.5, 0, 3, 3)), ValueError, "`region` must be .* whole numbers"),
        (dict(patch=2, region=(9, 9, 12, 12)), ValueError, "`region` must meet the image"),
        (dict(patch=2, region=(3, 3, 3, 3)), ValueError, "`region` must meet the image"),
        (
            dict(patch=2, complement=True, fill="patch_mean"),
            ValueError,
            '`complement` needs .* "patch',
        ),
    ],
)
def test_bad_options_are_refused(options, error, match):
    with pytest.raises(error, match=match):
        occlude(F, IMAGE, **options)


@pytest.mark.parametrize(
    "options, match",
    [
        (
            dict(image=IMAGE[None], patch=2),
            r"`image` must be \(H, W, C\): got an array of shape \(1",
        ),
        (dict(image=IMAGE[..., 0], patch=2), r"add a channel axis: image\[\.\.\., None\]"),
        (dict(image=IMAGE, patch=2, batch_size=0), "`batch_size` must be None or a whole number"),
        (dict(image=IMAGE, patch=2, method="fast"), "`method` must be"),
        (dict(image=IMAGE, patch=2, fill=[1, 2, 3]), "`fill` must hold one value per channel"),
        (dict(image=IMAGE, patch=2, refine=3), r"`refine` must be \(factor, share\)"),
        (dict(image=IMAGE, patch=2, field=2), '`field` .* only method "incremental" has'),
        (
            dict(image=IMAGE, patch=2, method="incremental", field=-1),
            "`field` must be None or a whole number from 0: got -1",
        ),
    ],
)
def test_the_kernel_refuses_them_too(options, match):
    with pytest.raises(ValueError, match=match):
        occlusion_scores(F, **options)


@pytest.mark.parametrize(
    "f, match",
    [
        (lambda x: x.mean((1, 2, 3)), r"`f` must return scores \(N, K\).* give \(N, 1\)"),
        (lambda x: x.mean((0, 1, 2)), r"`f` must return scores \(N, K\)"),
        (lambda x: (F(x), F(x)), "`f` must return one array of scores .* got a tuple"),
        (lambda x: F(x - x.mean(0, keepdims=True)), "`f` must score every image by itself"),
        (lambda x: F(x) / F(x).std(0, keepdims=True), "`f` must score every image by itself"),
    ],
)
def test_bad_scorers_are_refused(f, match):
    with pytest.raises(ValueError, match=match):
        occlude(f, IMAGE, patch=2)


def test_a_scorer_of_numpy_arrays_is_refused():
    with pytest.raises(TypeError, match="`f` must be made of JAX operations"):
        occlude(lambda x: np.asarray(x).mean((1, 2)), IMAGE, patch=2)


def test_mixing_is_found_where_the_first_positions_change_nothing():
    dark = np.zeros((12, 12, 1), np.float32)
    dark[5:8, 5:8] = 1
    with pytest.raises(ValueError, match="`f` must score every image by itself"):
        occlude(
            lambda x: x.sum((1, 2)) - x.sum((1, 2)).mean(0, keepdims=True),
            dark,
            patch=1,
            batch_size=8,
        )


def test_a_batch_normalisation_in_training_mode_is_found():
    nnx = pytest.importorskip("flax.nnx")

    class Net(nnx.Module):
        def __init__(self):
            self.norm = nnx.BatchNorm(2, use_running_average=False, rngs=nnx.Rngs(0))

        def __call__(self, images):
            return self.norm(images).mean((1, 2)) ** 3

    with pytest.raises(ValueError, match="a batch normalisation or a dropout in training"):
        occlude(Net(), IMAGE, patch=4)


def test_segments_refuse_labels_of_another_size():
    with pytest.raises(
        ValueError, match=r"`labels` must have the image's size \(6, 8\): got \(8, 6"
    ):
        occlude_segments(F, IMAGE, LABELS.T)
    with pytest.raises(ValueError, match="`channels` must name some of the channels 0 to 1"):
        occlude_segments(F, IMAGE, LABELS, channels=[2])
    with pytest.raises(ValueError, match="`complement` needs a fill for the whole image"):
        occlude_segments(F, IMAGE, LABELS, complement=True, fill="patch_mean")


def test_a_refinement_and_a_region_exclude_each_other():
    with pytest.raises(ValueError, match="`refine` chooses the positions by itself"):
        occlude(F, IMAGE, patch=2, refine=(2, 0.5), region=(1, 3, 4, 6))


@pytest.mark.slow
def test_a_dropout_in_training_mode_is_found():
    nnx = pytest.importorskip("flax.nnx")

    class Net(nnx.Module):
        def __init__(self):
            self.dropout = nnx.Dropout(0.5)

        def __call__(self, images):
            return self.dropout(images, rngs=nnx.Rngs(0)).mean((1, 2))

    images = np.random.default_rng(0).random((1, 8, 8, 2), np.float32)
    with pytest.raises(ValueError, match="dropout in training mode"):
        occlude(Net(), images, patch=4)
