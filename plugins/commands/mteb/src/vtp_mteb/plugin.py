"""What vtp-plugin-mteb offers."""

from __future__ import annotations

from vtp import hookimpl
from vtp.hookspecs import Register


@hookimpl
def vtp_register_commands(register: Register) -> None:
    register("mteb", "vtp_mteb.command:main", help="tasks of mteb with a checkpoint: vtp mteb RUN MSRVTTT2V")
