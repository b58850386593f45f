"""What vtp-plugin-alpro offers."""

from vtp import hookimpl
from vtp.hookspecs import Register


@hookimpl
def vtp_register_encoders(register: Register) -> None:
    """Text, video and fusion encoders."""
    register("alpro", "vtp_alpro.text:ALPROText", slot="text")
    register("timesformer", "vtp_alpro.video:TimeSformer", slot="video")
    register("alpro", "vtp_alpro.fusion:ALPROFusion", slot="fusion")


@hookimpl
def vtp_register_objectives(register: Register) -> None:
    """Contrast, matching and answers, with the heads of the released code."""
    register("alpro_vtc", "vtp_alpro.heads:VTC")
    register("alpro_vtm", "vtp_alpro.heads:VTM")
    register("alpro_qa", "vtp_alpro.heads:QA")


@hookimpl
def vtp_register_importers(register: Register) -> None:
    register("alpro", "vtp_alpro.importer:import_alpro")
