"""What the built-in encoders package offers."""

from vtp import hookimpl


@hookimpl
def vtp_register_encoders(register):
    register("tiny", "vtp_encoders.tiny_text:TinyText", slot="text")
    register("tiny", "vtp_encoders.tiny_video:TinyVideo", slot="video")
    register("tiny", "vtp_encoders.tiny_audio:TinyAudio", slot="audio")
    register("concat", "vtp_encoders.concat:Concat", slot="fusion")
