"""Arrays and pictures as text that a page can hold: base64, data URIs, escaped JSON."""

import base64
import json
from io import BytesIO
from typing import Any

import matplotlib
import numpy as np
from PIL import Image

SMALL = 128  # pixels a side up to which a picture is kept without loss
MAP_STEPS = 127  # a map's values become whole numbers of this share of its largest


def encode_array(array: np.ndarray, dtype: str) -> str:
    """Return an array's bytes, little endian, in base64."""
    return base64.b64encode(np.ascontiguousarray(array, np.dtype(dtype)).tobytes()).decode()


def encode_picture(pixels: np.ndarray, quality: int = 85) -> str:
    """Return uint8 (H, W, 3) as a data URI: JPEG for photographs, PNG for small pictures."""
    picture, buffer = Image.fromarray(pixels), BytesIO()
    if max(pixels.shape[:2]) <= SMALL:
        picture.save(buffer, "PNG", optimize=True)
        return _uri("png", buffer)
    picture.save(buffer, "JPEG", quality=quality)
    return _uri("jpeg", buffer)


def encode_map(values: np.ndarray) -> dict[str, Any]:
    """Return a map (H, W) as a grey PNG: 128 is 0, 1 and 255 are its extremes, 0 is no value."""
    known = np.isfinite(values)
    scale = float(np.abs(values[known]).max()) if known.any() else 0.0
    share = np.where(known, values, 0) / (scale or 1.0)
    steps = np.where(known, 128 + np.rint(share * MAP_STEPS), 0).astype(np.uint8)
    buffer = BytesIO()
    Image.fromarray(steps).save(buffer, "PNG", optimize=True)
    height, width = values.shape
    return {"src": _uri("png", buffer), "scale": scale, "height": height, "width": width}


def encode_json(value: Any) -> str:
    """Return JSON that may stand inside a <script>: no text in it can end the element."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def colours(name: str) -> str:
    """Return 256 colours of a colour map of matplotlib, RGB bytes in base64."""
    table = matplotlib.colormaps[name](np.linspace(0, 1, 256))[:, :3]
    return encode_array(np.rint(table * 255), "u1")


def _uri(kind: str, buffer: BytesIO) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
