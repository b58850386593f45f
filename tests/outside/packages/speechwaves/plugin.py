from vtp import hookimpl


@hookimpl
def vtp_register_encoders(register):
    register("speechwaves", "speechwaves.encoder:Wav2Vec2", slot="audio")
