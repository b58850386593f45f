"""Built-in datasets of vtp."""
