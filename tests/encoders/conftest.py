"""Every registered encoder at tiny size, from random weights, without network."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from vtp.model.build import BuildContext
from vtp.testing.checks import construct
from vtp.types import Tokens

sys.path.insert(0, str(Path(__file__).parent))  # hub_models

TEXTS = ["a red ball moves to the left", "two blue boxes stand still", "what moves?"]


class Widths(nn.Module):
    """Stands for an encoder of which only the width is asked."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width


@pytest.fixture(scope="session")
def bert(tmp_path_factory) -> Path:
    """A folder as ``save_pretrained`` writes it: BERT with 2 layers and 5 special tokens, letters and a few words."""
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path_factory.mktemp("hub") / "bert"
    folder.mkdir()
    words = sorted({w.strip("?") for text in TEXTS for w in text.split()} | set("abcde012") | {"?"})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizer(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        initializer_range=0.2,
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def videomae(tmp_path_factory) -> Path:
    """A saved VideoMAEModel: 4 frames of 16 pixels, tubelets of 2 x 8 x 8, so 8 tokens."""
    from transformers import VideoMAEConfig, VideoMAEModel

    folder = tmp_path_factory.mktemp("hub") / "videomae"
    torch.manual_seed(0)
    config = VideoMAEConfig(
        image_size=16,
        patch_size=8,
        num_frames=4,
        tubelet_size=2,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        initializer_range=0.2,
        use_mean_pooling=False,
    )
    VideoMAEModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def ast(tmp_path_factory) -> Path:
    """A saved ASTModel: 0.5 s in 50 steps of 32 bins, 2 x 4 patches."""
    from transformers import ASTConfig, ASTModel

    folder = tmp_path_factory.mktemp("hub") / "ast"
    torch.manual_seed(0)
    config = ASTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_length=50,
        num_mel_bins=32,
        initializer_range=0.2,
    )
    ASTModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def hub(tmp_path_factory) -> Callable[[str], Path]:
    """``hub("whisper")``: folder of a model of hub_models, written once."""
    import hub_models

    root, written = tmp_path_factory.mktemp("hub"), {}

    def folder(name: str) -> Path:
        if name not in written:
            written[name] = hub_models.save(name, root / name.replace(" ", "_"))
        return written[name]

    return folder


@pytest.fixture(scope="session")
def table(tmp_path_factory) -> Path:
    """A csv of six clips with sounds and captions, for commands."""
    import tower_models

    return tower_models.write_table(tmp_path_factory.mktemp("table"))


