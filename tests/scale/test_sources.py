"""Sources of many images: arrays, files, folders, sequences; what is bad is told, not raised."""

import gc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxviz.images import Preprocessing, read_pictures
from jaxviz.scale.sources import check_source, open_source


@pytest.fixture
def images(rng):
    return rng.random((5, 8, 6, 3), np.float32)


@pytest.fixture
def folder(tmp_path, rng):
    """Pictures of several sizes and modes, in subfolders."""
    (tmp_path / "b").mkdir()
    for name, mode, size in [("b/2.png", "RGB", (9, 7)), ("a.png", "L", (20, 20))]:
        pixels = rng.integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(pixels).convert(mode).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def test_array_and_memory_map_give_their_images(images, tmp_path):
    np.save(tmp_path / "x.npy", images)
    for source in (images, np.load(tmp_path / "x.npy", mmap_mode="r"), tmp_path / "x.npy"):
        opened = open_source(source)
        assert len(opened) == 5
        np.testing.assert_array_equal(opened[3], images[3])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_is_mapped_and_not_held_in_memory(images, tmp_path, save):
    save(tmp_path / "x.npz", x_test=images, y_test=np.arange(5))
    opened = open_source(tmp_path / "x.npz")
    assert isinstance(opened.elements, np.memmap)
    np.testing.assert_array_equal(opened[4], images[4])


