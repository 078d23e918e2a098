"""Many images: sources, a store that survives every interruption, devices, hosts and planning."""
