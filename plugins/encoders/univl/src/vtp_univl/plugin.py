"""What vtp-plugin-univl offers."""

from vtp import hookimpl
from vtp.hookspecs import Register


@hookimpl
def vtp_register_encoders(register: Register) -> None:
    """Text, video and fusion encoders."""


@hookimpl
def vtp_register_objectives(register: Register) -> None:
    """Losses of the family."""
