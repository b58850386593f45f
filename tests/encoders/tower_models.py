"""Tiny models with both towers, of the library's own classes, as folders that save_pretrained writes."""

from __future__ import annotations

import math

import torch
import transformers as hf

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
TEXT = {**SMALL, "initializer_range": 0.2, "max_position_embeddings": 77}
TEXTS = [
    "a red ball moves",
    "two blue boxes stand still",
    "what",
    "red",
    "a ball",
    "blue boxes",
    "moves what",
    "still a",
]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[MASK]", *sorted({word for text in TEXTS for word in text.split()})]
# The end has the highest id, as in CLIP's vocabulary: transformers' X-CLIP takes the token with that for the end.
WORDS.append("[SEP]")
TEXT |= {"vocab_size": len(WORDS), "bos_token_id": 2, "eos_token_id": len(WORDS) - 1, "pad_token_id": 0}
VISION = {**SMALL, "image_size": 32, "patch_size": 8}
COLOURS = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}
LENGTH = 16  # of texts, in tokens


def clip():
    return hf.CLIPModel(hf.CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=24))


def xclip():
    mit = {"num_frames": 4, "mit_hidden_size": 24, "mit_intermediate_size": 24}
    mit |= {"mit_num_hidden_layers": 1, "mit_num_attention_heads": 2}
    return hf.XCLIPModel(hf.XCLIPConfig(text_config=TEXT, vision_config=VISION | mit, projection_dim=24))


def siglip2():
    text = TEXT | {"max_position_embeddings": LENGTH, "projection_size": 32}
    return hf.SiglipModel(hf.SiglipConfig(text_config=text, vision_config=VISION))


def videoprism():
    vision = {**SMALL, "image_size": 32, "num_frames": 4, "tubelet_size": [1, 8, 8]}
    vision |= {"num_spatial_layers": 1, "num_temporal_layers": 1, "num_auxiliary_layers": 1}
    text = TEXT | {"max_position_embeddings": LENGTH}
    return hf.VideoPrismClipModel(hf.VideoPrismConfig(text_config=text, vision_config=vision))


def clap():
    audio = {"spec_size": 32, "num_mel_bins": 8, "window_size": 4, "patch_embeds_hidden_size": 16, "hidden_size": 32}
    audio |= {"depths": [2, 1], "num_attention_heads": [1, 2], "aff_block_r": 1, "projection_dim": 24}
    text = hf.ClapTextConfig(**TEXT | {"projection_dim": 24, "max_position_embeddings": 79})
    return hf.ClapModel(hf.ClapConfig(text_config=text.to_dict(), audio_config=audio, projection_dim=24))


def pe_av():
    text = {"model_type": "modernbert", **TEXT, "cls_token_id": 2, "sep_token_id": len(WORDS) - 1}
    vision = {"architecture": "vit_pe_core_tiny_patch16_384", "num_classes": 24, "do_pooling": True}
    vision["model_args"] = {"img_size": 32, "depth": 1, "embed_dim": 32, "num_heads": 2}
    video = {**SMALL, "head_dim": 16, "vision_config": vision}
    return hf.PeVideoModel(hf.PeVideoConfig(text_config=text, video_config=video))


CUT = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
ALL = {"do_resize": True, "do_rescale": True, "do_normalize": True}  # PE-AV's does nothing of that unasked
WHOLE = {"size": {"height": 32, "width": 32}}
MODELS = {
    "clip": (clip, lambda: hf.CLIPImageProcessor(**CUT, **COLOURS)),
    "xclip": (xclip, lambda: hf.VideoMAEImageProcessor(**CUT, **COLOURS)),
    "siglip2": (siglip2, lambda: hf.SiglipImageProcessor(**WHOLE)),
    "videoprism": (videoprism, lambda: hf.LlavaOnevisionVideoProcessor(**WHOLE, do_normalize=False)),
    "pe_av": (pe_av, lambda: hf.PeVideoVideoProcessor(**WHOLE, **COLOURS, **ALL, do_sample_frames=False)),
    "clap": (clap, lambda: hf.ClapFeatureExtractor(feature_size=8, max_length_s=1, truncation="rand_trunc")),
}


def save(folder, name):
    """A random model with its processor and a tokenizer of :data:`WORDS`."""
    torch.manual_seed(0)
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    hf.BertTokenizer(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    make, processor = MODELS[name]
    model = make()
    for key, tensor in model.named_parameters():
        if tensor.dim() > 1:  # else pictures and texts hardly differ
            torch.nn.init.normal_(tensor, std=0.2)
        elif key.startswith("logit_scale"):
            torch.nn.init.constant_(tensor, 3.5)
        elif key.endswith("text_video_logit_scale"):  # no logarithm
            torch.nn.init.constant_(tensor, math.exp(3.5))
    model.save_pretrained(folder)
    processor().save_pretrained(folder)


def options_of(name, source):
    slot = "audio" if name == "clap" else "video"
    frames = ["encoder.video.frames=4"] if name in ("clip", "siglip2", "pe_av") else []
    return [f"model={name}", f"encoder.{slot}.model={source}", f"encoder.text.max_length={LENGTH}", *frames]
