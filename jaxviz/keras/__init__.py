"""Keras models in Flax: every format, exact, without Keras, and without trusting the file."""

from jaxviz.keras.convert import convert_keras as convert_keras
from jaxviz.keras.convert import to_linen_params as to_linen_params
from jaxviz.keras.errors import KerasFileError as KerasFileError
from jaxviz.keras.files.foreign import load_weights as load_weights
from jaxviz.keras.inspection import Inspection as Inspection
from jaxviz.keras.inspection import inspect_keras as inspect_keras
from jaxviz.keras.load import from_keras as from_keras
from jaxviz.keras.load import load_keras as load_keras
from jaxviz.keras.logits import logits as logits
from jaxviz.keras.model import KerasModel as KerasModel
from jaxviz.keras.summary import summary as summary
from jaxviz.keras.verify import Verification as Verification
from jaxviz.keras.verify import verify_keras as verify_keras
