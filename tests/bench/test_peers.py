"""Other libraries run the same networks: every layer of theirs is that of ours."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxviz.bench import networks, peers, ported

SIDES = {"vgg16": 32, "resnet50": 40, "mobilenet_v2": 40, "squeezenet": 47}


def everything(x, net):
    """Every layer with every option, on sides that strides do not divide."""
    x = net.relu(net.conv(x, 6, 3, padding="VALID"))
    x = net.relu6(net.conv(x, 6, 3, 2, groups=6))
    y = net.pool(net.conv(x, 4, 2, 2), 3, 2, "SAME")
    z = net.pool(net.conv(x, net.channels(y), 1, 2), 3, 2, "SAME")
    x = net.pool(net.join([y + z, y]), 2, 1)
    return net.dense(net.relu(net.dense(net.flat(x), 5)), 3) + net.dense(net.mean(x), 3)


def case(network, side):
    """Weights, images and our scores; biases are not zero, unlike in the bench."""
    rng = np.random.default_rng(0)
    weights = [
        weight if weight.ndim > 1 else rng.normal(0, 0.1, weight.shape).astype(np.float32)
        for weight in networks.draw_weights(network, side)
    ]
    images = rng.random((2, side, side, 3), np.float32)
    return weights, images, networks._apply(network, weights, jnp.asarray(images))


def check_keras(network, side):
    pytest.importorskip("keras")
    weights, images, ours = case(network, side)
    with jax.numpy_rank_promotion("allow"):
        theirs = np.asarray(ported.keras_network(network, weights, images.shape[1:])(images))
    assert np.abs(ours - theirs).max() < 1e-4 * np.abs(ours).max()


def check_torch(network, side):
    torch = pytest.importorskip("torch")
    weights, images, ours = case(network, side)
    forward = ported.torch_network(network, weights, "cpu")
    theirs = forward(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    assert np.abs(ours - theirs).max() < 1e-4 * np.abs(ours).max()


@pytest.mark.slow
@pytest.mark.parametrize("check", [check_keras, check_torch])
@pytest.mark.parametrize("side", [27, 28])
def test_layers_of_other_libraries_are_ours(check, side):
    check(everything, side)


@pytest.mark.slow
@pytest.mark.parametrize("check", [check_keras, check_torch])
@pytest.mark.parametrize("model", SIDES)
def test_networks_of_other_libraries_are_ours(check, model):
    check(getattr(networks, model), SIDES[model])


def test_only_what_is_installed_is_measured(monkeypatch):
    monkeypatch.setattr(peers, "find_spec", lambda name: name != "tensorflow")
    assert peers.installed() == ("captum",)


@pytest.mark.slow
@pytest.mark.parametrize("name", peers.PEERS)
def test_maps_of_other_libraries_are_ours(name):
    if name not in peers.installed():
        pytest.skip(f"{name} is not installed")
    (found,) = peers.measure_in_process([name], [("mnist_cnn", 28)], 0.1)
    assert found["method"] == name and found["seconds"] > 0
    assert found["max deviation"] < 1e-3 and found["peak"] > 0


@pytest.mark.slow
def test_best_batch_counts_and_a_wrong_map_does_not(monkeypatch):
    calls, clock = [], [0.0]

    def make(network, weights, image, tile):
        def run(batch):
            calls.append(batch)
            clock[0] += 1.0 if batch == 16 else 2.0
            return np.zeros(image.shape[:2])

        return run

    monkeypatch.setattr(peers, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setitem(peers._MAKERS, "captum", (make, peers._MAKERS["captum"][1]))
    with pytest.raises(ArithmeticError, match="the map of captum is off ours by"):
        peers.measure("captum", "mnist_cnn", 28, 0.0)
    assert calls[:6] == [8, 8, 16, 16, 32, 32]
    monkeypatch.setattr(peers, "_deviation", lambda *arguments: 0.0)
    found = peers.measure("captum", "mnist_cnn", 28, 0.0)
    assert found["positions timed"] == 49 and found["batch"] == 16
    assert found["seconds"] == 1 / 49 and found["compile s"] == 0


@pytest.mark.slow
def test_failure_of_a_library_is_told():
    with pytest.raises(RuntimeError, match="captum could not be measured: .*alexnet"):
        list(peers.measure_in_process(["captum"], [("alexnet", 28)], 0.1))
