"""The one error that reading a model file raises: a sentence, what is wrong and what to do."""


class KerasFileError(ValueError):
    """A Keras file cannot be read, or cannot be read exactly.

    Example:
        >>> issubclass(KerasFileError, ValueError)
        True
    """
