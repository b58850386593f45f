"""Folders as ``save_pretrained`` writes them, of models with random weights, a width of 32 and heads of 16."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import tower_models
import transformers as hf

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
RANDOM = {"initializer_range": 0.2}  # large enough that attention is not uniform


def wav2vec2(folder: Path, norm: str = "group", **options: object) -> None:
    """Tokens of 10 samples, of 25 samples each."""
    config = hf.Wav2Vec2Config(
        **SMALL,
        **RANDOM,
        feat_extract_norm=norm,
        do_stable_layer_norm=norm == "layer",
        conv_dim=(8, 16),
        conv_kernel=(10, 4),
        conv_stride=(5, 2),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        vocab_size=9,
        **options,
    )
    hf.Wav2Vec2Model(config).save_pretrained(folder)
    hf.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)


def whisper(folder: Path) -> None:
    """1 second in 50 tokens; 8 mel bins."""
    config = hf.WhisperConfig(
        d_model=32,
        encoder_layers=2,
        encoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=32,
        num_mel_bins=8,
        max_source_positions=50,
        max_target_positions=8,
        vocab_size=20,
        **{f"{name}_token_id": 1 for name in ("pad", "bos", "eos", "decoder_start")},
        init_std=0.2,
    )
    hf.WhisperModel(config).save_pretrained(folder)
    hf.WhisperFeatureExtractor(feature_size=8, chunk_length=1).save_pretrained(folder)


def clap(folder: Path, fused: bool = False) -> None:
    """1 second of 48 kHz in 8 mel bins, folded into a square of 32; 3 blocks in 2 stages, 1 x 16 tokens."""
    audio = hf.ClapAudioConfig(
        spec_size=32,
        num_mel_bins=8,
        window_size=4,
        patch_embeds_hidden_size=16,
        hidden_size=32,
        depths=[2, 1],
        num_attention_heads=[1, 2],
        enable_fusion=fused,
        aff_block_r=1,
        projection_dim=8,
        **RANDOM,
    )
    text = hf.ClapTextConfig(**SMALL, vocab_size=9, projection_dim=8)
    config = hf.ClapConfig(text_config=text.to_dict(), audio_config=audio.to_dict(), projection_dim=8)
    hf.ClapModel(config).save_pretrained(folder)
    truncation = "fusion" if fused else "rand_trunc"
    hf.ClapFeatureExtractor(feature_size=8, max_length_s=1, truncation=truncation).save_pretrained(folder)


def vit_mae(folder: Path, channels: int = 3) -> None:
    """Pictures of 32 pixels in 4 x 4 patches."""
    config = hf.ViTMAEConfig(
        **SMALL,
        **RANDOM,
        image_size=32,
        patch_size=8,
        num_channels=channels,
        **{f"decoder_{name}": number for name, number in SMALL.items()},
    )
    model = hf.ViTMAEForPreTraining(config)
    torch.nn.init.normal_(model.vit.embeddings.position_embeddings)  # transformers 5.23 leaves them at 0
    model.save_pretrained(folder)


def vjepa2(folder: Path) -> None:
    """4 frames of 16 pixels in tubelets of 2 x 8 x 8, so 8 tokens; other colours than ImageNet's."""
    config = hf.VJEPA2Config(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        mlp_ratio=1.0,
        patch_size=8,
        crop_size=16,
        frames_per_clip=4,
        pred_hidden_size=32,
        pred_num_attention_heads=2,
        pred_num_hidden_layers=1,
        **RANDOM,
    )
    hf.VJEPA2Model(config).save_pretrained(folder)
    colours = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}
    hf.VJEPA2VideoProcessor(crop_size=16, **colours).save_pretrained(folder)


def xclip(folder: Path) -> None:
    """4 frames of 16 pixels."""
    vision = {"image_size": 16, "patch_size": 8, "num_frames": 4, "mit_hidden_size": 32, "mit_intermediate_size": 32}
    vision |= {"mit_num_hidden_layers": 1, "mit_num_attention_heads": 2}
    text = {**SMALL, "vocab_size": 9, "max_position_embeddings": 8}
    config = hf.XCLIPConfig(text_config=text, vision_config=SMALL | vision, projection_dim=32)
    config.vision_config.initializer_range = 0.2
    hf.XCLIPModel(config).save_pretrained(folder)
    colours = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}
    size = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    hf.VideoMAEImageProcessor(**size, **colours).save_pretrained(folder)