@pytest.fixture(scope="session")
def tiny(bert, videomae, ast, hub) -> dict[tuple[str, str], tuple[type[nn.Module], dict[str, Any]]]:
    """(slot, name) -> class and options that make it tiny. A new encoder adds a line here; a test counts them."""
    from vtp_encoders.ast_audio import AST
    from vtp_encoders.clap import Clap
    from vtp_encoders.clip import CLIP
    from vtp_encoders.concat import Concat
    from vtp_encoders.constant import Constant
    from vtp_encoders.pe_video import PEVideo
    from vtp_encoders.qwen3_vl import Qwen3VLVideo
    from vtp_encoders.qwen3_vl_text import Qwen3VLText
    from vtp_encoders.timm_audio import TimmAudio
    from vtp_encoders.timm_video import TimmVideo
    from vtp_encoders.tiny_audio import TinyAudio
    from vtp_encoders.tiny_text import TinyText
    from vtp_encoders.tiny_video import TinyVideo
    from vtp_encoders.torchvision_video import TorchvisionVideo
    from vtp_encoders.transformers_text import TransformersText
    from vtp_encoders.videomae import VideoMAE
    from vtp_encoders.videoprism import VideoPrism
    from vtp_encoders.vit_mae import ViTMAE
    from vtp_encoders.vjepa2 import VJEPA2
    from vtp_encoders.wav2vec2 import Wav2Vec2
    from vtp_encoders.whisper import Whisper
    from vtp_encoders.xclip import XCLIP

    timm = {"frames": 2, "size": 32}
    return {
        ("text", "tiny"): (TinyText, {"width": 16, "heads": 2, "max_length": 12}),
        ("text", "transformers"): (TransformersText, {"model": str(bert), "max_length": 12}),
        ("video", "tiny"): (TinyVideo, {"width": 16, "heads": 2, "frames": 4, "size": 32, "patch": 16}),
        ("video", "timm"): (TimmVideo, {**timm, "model": "resnet10t"}),
        ("video", "timm patch"): (TimmVideo, {**timm, "model": "resnet10t", "size": 64, "tokens": "patch"}),
        ("video", "timm vit"): (TimmVideo, {**timm, "model": "test_vit", "tokens": "patch"}),
        ("video", "timm clip"): (TimmVideo, {**timm, "model": "test_vit", "tokens": "clip", "pooling": "attention"}),
        ("video", "videomae"): (VideoMAE, {"model": str(videomae)}),
        ("audio", "tiny"): (TinyAudio, {"width": 16, "heads": 2, "depth": 1, "seconds": 0.7}),
        ("audio", "ast"): (AST, {"model": str(ast)}),
        ("audio", "wav2vec2"): (Wav2Vec2, {"model": str(hub("wav2vec2")), "seconds": 0.03}),
        ("audio", "wav2vec2 layer"): (Wav2Vec2, {"model": str(hub("wav2vec2 layer")), "seconds": 0.03}),
        ("audio", "whisper"): (Whisper, {"model": str(hub("whisper"))}),
        ("audio", "vit_mae"): (ViTMAE, {"model": str(hub("vit_mae")), "bins": 16, "steps": 48}),
        ("audio", "timm"): (TimmAudio, {"model": "test_vit", "bins": 32, "steps": 64}),
        ("video", "vjepa2"): (VJEPA2, {"model": str(hub("vjepa2"))}),
        ("video", "xclip"): (XCLIP, {"model": str(hub("xclip"))}),
        ("video", "videoprism"): (VideoPrism, {"model": str(hub("videoprism"))}),
        ("video", "pe_video"): (PEVideo, {"model": str(hub("pe_video")), "frames": 2}),
        ("video", "clip"): (CLIP, {"model": str(hub("clip")), "frames": 2}),
        ("text", "qwen3_vl"): (Qwen3VLText, {"model": str(hub("qwen3_vl")), "max_length": 120}),
        ("video", "qwen3_vl"): (Qwen3VLVideo, {"model": str(hub("qwen3_vl")), "frames": 3, "size": 16}),
        ("video", "torchvision"): (TorchvisionVideo, {"frames": 2, "size": 32}),
        ("audio", "clap"): (Clap, {"model": str(hub("clap"))}),
        ("fusion", "concat"): (Concat, {"width": 16, "heads": 2}),
        ("fusion", "constant"): (Constant, {"width": 16}),
    }


@pytest.fixture
def build(tiny) -> Callable[..., nn.Module]:
    """``build(slot, name, assets=None)``: one encoder, always with the same random weights."""

    def make(slot: str, name: str, assets: Path | None = None, seed: int = 0) -> nn.Module:
        torch.manual_seed(seed)
        widths = {"text": Widths(8), "video": Widths(12), "audio": Widths(16)} if slot == "fusion" else {}

        def texts():
            assert assets is None, "the training texts must not be read when a checkpoint is restored"
            return TEXTS

        cls, options = tiny[slot, name]
        return construct(cls, options, context=BuildContext(texts=texts, encoders=widths, assets=assets))

    return make


def _text(encoder, rows):
    ids = encoder.spec.tokenize([TEXTS[i % 3] for i in range(rows)])
    longest = max(map(len, ids))
    token_ids = torch.tensor([row + [encoder.spec.pad_id] * (longest - len(row)) for row in ids])
    mask = torch.tensor([[True] * len(row) + [False] * (longest - len(row)) for row in ids])
    return {"token_ids": token_ids, "attention_mask": mask}


def _video(encoder, rows):
    spec = encoder.spec
    return {"video": torch.randn(rows, spec.frames, 3, spec.size, spec.size)}


def _audio(encoder, rows):
    samples = encoder.spec.samples
    lengths = torch.tensor([samples, samples // 2, samples * 3 // 4])[torch.arange(rows) % 3]
    waveform = torch.rand(rows, samples) * 2 - 1
    waveform[torch.arange(samples) >= lengths[:, None]] = 0
    return {"waveform": waveform, "lengths": lengths}


def _fusion(encoder, rows):
    def tokens(count: int, width: int) -> Tokens:
        mask = torch.ones(rows, count, dtype=torch.bool)
        mask[1 % rows, 2:] = False
        return Tokens(torch.randn(rows, count, width), mask)

    return {"tokens": {"video": tokens(6, 12), "audio": tokens(4, 16), "text": tokens(5, 8)}}


@pytest.fixture
def inputs() -> SimpleNamespace:
    """``inputs.text(encoder, rows)`` and so on: arguments of ``forward``; rows differ in length."""
    torch.manual_seed(1)
    return SimpleNamespace(text=_text, video=_video, audio=_audio, fusion=_fusion)
