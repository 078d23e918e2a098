"""How many changed images are scored: within memory, on many devices, block by block."""