def clip(folder: Path) -> None:
    """Pictures of 16 pixels; texts of 8 words at most."""
    text = {**SMALL, "vocab_size": 9, "max_position_embeddings": 8}
    vision = {**SMALL, "image_size": 16, "patch_size": 8}
    config = hf.CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)
    config.vision_config.initializer_range = 0.2
    hf.CLIPModel(config).save_pretrained(folder)
    colours = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}
    size = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    hf.CLIPImageProcessor(**size, **colours).save_pretrained(folder)


def videoprism(folder: Path) -> None:
    """4 frames of 16 pixels, and texts."""
    vision = {**SMALL, "image_size": 16, "num_frames": 4, "tubelet_size": [1, 8, 8]}
    vision |= {"num_spatial_layers": 1, "num_temporal_layers": 1, "num_auxiliary_layers": 1}
    text = {**SMALL, "vocab_size": 9, "max_position_embeddings": 8}
    hf.VideoPrismClipModel(hf.VideoPrismConfig(text_config=text, vision_config=vision)).save_pretrained(folder)
    size = {"height": 16, "width": 16}
    hf.LlavaOnevisionVideoProcessor(size=size, do_normalize=False).save_pretrained(folder)


def pe_video(folder: Path) -> None:
    """Pictures of 32 pixels in patches of 16, and texts."""
    text = {"model_type": "modernbert", **SMALL, "vocab_size": 9}
    text |= {f"{token}_token_id": number for number, token in enumerate(("pad", "bos", "cls", "sep", "eos"))}
    vision = {"architecture": "vit_pe_core_tiny_patch16_384", "num_classes": 24, "do_pooling": True}
    vision["model_args"] = {"img_size": 32, "depth": 1, "embed_dim": 32, "num_heads": 2}
    video = {**SMALL, "head_dim": 16, "vision_config": vision}
    hf.PeVideoModel(hf.PeVideoConfig(text_config=text, video_config=video)).save_pretrained(folder)
    hf.PeVideoVideoProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)


def siglip(folder: Path) -> None:
    """Pictures of 16 pixels."""
    text = {**SMALL, "vocab_size": 9, "max_position_embeddings": 8, "projection_size": 32}
    vision = {**SMALL, "image_size": 16, "patch_size": 8}
    hf.SiglipModel(hf.SiglipConfig(text_config=text, vision_config=vision)).save_pretrained(folder)
    hf.SiglipImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)


def videomae(folder: Path) -> None:
    """4 frames of 28 pixels in tubelets of 2 x 14 x 14, as the giant of VideoMAE v2, without a norm at the end; other
    colours than ImageNet's."""
    size = {"image_size": 28, "patch_size": 14, "num_frames": 4, "tubelet_size": 2}
    hf.VideoMAEModel(hf.VideoMAEConfig(**SMALL, **RANDOM, **size, use_mean_pooling=True)).save_pretrained(folder)
    colours = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}
    cut = {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}
    hf.VideoMAEImageProcessor(**cut, **colours).save_pretrained(folder)


def modernbert(folder: Path) -> None:
    """Words of tower_models."""
    words = tower_models.WORDS
    ids = {"pad_token_id": 0, "cls_token_id": 2, "bos_token_id": 2, "sep_token_id": len(words) - 1}
    config = hf.ModernBertConfig(**SMALL, **ids, eos_token_id=len(words) - 1, vocab_size=len(words))
    hf.ModernBertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(words))
    hf.BertTokenizer(vocab=str(folder / "vocab.txt")).save_pretrained(folder)


MODELS: dict[str, Callable[[Path], None]] = {
    "wav2vec2": wav2vec2,
    "wav2vec2 layer": lambda folder: wav2vec2(folder, "layer"),
    "whisper": whisper,
    "vit_mae": vit_mae,
    "vit_mae grey": lambda folder: vit_mae(folder, channels=1),
    "vjepa2": vjepa2,
    "videomae v2": videomae,
    "modernbert": modernbert,
    "xclip": xclip,
    "clip": clip,
    "siglip": siglip,
    "pe_video": pe_video,
    "videoprism": videoprism,
    "qwen3_vl": lambda folder: tower_models.save(folder, "qwen3_vl_embedding"),
    "clap": clap,
    "clap fused": lambda folder: clap(folder, fused=True),
}


def save(name: str, folder: Path) -> Path:
    """The folder of a model of :data:`MODELS`, with the same weights every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        MODELS[name](folder)
    return folder
