"""Tiny models with both towers, of the library's own classes, as folders that save_pretrained writes."""

from __future__ import annotations

import csv
import math
import wave

import numpy as np
import torch
import transformers as hf
from tokenizers.pre_tokenizers import ByteLevel

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


# As Qwen's: an instruction, then what is to be embedded, then the beginning of an answer.
CHAT = """{% for turn in messages %}<|im_start|>{{ turn.role }}
{% for part in turn.content %}{% if part.type == 'video' %}<|vision_start|><|video_pad|><|vision_end|>
{%- else %}{{ part.text }}{% endif %}{% endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]


def qwen3_vl():
    """Ids 0 to 255 are bytes, 256 the padding, then :data:`SPECIAL`; frames of 8 pixels per patch, 2 x 2 of a token."""
    text = {**SMALL, "head_dim": 16, "num_key_value_heads": 1, "vocab_size": 263, "bos_token_id": 256}
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2]}
    vision = {"hidden_size": 32, "depth": 2, "num_heads": 2, "intermediate_size": 32, "patch_size": 8}
    vision |= {"out_hidden_size": 32, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
    ids = {"vision_start_token_id": 259, "vision_end_token_id": 260, "image_token_id": 261, "video_token_id": 262}
    return hf.Qwen3VLModel(hf.Qwen3VLConfig(text_config=text, vision_config=vision, **ids))


def qwen3_vl_processor():
    """4 frames of 32 pixels are as many as it takes."""
    letters = {sign: number for number, sign in enumerate(sorted(ByteLevel.alphabet()))}
    tokenizer = hf.Qwen2Tokenizer(vocab=letters, merges=[], padding_side="left")
    tokenizer.add_special_tokens({"extra_special_tokens": SPECIAL})
    cut = {"patch_size": 8, "merge_size": 2, "size": {"shortest_edge": 256, "longest_edge": 4 * 32 * 32}}
    videos = hf.Qwen3VLVideoProcessor(**cut, **COLOURS, cap_pixels_per_frame=False)
    return hf.Qwen3VLProcessor(hf.Qwen2VLImageProcessor(**cut), tokenizer, videos, chat_template=CHAT)


MODELS["qwen3_vl_embedding"] = (qwen3_vl, qwen3_vl_processor)


def save(folder, name):
    """A random model with its processor and a tokenizer of :data:`WORDS`, or its own."""
    torch.manual_seed(0)
    folder.mkdir()
    make, processor = MODELS[name]
    if name != "qwen3_vl_embedding":
        (folder / "vocab.txt").write_text("\n".join(WORDS))
        hf.BertTokenizer(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    model = make()
    for key, tensor in model.named_parameters():
        if tensor.dim() > 1:  # else pictures and texts hardly differ
            torch.nn.init.normal_(tensor, std=0.2)
        elif key.startswith("logit_scale"):
            torch.nn.init.constant_(tensor, 3.5)
        elif key == "logit_bias":
            torch.nn.init.constant_(tensor, -7.0)
        elif key.endswith("text_video_logit_scale"):  # no logarithm
            torch.nn.init.constant_(tensor, math.exp(3.5))
    model.save_pretrained(folder)
    processor().save_pretrained(folder)


def options_of(name, source):
    slot = "audio" if name == "clap" else "video"
    length = 120 if name == "qwen3_vl_embedding" else LENGTH
    frames = ["encoder.video.frames=4"] if name in ("clip", "siglip2", "pe_av", "qwen3_vl_embedding") else []
    return [f"model={name}", f"encoder.{slot}.model={source}", f"encoder.text.max_length={length}", *frames]


# A run of one step, for commands.
SHORT = ["train.epochs=null", "train.steps=1", "train.global_batch=2", "train.eval_every=0", "train.tensorboard=false"]
SHORT += ["data.workers=0", "media.isolate=false", "threads=1", "task.selection=last", "device=cpu"]


def write_table(folder):
    """my.csv with six clips and sounds, four of them to train on."""
    import av

    rows = []
    for number, text in enumerate(TEXTS[:6]):
        with av.open(str(folder / f"c{number}.mp4"), "w") as file:
            stream = file.add_stream("mpeg4", rate=8)
            stream.width, stream.height = 48, 32
            for value in range(8):
                picture = np.full((32, 48, 3), 30 * number + value, np.uint8)
                file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
            file.mux(stream.encode(None))
        with wave.open(str(folder / f"c{number}.wav"), "wb") as file:
            file.setparams((1, 2, 48000, 0, "NONE", "not compressed"))
            tone = np.sin(np.arange(24000) * (number + 1) / 40)
            file.writeframes((8000 * tone).astype("<i2").tobytes())
        split = "train" if number < 4 else "test"
        rows.append({"video": f"c{number}.mp4", "audio": f"c{number}.wav", "caption": text, "split": split})
    with (folder / "my.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder / "my.csv"
