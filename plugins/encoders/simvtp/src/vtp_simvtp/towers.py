"""``simvtp_tower``: two encoders of their own for video and text, the model that SimVTP fine-tunes for retrieval.

    video   tubelets + positions -> blocks -> pooled -> (B, D)
    text    BERT embeddings      -> blocks -> pooled -> (B, D)

``mean_then_norm`` pools as the released code does: LayerNorm of the mean over all tokens, padding included. ``mean``
is the mean over real tokens of the LayerNorm of each, which is also what pre-training computes.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal

from torch import Tensor, nn

from vtp.model.blocks import Blocks, init_weights
from vtp.model.build import BuildContext
from vtp.ranges import Count, Depth, Range, Share, Size
from vtp.types import Tokens
from vtp_simvtp.fusion import clips_of
from vtp_simvtp.text import TextEmbeddings, WordEmbeddings
from vtp_simvtp.video import PatchEmbed, VideoTubelets
from vtp_simvtp.vit import shape_of

__all__ = ["TextTower", "Tower", "VideoTower"]

INIT_STD = 0.02
RENAMED = {
    "legacy": "variant=released",
    "pooling=mean_of_ln": "pooling=mean",
    "pooling=ln_of_mean": "pooling=mean_then_norm",
}


class Tower(nn.Module):
    """Blocks and pooling, the same for both.

    Args:
        width, depth, heads, drop_path, init_values: of the blocks.
        pooling: mean or mean_then_norm; None is the first, or the second if ``released``.
        released: whether the variant is that of the released code.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int,
        drop_path: float,
        init_values: float,
        pooling: str | None,
        released: bool,
    ) -> None:
        super().__init__()
        self.width, self.depth = width, depth
        self.pooling = pooling or ("mean_then_norm" if released else "mean")
        self.blocks = Blocks(width, depth, heads, drop_path=drop_path, init_values=init_values, names="beit")
        norm = nn.LayerNorm(width, eps=1e-6)
        self.norm = norm if self.pooling == "mean" else None
        self.fc_norm = norm if self.pooling == "mean_then_norm" else None
        init_weights(self, INIT_STD)

    def forward(self, tokens: Tokens, key_mask: Tensor | None) -> Tokens:
        """(B, N, D) -> (B, N, D), normalised where pooling is mean."""
        x = self.blocks(tokens.x, key_mask)
        return replace(tokens, x=x if self.norm is None else self.norm(x))

    def pool(self, tokens: Tokens) -> Tensor:
        """(B, N, D) -> (B, D)."""
        return tokens.pooled() if self.fc_norm is None else self.fc_norm(tokens.x.mean(dim=1))

    def layer_of(self, name: str) -> int:
        """Layer of a parameter ``tower.*`` for learning-rate decay: 1..depth blocks, depth + 1 the norm; 0 for
        others."""
        part = name.split(".")
        if part[0] != "tower":
            return 0
        return int(part[2]) + 1 if part[1] == "blocks" else self.depth + 1


class VideoTower(nn.Module):
    """Clips to tokens and one feature, with blocks of its own.

    Args:
        preset: tiny, small, base or large.
        width, depth, heads: numbers in place of the preset's.
        frames, size, tubelet, patch, stride, layout: as in encoder/video=simvtp.
        drop_path, init_values: see :class:`vtp.model.blocks.Blocks`.
        pooling: ``mean`` or ``mean_then_norm``; null is the first, or the second if variant: released.
        unused_vocabulary, unused_positions: size of the word embeddings that the released model holds here and never
            uses. With variant: released they are allocated, so that parameter count and checkpoint keys are the same;
            they are not trained.
        context: tells the variant.
    """

    view_inputs = ("visible",)
    padded = False
    variants = ("released",)
    renamed = RENAMED

    def __init__(
        self,
        *,
        context: BuildContext,
        preset: str = "base",
        width: Size | None = None,
        depth: Depth | None = None,
        heads: Count | None = None,
        frames: Size = 16,
        size: Size = 224,
        tubelet: Size = 2,
        patch: Size = 16,
        stride: Count | None = None,
        layout: Literal["uint8", "float"] = "uint8",
        drop_path: Share = 0.0,
        init_values: Annotated[float, Range(least=0)] = 0.0,
        pooling: Literal["mean", "mean_then_norm"] | None = None,
        unused_vocabulary: Count = 30522,
        unused_positions: Size = 512,
    ) -> None:
        super().__init__()
        shape = shape_of(preset, width, depth, heads)
        self.width, self.depth = shape.width, shape.depth
        released = context.variant == "released"
        self.embedding = VideoTubelets(
            preset=preset, width=width, depth=depth, frames=frames, size=size, tubelet=tubelet, patch=patch,
            stride=stride, layout=layout,
        )  # fmt: skip
        self.spec, self.grid = self.embedding.spec, self.embedding.grid
        self.tower = Tower(shape.width, shape.depth, shape.heads, drop_path, init_values, pooling, released)
        self.unused_text_embeddings = (
            WordEmbeddings(unused_vocabulary, unused_positions, shape.width, 0.0).requires_grad_(False)
            if released
            else None
        )

    def forward(self, video: Tensor, mask: Tensor | None = None, visible: Tensor | None = None) -> Tokens:
        """A clip to Tokens (B, N, D); arguments as in :class:`vtp_simvtp.video.VideoTubelets`."""
        out: Tokens = self.tower(self.embedding(video, mask, visible), None)
        return out

    def embed(self, video: Tensor, mask: Tensor | None = None, visible: Tensor | None = None) -> Tokens:
        """The tubelet embedding alone."""
        out: Tokens = self.embedding(video, mask, visible)
        return out

    def pool(self, tokens: Tokens) -> Tensor:
        """(B, N, D) -> (B, D); with several clips of one video the mean of what each of them gives."""
        clips = clips_of(tokens, prod(self.grid))
        if clips == 1:
            return self.tower.pool(tokens)
        rows = tokens.x.shape[0]
        x = tokens.x.reshape(rows * clips, -1, self.width)
        real = tokens.attention_mask.reshape(rows * clips, -1)
        return self.tower.pool(Tokens(x, real)).view(rows, clips, -1).mean(dim=1)

    def layer_of(self, name: str) -> int:
        """Layer of a parameter for learning-rate decay: 0 embedding, 1..depth blocks, depth + 1 the norm."""
        return self.tower.layer_of(name)

    def gradient_checkpointing_enable(self) -> None:
        """Recompute the blocks in the backward pass."""
        self.tower.blocks.checkpointing = True


