"""The one error that reading a model file raises: a sentence, what is wrong and what to do."""

_HEAD, _TAIL = 1000, 400


class KerasFileError(ValueError):
    """A Keras file cannot be read, or cannot be read exactly.

    The message may quote the file, so it is cut to a readable length, and characters that would
    steer a terminal are spelt out.

    Example:
        >>> print(KerasFileError("a name: \\x1b[2J"))
        a name: \\x1b[2J
    """

    def __init__(self, message: str):
        if len(message) > _HEAD + _TAIL:
            message = f"{message[:_HEAD]} ... {message[-_TAIL:]}"
        super().__init__(message if message.isprintable() else escaped(message))


def escaped(text: str) -> str:
    """Return text with every character that is not printable written as Python's escape.

    Example:
        >>> escaped("é\\n\\x07")
        'é\\\\n\\\\x07'
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
