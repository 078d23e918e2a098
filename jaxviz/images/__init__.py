"""Images from files, in a model's units, and pictures as files."""

from jaxviz.images.files import Pictures, read_pictures
from jaxviz.images.preprocessing import (
    NAMED,
    Preprocessing,
    named_preprocessing,
    preprocess,
    preprocessing_of,
)

__all__ = [
    "NAMED",
    "Pictures",
    "Preprocessing",
    "named_preprocessing",
    "preprocess",
    "preprocessing_of",
    "read_pictures",
]
