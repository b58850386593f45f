"""What vtp-plugin-serve offers."""

from __future__ import annotations

from vtp import hookimpl
from vtp.hookspecs import Register


@hookimpl
def vtp_register_commands(register: Register) -> None:
    register(
        "serve", "vtp_serve.command:main", help="search your own videos, or try a model, in a browser: vtp serve index"
    )
