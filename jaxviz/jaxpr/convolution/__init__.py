"""Forms of a convolution that a CPU carries out faster than the one XLA has for it."""
