from vtp import hookimpl


@hookimpl
def vtp_register_encoders(register):
    register("wav2vec2", "wav2vec2.encoder:Wav2Vec2", slot="audio")