@pytest.mark.slow
def test_nothing_is_left_of_an_array_that_was_unpacked(images, tmp_path, monkeypatch):
    """Not even where a file stays as long as it is mapped, as on Windows."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    np.savez(tmp_path / "x.npz", images=images)
    opened = open_source(tmp_path / "x.npz")
    assert list((tmp_path / "temporary").iterdir()) == []
    unlink, mapped = Path.unlink, True

    def unlink_unmapped(path):
        if mapped:
            raise PermissionError("it is mapped")
        unlink(path)

    monkeypatch.setattr(Path, "unlink", unlink_unmapped)
    opened = open_source(tmp_path / "x.npz")
    assert len(list((tmp_path / "temporary").iterdir())) == 1
    np.testing.assert_array_equal(opened[4], images[4])
    mapped = False
    del opened
    gc.collect()
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize("shape", [(8, 6), (8, 6, 3), (8, 6, 1), (5, 8, 6), (5, 8, 6, 3)])
@pytest.mark.parametrize("key", ["", "images", "x_train", "only"])
def test_a_file_holds_the_same_images_for_all_who_open_it(tmp_path, rng, shape, key):
    """For `occlude_dataset` and its kin, and for the command line."""
    array = rng.integers(0, 2**16, shape, dtype=np.uint16)
    file = tmp_path / ("x.npz" if key else "x.npy")
    if key:
        np.savez(file, **{key: array})
    else:
        np.save(file, array)
    opened = open_source(file, preprocess=Preprocessing())
    read = read_pictures([file], (8, 6, opened[0].shape[-1]))
    assert len(opened) == len(read.values) == len(open_source(array)) == (5 if shape[0] == 5 else 1)
    for ours, theirs in zip(opened, read.values, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    np.testing.assert_allclose(opened[0].max(), array.max() / 65535, atol=0.05)


@pytest.mark.parametrize("size", [0, 20, 130, 200])
def test_a_torn_file_is_told(tmp_path, size):
    np.save(tmp_path / "whole.npy", np.zeros((3, 4, 4)))
    (tmp_path / "x.npy").write_bytes((tmp_path / "whole.npy").read_bytes()[:size])
    with pytest.raises(ValueError, match="`source` must be a file .*x.npy cannot be read as a Num"):
        open_source(tmp_path / "x.npy")


def test_grey_images_get_a_channel_axis(rng):
    assert open_source(rng.random((4, 8, 6)))[0].shape == (8, 6, 1)
    assert open_source([rng.random((8, 6))])[0].shape == (8, 6, 1)


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: (x, 7), lambda x: {"image": x, "id": 1}])
def test_sized_sequence_gives_its_images(images, wrap):
    class Records:
        """What a grain data source is: a length and elements."""

        def __len__(self):
            return len(images)

        def __getitem__(self, index):
            return wrap(images[index])

    np.testing.assert_array_equal(open_source(Records())[2], images[2])


def test_folder_is_read_in_the_order_of_names_as_pictures_are(folder):
    prep = Preprocessing(scale=255, mean=(10.0,), bgr=True)
    opened = open_source(folder, image_shape=(6, 5, 3), preprocess=prep)
    assert opened.names == ("a.png", "b/2.png")
    wanted = prep(read_pictures([folder / "b" / "2.png"], (6, 5, 3)).values)[0]
    np.testing.assert_array_equal(opened[1], wanted)
    assert opened.units == "6×5×3, x in [0, 1]: BGR of x · 255 − 10"


def test_a_preprocessing_takes_pictures_and_a_source_reads_for_itself():
    grey = np.full((2, 3, 3, 1), 51, np.uint8)
    prep = Preprocessing(scale=10)
    for same in (grey, grey / 255, [(image, 7) for image in grey]):
        np.testing.assert_allclose(open_source(same, preprocess=prep)[1], 2.0, rtol=1e-6)
    assert open_source(grey, preprocess=lambda x: x + 1)[0].max() == 52
    with pytest.raises(ValueError, match=r"`source` must hold bytes, or floats in \[0, 1\]"):
        open_source(grey * 1.0, preprocess=prep)[0]
    with pytest.raises(ValueError, match="`preprocess` must be None for a `Source`"):
        open_source(open_source(grey), preprocess=prep)


def test_bad_images_are_told_apart(folder, images):
    (folder / "._a.png").write_bytes(b"what macOS leaves")
    (folder / "b" / "folder.png").mkdir()
    (folder / "c.png").write_bytes((folder / "a.png").read_bytes()[:60])
    Image.fromarray(np.zeros((4, 4), np.int32)).save(folder / "d.tif")
    checked = check_source(open_source(folder, image_shape=(6, 5, 1)))
    told = [checked.read(i) for i in range(4)]
    assert [isinstance(image, str) for image in told] == [False, False, True, True]
    assert "cannot be read" in told[2] and "8 or 16 bits" in told[3]
    images[1, 2, 3, 0] = np.nan
    mixed = [*images[:2], images[2, :4], "no array", images[4]]
    checked = check_source(open_source(mixed))
    assert "finite" in checked.read(1)
    assert checked.read(2) == "its shape is (4, 6, 3), not (8, 6, 3) as that of the others"
    assert isinstance(checked.read(3), str)
    assert checked.read(4).dtype == np.float32


def test_digests_tell_sources_apart(images):
    one = check_source(open_source(images)).identity()["samples"]
    images[4, 0, 0, 0] += 1
    two = check_source(open_source(images)).identity()["samples"]
    assert [key for key in one if one[key] != two[key]] == ["4"]


def test_first_readable_image_is_found_behind_bad_ones(images):
    images[[0, 1, 3, 4]] = np.nan
    assert list(check_source(open_source(images)).samples) == [2]


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (np.zeros((0, 4, 4, 1)), ValueError, "at least one image: it is empty"),
        (np.zeros(4), ValueError, r"images \(N, H, W, C\): got shape \(4,\)"),
        (iter([]), TypeError, "have a length and elements: got a list_iterator"),
        ("missing.npz", ValueError, "there is no file or folder missing.npz"),
        ("missing", ValueError, "there is no file or folder missing"),
    ],
)
def test_wrong_source_is_refused(source, error, message):
    with pytest.raises(error, match=message):
        open_source(source)


@pytest.mark.slow
def test_wrong_files_are_refused(tmp_path):
    (tmp_path / "x.txt").write_text("text")
    (tmp_path / "x.npz").write_bytes(b"text")
    np.savez(tmp_path / "y.npz", a=np.zeros(1), b=np.zeros(1))
    with pytest.raises(ValueError, match=r"an \.npy or an \.npz file"):
        open_source(tmp_path / "x.txt")
    with pytest.raises(ValueError, match="x.npz cannot be read"):
        open_source(tmp_path / "x.npz")
    with pytest.raises(ValueError, match="y.npz must hold .*: got a, b"):
        open_source(tmp_path / "y.npz")
    with pytest.raises(ValueError, match="`image_shape` must be given for a folder"):
        open_source(tmp_path)
    with pytest.raises(ValueError, match="the model must take 1 or 3 channels"):
        open_source(tmp_path, image_shape=(4, 4, 2))
    with pytest.raises(ValueError, match="has none"):
        open_source(tmp_path, image_shape=(4, 4, 1))
    with pytest.raises(ValueError, match="not one of 2 can be read"):
        check_source(open_source(["a", "b"]))
