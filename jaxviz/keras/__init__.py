"""Keras models in Flax: every format, exact, without Keras, and without trusting the file."""

from jaxviz.keras.errors import KerasFileError as KerasFileError
from jaxviz.keras.load import from_keras as from_keras
from jaxviz.keras.load import load_keras as load_keras
from jaxviz.keras.logits import logits as logits
from jaxviz.keras.model import KerasModel as KerasModel
