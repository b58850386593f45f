"""What the built-in tasks package offers."""

from vtp import hookimpl
