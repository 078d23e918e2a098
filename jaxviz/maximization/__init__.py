"""Activation maximisation: images that excite a unit, a channel or any expression of them."""
