"""What the built-in objectives package offers."""

from vtp import hookimpl
from vtp.hookspecs import Register


@hookimpl
def vtp_register_objectives(register: Register) -> None:
    register("caption", "vtp_objectives.caption:Caption")
    register("classification", "vtp_objectives.classification:Classification")
    register("mlm", "vtp_objectives.mlm:MLM")
    register("mvm", "vtp_objectives.mvm:MVM")
    register("qa", "vtp_objectives.qa:QA")
    register("vtc", "vtp_objectives.vtc:VTC")
    register("vtm", "vtp_objectives.vtm:VTM")
