"""Equal content for equal equations, whatever arrays are captured and wherever objects lie."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxviz.jaxpr.content import UnknownContentError, array_content, content
from jaxviz.jaxpr.walk import trace

IMAGE = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)


def of(f, *args):
    return content(trace(f, *(args or (IMAGE,)), open_derivatives=True).flat)


def test_lambdas_of_one_text_have_one_content():
    weights = [jnp.asarray(n, jnp.float32) for n in (1, 2)]
    one, two = (lambda x, w=w: jax.nn.relu(x * w).sum((1, 2)) for w in weights)
    assert of(one) == of(two)


CHANGES = {
    "scalar": lambda x: x * 2.5,
    "another scalar": lambda x: x * 2.0,
    "primitive": lambda x: x - 2.5,
    "parameter": lambda x: x.sum(1),
    "another parameter": lambda x: x.sum(2),
    "operand": lambda x: (x + 1) - x,
    "another operand": lambda x: x - (x + 1),
    "precision": lambda x: jax.lax.dot(x[0, 0], x[0, 0].T, precision="highest"),
    "another precision": lambda x: jax.lax.dot(x[0, 0], x[0, 0].T),
    "scan": lambda x: jax.lax.scan(lambda c, _: (c * 2, None), x, None, length=2)[0],
    "another length": lambda x: jax.lax.scan(lambda c, _: (c * 2, None), x, None, length=3)[0],
    "another body": lambda x: jax.lax.scan(lambda c, _: (c * 3, None), x, None, length=2)[0],
    "nan": lambda x: jnp.where(x > 0, x, jnp.nan),
    "zero": lambda x: x + 0.0,
    "negative zero": lambda x: x + -0.0,
}


def test_whatever_differs_has_another_content():
    found = {name: of(f) for name, f in CHANGES.items()}
    assert len(set(found.values())) == len(found)
    assert found == {name: of(f) for name, f in CHANGES.items()}


def test_shapes_and_dtypes_count():
    def f(x):
        return x * 2

    shapes = [((2, 3), "float32"), ((3, 2), "float32"), ((2, 3), "bfloat16")]
    assert len({of(f, jax.ShapeDtypeStruct(*shape)) for shape in shapes}) == 3


def test_modules_of_one_structure_have_one_content():
    def net(seed):
        conv, dense = (
            nnx.Conv(3, 4, (3, 3), rngs=nnx.Rngs(seed)),
            nnx.Linear(4, 2, rngs=nnx.Rngs(1)),
        )
        return lambda x: dense(nnx.relu(conv(x)).mean((1, 2)))

    assert of(net(0)) == of(net(1))


PROGRAM = """
import jax, jax.numpy as jnp
from jaxviz.jaxpr.content import content
from jaxviz.jaxpr.walk import trace
def f(x):
    noise = jax.random.normal(jax.random.key(0), x.shape)
    x, _ = jax.lax.scan(lambda c, _: (jax.nn.gelu(c) + noise, None), x, None, length=2)
    return jax.image.resize(x, (1, 4, 4, 3), "bilinear").at[0, 0].set(1.0)
image = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
print(content(trace(f, image, open_derivatives=True).flat))
"""


@pytest.mark.slow
def test_it_is_the_same_in_every_process():
    runs = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    ]
    assert runs[0] == runs[1] and len(runs[0].strip()) == 64


def test_callbacks_have_no_content():
    def f(x):
        return jax.pure_callback(lambda x: np.asarray(x), jax.ShapeDtypeStruct((), "float32"), x)

    with pytest.raises(UnknownContentError, match="no content that could be compared"):
        of(f, jnp.float32(1))


@pytest.mark.slow
def test_arrays_are_compared_by_dtype_shape_and_value():
    arrays = [np.zeros(2), np.zeros((2, 1)), np.zeros(2, np.float32), np.asarray([0.0, -0.0])]
    assert len({array_content(array) for array in arrays}) == 4
    assert array_content(np.zeros((2, 2))[:, 0]) == array_content(np.zeros(2))
    assert array_content(jax.random.key(0)) != array_content(jax.random.key(1))
