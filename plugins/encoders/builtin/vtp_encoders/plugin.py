"""What the built-in encoders package offers."""

from vtp import hookimpl
from vtp.hookspecs import Register


@hookimpl
def vtp_register_encoders(register: Register) -> None:
    register("tiny", "vtp_encoders.tiny_text:TinyText", slot="text")
    register("transformers", "vtp_encoders.transformers_text:TransformersText", slot="text")
    register("qwen3_vl", "vtp_encoders.qwen3_vl_text:Qwen3VLText", slot="text")
    register("tiny", "vtp_encoders.tiny_video:TinyVideo", slot="video")
    register("timm", "vtp_encoders.timm_video:TimmVideo", slot="video")
    register("videomae", "vtp_encoders.videomae:VideoMAE", slot="video")
    register("vjepa2", "vtp_encoders.vjepa2:VJEPA2", slot="video")
    register("clip", "vtp_encoders.clip:CLIP", slot="video")
    register("videoprism", "vtp_encoders.videoprism:VideoPrism", slot="video")
    register("pe_video", "vtp_encoders.pe_video:PEVideo", slot="video")
    register("xclip", "vtp_encoders.xclip:XCLIP", slot="video")
    register("qwen3_vl", "vtp_encoders.qwen3_vl:Qwen3VLVideo", slot="video")
    register("torchvision", "vtp_encoders.torchvision_video:TorchvisionVideo", slot="video")
    register("tiny", "vtp_encoders.tiny_audio:TinyAudio", slot="audio")
    register("ast", "vtp_encoders.ast_audio:AST", slot="audio")
    register("wav2vec2", "vtp_encoders.wav2vec2:Wav2Vec2", slot="audio")
    register("vit_mae", "vtp_encoders.vit_mae:ViTMAE", slot="audio")
    register("timm", "vtp_encoders.timm_audio:TimmAudio", slot="audio")
    register("clap", "vtp_encoders.clap:Clap", slot="audio")
    register("whisper", "vtp_encoders.whisper:Whisper", slot="audio")
    register("concat", "vtp_encoders.concat:Concat", slot="fusion")
    register("constant", "vtp_encoders.constant:Constant", slot="fusion")
