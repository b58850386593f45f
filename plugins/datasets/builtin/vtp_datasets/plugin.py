"""What the built-in datasets package offers."""

from vtp import hookimpl
