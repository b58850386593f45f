"""Built-in encoders of vtp."""
