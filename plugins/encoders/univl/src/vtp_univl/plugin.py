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
    register("univl_dmae", "vtp_univl.dmae:DMAE")
    register("univl_itm", "vtp_univl.itm:ITM")
    register("univl_mlm", "vtp_univl.mlm:MLM")
    register("univl_moco", "vtp_univl.moco:MoCo")
    register("univl_vtc", "vtp_univl.vtc:VTC")
    register("univl_vtm", "vtp_univl.vtm:VTM")


@hookimpl
def vtp_register_importers(register: Register) -> None:
    register("antmmf", "vtp_univl.importer:import_antmmf")


@hookimpl
def vtp_register_decoders(register: Register) -> None:
    register("key_frames", "vtp_univl.key_frames:KeyFrameDecoder")


@hookimpl
def vtp_register_commands(register: Register) -> None:
    register("export-antmmf", "vtp_univl.exporter:main", help="a checkpoint for AntMMF: vtp export antmmf MODEL OUT")
    register("antmmf-videos", "vtp_univl.video_files:main", help="videos of an LMDB or of key frames as files")
    register("import-config", "vtp_univl.config_import:main", help="options of vtp run for a configuration of AntMMF")


@hookimpl
def vtp_register_transforms(register: Register) -> None:
    """Changes of texts."""
    register("keyword_dropping", "vtp_univl.keywords:KeywordDropping", modality="text")
