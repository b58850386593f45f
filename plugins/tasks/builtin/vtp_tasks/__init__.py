"""Built-in tasks of vtp."""
