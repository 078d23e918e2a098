"""Images are (height, width, channel); what looks otherwise is refused, and a scorer wrapped."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import jaxviz as jv
from jaxviz.jaxpr.layout import channels_last, check_channels_last
from jaxviz.maximization.objectives import unit

IMAGE = np.random.default_rng(0).random((10, 12, 3), np.float32)
FRONT = IMAGE.transpose(2, 0, 1)
WEIGHTS = jnp.asarray(np.random.default_rng(1).random((3, 4)), jnp.float32)
MESSAGE = (
    r"`(images?|source|image_shape|seed_input)` must be \(..., height, width, channel\): got shape"
    r" .*jaxviz.channels_last\(f\)"
)


def front(images):
    return images[:, :, 3:5].mean((2, 3)) @ WEIGHTS


@pytest.mark.slow
def test_a_wrapped_scorer_scores_as_one_of_channels_last():
    ours = jv.occlude(channels_last(front), IMAGE, patch=(5, 4))
    wanted = jv.occlude(lambda x: x[:, 3:5].mean((1, 2)) @ WEIGHTS, IMAGE, patch=(5, 4))
    assert ours.heatmap().shape == (10, 12)
    np.testing.assert_allclose(ours.scores, wanted.scores, rtol=1e-6)


def test_a_wrapped_scorer_holds_its_arrays():
    f = channels_last(Partial(lambda weights, x: x.mean((2, 3)) @ weights, WEIGHTS))
    assert [leaf.shape for leaf in jax.tree.leaves(f)] == [(3, 4)]
    assert jax.jit(lambda f, x: f(x))(f, IMAGE[None]).shape == (1, 4)


@pytest.mark.parametrize(
    "run",
    [
        lambda x: jv.occlude(front, x, patch=2),
        lambda x: jv.occlude(front, x[None], patch=2),
        lambda x: jv.occlude_segments(front, x, np.zeros((3, 10), int)),
        lambda x: jv.occlusion_scores(front, x, patch=2),
        lambda x: jv.explain(front, x, patch=2),
        lambda x: jv.incremental(front, x, 2),
        lambda x: jv.activations(front, x[None]),
        lambda x: jv.maximize(front, unit(0), image_shape=x.shape, key=jax.random.key(0), steps=1),
        lambda x: jv.attribution.saliency(front, x),
        lambda x: jax.jit(lambda x: jv.attribution.saliency(front, x).values)(x),
        lambda x: jv.attribution.rise(front, x, samples=2),
        lambda x: jv.metrics.deletion(front, x, x[0]),
        lambda x: jv.metrics.infidelity(front, x, x),
        lambda x: jv.visualize_saliency(front, None, 0, x),
        lambda x: jv.visualize_activation(front, None, 0, image_shape=x.shape, max_iter=1),
        lambda x: jv.estimate(front, x.shape, 2, patch=2),
    ],
)
def test_channels_in_front_are_refused(run):
    with pytest.raises(ValueError, match=MESSAGE):
        run(FRONT)


def test_channels_in_front_are_refused_for_many_images(tmp_path):
    with pytest.raises(ValueError, match=MESSAGE):
        jv.occlude_dataset(front, FRONT[None], tmp_path / "s", patch=2, progress=False)


@pytest.mark.parametrize(
    "shape", [(10, 12, 3), (28, 28, 1), (3, 7, 9), (1, 100, 12), (3, 12, 3), (2, 9, 9), (1, 40, 8)]
)
def test_what_may_have_its_channels_last_passes(shape):
    check_channels_last(front, shape)


def test_a_scorer_that_states_its_shape_is_taken_at_its_word():
    def f(images):
        return images.mean((1, 2))

    with pytest.raises(ValueError, match=MESSAGE):
        check_channels_last(f, (5, 1, 16, 16))
    f.input_shape = (1, 16, 16)
    check_channels_last(f, (5, 1, 16, 16))


def test_a_model_that_tells_its_channels_last_is_not_to_be_turned():
    with pytest.raises(ValueError, match=r"as `f` takes them: .* give images.transpose") as told:
        jv.occlude(jv.models.mnist_cnn(), np.zeros((1, 28, 28), np.float32), patch=4)
    assert "channels_last" not in str(told.value)


def test_a_batch_without_channels_is_told_how_to_get_them():
    with pytest.raises(ValueError, match=r"channels is missing: `images\[\.\.\., None\]`"):
        jv.occlude(jv.models.mnist_cnn(), np.zeros((8, 28, 28), np.float32), patch=4)
