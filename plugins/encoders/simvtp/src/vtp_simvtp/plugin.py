"""What vtp-plugin-simvtp offers."""

from vtp import hookimpl
from vtp.hookspecs import Register


@hookimpl
def vtp_register_encoders(register: Register) -> None:
    register("simvtp", "vtp_simvtp.video:VideoTubelets", slot="video")
    register("simvtp", "vtp_simvtp.text:TextEmbeddings", slot="text")
    register("simvtp", "vtp_simvtp.fusion:SharedViT", slot="fusion")
    register("simvtp_tower", "vtp_simvtp.towers:VideoTower", slot="video")
    register("simvtp_tower", "vtp_simvtp.towers:TextTower", slot="text")


@hookimpl
def vtp_register_samplers(register: Register) -> None:
    for name in ("simvtp_pretrain", "simvtp_pretrain_released", "simvtp_finetune", "simvtp_finetune_released"):
        register(name, f"vtp_simvtp.sampling:{name}")


@hookimpl
def vtp_register_importers(register: Register) -> None:
    register("simvtp", "vtp_simvtp.importer:import_simvtp")
    register("simvtp_dual", "vtp_simvtp.dual:import_dual")


@hookimpl
def vtp_register_commands(register: Register) -> None:
    register("reconstruct", "vtp_simvtp.reconstruct:main", help="picture what a masked autoencoder fills in")