class TextTower(nn.Module):
    """Texts to tokens and one feature, with blocks of its own.

    Args:
        preset: tiny, small, base or large.
        width, depth, heads: numbers in place of the preset's.
        tokenizer, vocabulary, positions, max_length, dropout: as in encoder/text=simvtp.
        drop_path, init_values: see :class:`vtp.model.blocks.Blocks`.
        pooling: ``mean`` or ``mean_then_norm``; null is the first, or the second if variant: released.
        unused_tubelet, unused_patch: size of the tubelet embedding that the released model holds here and never uses.
            With variant: released it is allocated, and not trained. A patch of null is 16.
        context: gives the training texts, or the saved tokenizer when a checkpoint is restored, and the variant.
    """

    variants = ("released",)
    renamed = RENAMED

    def __init__(
        self,
        *,
        context: BuildContext,
        preset: str = "base",
        width: Size | None = None,
        depth: Depth | None = None,
        heads: Count | None = None,
        tokenizer: str = "bert-base-uncased",
        vocabulary: Count | None = None,
        positions: Size = 512,
        max_length: Size = 512,
        dropout: Share = 0.1,
        drop_path: Share = 0.0,
        init_values: Annotated[float, Range(least=0)] = 0.0,
        pooling: Literal["mean", "mean_then_norm"] | None = None,
        unused_tubelet: Size = 2,
        unused_patch: Size | None = 16,
    ) -> None:
        super().__init__()
        shape = shape_of(preset, width, depth, heads)
        self.width, self.depth = shape.width, shape.depth
        released = context.variant == "released"
        self.embedding = TextEmbeddings(
            context=context, preset=preset, width=width, depth=depth, tokenizer=tokenizer, vocabulary=vocabulary,
            positions=positions, max_length=max_length, dropout=dropout,
        )  # fmt: skip
        self.spec = self.embedding.spec
        self.tower = Tower(shape.width, shape.depth, shape.heads, drop_path, init_values, pooling, released)
        self.unused_patch_embed = (
            PatchEmbed(shape.width, unused_tubelet, unused_patch or 16).requires_grad_(False) if released else None
        )

    def forward(self, token_ids: Tensor, attention_mask: Tensor) -> Tokens:
        """(B, L) ids -> Tokens (B, L, D)."""
        out: Tokens = self.tower(self.embedding(token_ids, attention_mask), attention_mask)
        return out

    def embed(self, token_ids: Tensor, attention_mask: Tensor) -> Tokens:
        """The embedding layer alone."""
        out: Tokens = self.embedding(token_ids, attention_mask)
        return out

    def pool(self, tokens: Tokens) -> Tensor:
        """(B, L, D) -> (B, D)."""
        return self.tower.pool(tokens)

    def layer_of(self, name: str) -> int:
        """Layer of a parameter for learning-rate decay: 0 embeddings, 1..depth blocks, depth + 1 the norm."""
        return self.tower.layer_of(name)

    def gradient_checkpointing_enable(self) -> None:
        """Recompute the blocks in the backward pass."""
        self.tower.blocks.checkpointing = True

    def save_assets(self, directory: Path) -> None:
        """Write the tokenizer, so that a checkpoint can be loaded without hub or training texts."""
        self.embedding.save_assets(directory)

    def origin(self) -> dict[str, Any]:
        """Hash and size of the vocabulary."""
        return self.embedding.origin()
