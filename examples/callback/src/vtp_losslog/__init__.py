"""The loss as a CSV file, as a plugin of vtp."""
