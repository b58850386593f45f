"""What vtp-plugin-crossformer offers."""

from vtp import hookimpl
from vtp.hookspecs import Register


@hookimpl
def vtp_register_encoders(register: Register) -> None:
    """Fusion encoders, ``concat`` being built in; and what runs another encoder for the rows that have something."""
    register("crossformer", "vtp_crossformer.crossformer:Crossformer", slot="fusion")
    register("pairwise", "vtp_crossformer.pairwise:Pairwise", slot="fusion")
    register("bottleneck", "vtp_crossformer.bottleneck:Bottleneck", slot="fusion")
    register("gate", "vtp_crossformer.gate:Gate", slot="fusion")
    register("tower", "vtp_crossformer.tower:VideoTower", slot="video")
    register("tower", "vtp_crossformer.tower:AudioTower", slot="audio")
    register("tower", "vtp_crossformer.tower:TextTower", slot="text")


@hookimpl
def vtp_register_objectives(register: Register) -> None:
    """Losses between groups of modalities; mlm, mvm and mam are built in."""
    register("crossformer_contrast", "vtp_crossformer.contrast:Contrast")
    register("crossformer_match", "vtp_crossformer.match:Match")


@hookimpl
def vtp_register_commands(register: Register) -> None:
    """Data of simple-multimodal."""
    register(
        "vat-media", "vtp_crossformer.stores:main", help="clips and sounds of LMDB stores of simple-multimodal as files"
    )
