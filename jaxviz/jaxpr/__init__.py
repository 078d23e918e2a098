"""What walks or replaces a function's operations."""
