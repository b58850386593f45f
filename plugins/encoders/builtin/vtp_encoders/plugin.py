"""What the built-in encoders package offers."""

from vtp import hookimpl
