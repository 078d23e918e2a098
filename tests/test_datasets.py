"""Digits from packages, files and downloads, all in one layout."""

import hashlib
import io
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxviz import datasets


@pytest.fixture
def mnist_file(tmp_path, rng):
    """A small file with the keys of MNIST."""
    arrays = {
        "x_train": rng.integers(0, 256, (5, 28, 28), np.uint8),
        "y_train": np.arange(5, dtype=np.uint8),
        "x_test": rng.integers(0, 256, (3, 28, 28), np.uint8),
        "y_test": np.arange(3, dtype=np.uint8),
    }
    np.savez(tmp_path / "mnist.npz", **arrays)
    return tmp_path / "mnist.npz", arrays


def check_layout(images, labels, count):
    assert images.shape == (count, 28, 28, 1) and images.dtype == np.float32
    assert 0 <= images.min() and images.max() <= 1
    assert labels.shape == (count,) and labels.dtype == np.int64


@pytest.mark.slow
@pytest.mark.parametrize("split, count", [("train", 898), ("test", 899), ("all", 1797)])
def test_digits_are_centred_on_black(split, count):
    pytest.importorskip("sklearn")
    images, labels = datasets.load_digits(split)
    check_layout(images, labels, count)
    assert not images[:, :4].any() and not images[:, :, -4:].any() and images.max() == 1
    assert set(labels) == set(range(10))


@pytest.mark.slow
def test_the_splits_of_the_digits_make_the_whole():
    pytest.importorskip("sklearn")
    parts = [datasets.load_digits(split)[0] for split in ("train", "test")]
    np.testing.assert_array_equal(np.concatenate(parts), datasets.load_digits("all")[0])


def test_without_scikit_learn_it_is_said_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ModuleNotFoundError, match="pip install scikit-learn"):
        datasets.load_digits()


@pytest.mark.parametrize("split, parts", [("train", 5), ("test", 3), ("all", 8)])
def test_mnist_from_a_file(mnist_file, split, parts):
    path, arrays = mnist_file
    images, labels = datasets.load_mnist(path, split)
    check_layout(images, labels, parts)
    first = arrays["x_test" if split == "test" else "x_train"]
    np.testing.assert_allclose(images[: len(first), ..., 0], first / 255, rtol=1e-6)


def test_real_mnist(data_folder):
    images, labels = datasets.load_mnist(data_folder / "mnist.npz")
    check_layout(images, labels, 10_000)
    assert labels[:5].tolist() == [7, 2, 1, 0, 4] and images.max() == 1


class Server:
    """Answers every address with the same bytes."""

    def __init__(self, content):
        self.content, self.asked = content, []

    def __call__(self, url, timeout):
        self.asked.append(url)
        return io.BytesIO(self.content)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXVIZ_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_mnist_is_downloaded_once(mnist_file, cache, monkeypatch):
    content = mnist_file[0].read_bytes()
    server = Server(content)
    monkeypatch.setattr(datasets.urllib.request, "urlopen", server)
    monkeypatch.setattr(datasets, "MNIST_SHA256", hashlib.sha256(content).hexdigest())
    for _ in range(2):
        check_layout(*datasets.load_mnist(), 3)
    assert server.asked == [datasets.MNIST_URL]
    assert [file.name for file in cache.iterdir()] == ["mnist.npz"]


def test_a_download_of_another_checksum_is_refused_and_not_kept(cache, monkeypatch):
    monkeypatch.setattr(datasets.urllib.request, "urlopen", Server(b"not MNIST"))
    with pytest.raises(OSError, match="the download from .* has the SHA-256 .*, not 731c5ac"):
        datasets.load_mnist()
    assert list(cache.iterdir()) == []


def test_the_cache_is_in_the_home_folder_by_default(monkeypatch, tmp_path, mnist_file):
    monkeypatch.delenv("JAXVIZ_CACHE", raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    there = tmp_path / ".cache" / "jaxviz"
    there.mkdir(parents=True)
    mnist_file[0].rename(there / "mnist.npz")
    check_layout(*datasets.load_mnist(), 3)


@pytest.mark.parametrize("load", [datasets.load_digits, datasets.load_mnist])
def test_an_unknown_split_is_refused(load):
    with pytest.raises(ValueError, match='`split` must be "train", "test" or "all": got .valid.'):
        load(split="valid")


def test_a_missing_or_other_file_is_refused(tmp_path, mnist_file):
    with pytest.raises(FileNotFoundError, match="`path` must name an .npz file: there is none"):
        datasets.load_mnist(tmp_path / "none.npz")
    whole = mnist_file[0].read_bytes()
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    np.save(tmp_path / "other.npy", np.zeros(3))
    others = [(tmp_path / name).read_bytes() for name in ("other.npz", "other.npy")]
    for content in (whole[: len(whole) // 2], b"", b"text", *others):
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(
            ValueError, match="`path` must hold x_train, y_train, x_test and y_test"
        ):
            datasets.load_mnist(tmp_path / "bad.npz")
