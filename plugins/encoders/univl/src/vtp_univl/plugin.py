"""What vtp-plugin-univl offers."""

from vtp import hookimpl
from vtp.hookspecs import Register


@hookimpl
def vtp_register_encoders(register: Register) -> None:
    """Text, video and fusion encoders."""
    register("univl", "vtp_univl.video:ClipEncoder", slot="video")


@hookimpl
def vtp_register_objectives(register: Register) -> None:
    """Losses of the family."""
