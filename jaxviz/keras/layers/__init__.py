"""One converter for each Keras layer."""
