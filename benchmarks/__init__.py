"""One script a claim, named as the claim; results/ holds what they measured."""

import sys

# PyTorch for CUDA brings triton, whose LLVM and TensorFlow's end the process when both are loaded.
# On a CPU nothing needs it: None makes importing it an ImportError, which PyTorch is prepared for.
sys.modules.setdefault("triton", None)  # pyright: ignore[reportArgumentType]
