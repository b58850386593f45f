"""What the built-in objectives package offers."""

from vtp import hookimpl


@hookimpl
def vtp_register_objectives(register):
    register("qa", "vtp_objectives.qa:QA")
    register("vtc", "vtp_objectives.vtc:VTC")
