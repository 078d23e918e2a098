"""An HDF5 reader that executes nothing, and whose every step is bounded."""
