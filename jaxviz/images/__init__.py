"""Images from files, in a model's units, and pictures as files."""
