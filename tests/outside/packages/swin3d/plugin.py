from vtp import hookimpl


@hookimpl
def vtp_register_encoders(register):
    register("swin3d", "swin3d.encoder:Swin3D", slot="video")
