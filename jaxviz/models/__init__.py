"""The bundled MNIST network and the script that trained it."""
