"""What a config says: layers, their fields and connections, of every version of Keras."""
