"""What the built-in objectives package offers."""

from vtp import hookimpl
