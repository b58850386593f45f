"""Built-in objectives of vtp."""
