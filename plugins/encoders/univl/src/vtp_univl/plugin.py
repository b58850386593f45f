"""What vtp-plugin-univl offers."""

from vtp import hookimpl
from vtp.hookspecs import Register


@hookimpl
def vtp_register_encoders(register: Register) -> None:
    """Text, video and fusion encoders."""
    register("univl", "vtp_univl.text:UniVLText", slot="text")
    register("univl", "vtp_univl.video:ClipEncoder", slot="video")
    register("univl", "vtp_univl.fusion:UniVLFusion", slot="fusion")


@hookimpl
def vtp_register_objectives(register: Register) -> None:
    """Losses of the family."""
    register("univl_clip_order", "vtp_univl.clip_order:ClipOrder")
    register("univl_itm", "vtp_univl.itm:ITM")
    register("univl_mlm", "vtp_univl.mlm:MLM")
    register("univl_moco", "vtp_univl.moco:MoCo")
    register("univl_vtc", "vtp_univl.vtc:VTC")
    register("univl_vtm", "vtp_univl.vtm:VTM")
