"""`jaxviz bench`: positions per second of networks, grids, methods and other libraries."""
