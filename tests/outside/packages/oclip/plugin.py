from vtp import hookimpl


@hookimpl
def vtp_register_encoders(register):
    register("oclip", "oclip.encoder:OClip", slot="video")


@hookimpl
def vtp_register_commands(register):
    register("oclip-neighbours", "oclip.neighbours:main", help="which clips look alike to a trained model")
