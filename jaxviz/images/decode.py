"""Image files as pixels, as people see them: upright, on white, whatever way they are stored.

What a file says of how it is to be shown is done: the orientation of its EXIF record is applied,
and what is transparent lies on white.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm"})
GREY = {"1", "L", "LA", "La"}
WHITE = (255, 255, 255, 255)


def image_files(folder: Path, *, subfolders: bool = False) -> list[Path]:
    """Return the image files of a folder, by their suffixes, in the order of their names.

    Capital letters come first, on Windows too, whose paths would be sorted without regard to them.

    The files ._NAME that macOS leaves beside others on foreign disks are no images.
    """
    found = folder.rglob("*") if subfolders else folder.iterdir()
    images = (f for f in found if f.suffix.lower() in SUFFIXES and not f.name.startswith("._"))
    return sorted((file for file in images if file.is_file()), key=lambda file: file.parts)


def read_image(path: Path) -> np.ndarray:
    """Return the pixels of an image file.

    Returns:
        (height, width) of a grey image, uint8, or uint16 if it has 16 bits; (height, width, 3),
        uint8, of any other.

    Raises:
        ValueError: the file holds no image, or one whose range of values nobody knows.
    """
    try:
        with Image.open(path) as image:
            image.load()
            upright = _upright(image)
            if image.mode.startswith("I;16") or (image.mode == "I" and image.format in _SCALED):
                return np.asarray(upright).astype(np.uint16)
            if image.mode in ("I", "F"):
                raise ValueError(
                    f"{path} has pixels of mode {image.mode}, whose range is not told: save it with"
                    " 8 or 16 bits a channel."
                )
            return np.asarray(_on_white(upright).convert("L" if image.mode in GREY else "RGB"))
    except UnidentifiedImageError as error:
        empty = path.stat().st_size == 0
        known = f"is not an image ({', '.join(sorted(SUFFIXES))}, .npy or .npz)"
        raise ValueError(f"{path} {'is empty, 0 bytes long' if empty else known}.") from error
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as an image: {error}.") from error


# Formats whose whole numbers Pillow gives on a scale from 0 to 65535.
_SCALED = {"PNG", "PPM"}


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # a damaged record, of which any part may be wrong: it turns nothing
        return image


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    coloured = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", coloured.size, WHITE), coloured)
