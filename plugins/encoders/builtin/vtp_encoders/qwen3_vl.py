"""``qwen3_vl``: Qwen3-VL as an embedder of clips (Qwen3-VL-Embedding, arXiv:2601.04720): a language model reads an
instruction and a clip in its own chat template, and the last token is the embedding, by transformers.

video    (B, T, 3, H, W)   float, normalised as the settings beside the model say
tokens   (B, N, D)         last hidden state over instruction, clip and what ends the template
pool     (B, D)            the last token, of unit length
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoConfig, AutoProcessor, Qwen3VLConfig, Qwen3VLModel

from vtp.errors import ConfigError
from vtp.media.settings import as_trained, largest_square
from vtp.model.build import BuildContext
from vtp.ranges import Count, Positive, Size
from vtp.types import Tokens, VideoSpec
from vtp_encoders.huggingface import (
    HubEncoder,
    config_of,
    from_pretrained,
    layer_of_huggingface,
    load,
    load_weights,
    source_of,
    space_of,
)

__all__ = ["INSTRUCTION", "NAME", "Qwen3VL", "Qwen3VLVideo"]

NAME = "qwen3_vl"
INSTRUCTION = "Represent the user's input."  # of Qwen3-VL-Embedding where it is told nothing else


class Qwen3VL(HubEncoder):
    """What reads clips and what reads texts have in common. ``settings`` is its processor."""

    def load(self, slot: str, model: str, pretrained: bool, context: BuildContext) -> Any:
        """The model from its checkpoint, or without weights, and its processor."""
        source, restored = source_of(NAME, slot, model, context)
        config: Any = config_of(NAME, AutoConfig, source)
        if not isinstance(config, Qwen3VLConfig):
            raise ConfigError(f"encoder {NAME}: {model!r} is a {config.model_type} model. Choose a Qwen3-VL model.")
        config.text_config.use_cache = False
        self.settings = load(NAME, source, "processor and tokenizer", lambda: from_pretrained(AutoProcessor, source))
        if not self.settings.chat_template:
            raise ConfigError(
                f"encoder {NAME}: {model!r} has no chat template, in which it was trained. Copy it again."
            )
        return load_weights(NAME, Qwen3VLModel, source) if pretrained and not restored else Qwen3VLModel(config)

    def conversation(self, instruction: str, content: dict[str, str]) -> str:
        """What stands before the answer in its chat template, the user having said ``content``."""
        said = [("system", {"type": "text", "text": instruction}), ("user", content)]
        turns = [{"role": role, "content": [what]} for role, what in said]
        text: str = self.settings.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return text

    def pool(self, tokens: Tokens) -> Tensor:
        """(B, D): the last real token at unit length."""
        place = (tokens.attention_mask * torch.arange(tokens.x.shape[1], device=tokens.x.device)).amax(1)
        return normalize(tokens.x[torch.arange(place.shape[0], device=place.device), place], dim=-1)


class Qwen3VLVideo(Qwen3VL):
    """Clips, read by Qwen3-VL.

    Args:
        model: hub name (``Qwen/Qwen3-VL-Embedding-2B``) or folder written by ``save_pretrained``.
        pretrained: False takes the architecture only, with random weights.
        frames: T. Of an odd number the last frame counts twice, as its processor does it.
        size: side of the frames in pixels, a multiple of its merged patches (32); null is the largest square that the
            settings beside the model allow.
        fps: frames per second that the times in the conversation tell; null is what the settings sample at, 2.
        instruction: what it is told to do with a clip.
        context: gives the saved configuration when a checkpoint is restored; then nothing is downloaded.
    """

    ids: Tensor
    positions: Tensor

    def __init__(
        self,
        *,
        context: BuildContext,
        model: str = "Qwen/Qwen3-VL-Embedding-2B",
        pretrained: bool = True,
        frames: Count = 16,
        size: Size | None = None,
        fps: Positive | None = None,
        instruction: str = INSTRUCTION,
    ) -> None:
        super().__init__()
        self.model = self.load("video", model, pretrained, context)
        self.space = space_of(model, self.model.config, None)
        vision, own = self.model.config.vision_config, self.settings.video_processor
        self.cube = int(vision.temporal_patch_size), int(vision.spatial_merge_size), int(vision.patch_size)
        side = self.cube[1] * self.cube[2]
        size = largest_square(own.to_dict(), frames, side) if size is None else size
        if size % side:
            nearest = max(size // side, 1) * side
            raise ConfigError(f"encoder {NAME}: size={size} must be a multiple of {side}. Nearest valid: {nearest}.")
        self.spec = as_trained(VideoSpec(frames=frames, size=size), own.to_dict())
        self.width, self.before = int(self.model.config.text_config.hidden_size), int(vision.depth)
        self.depth = self.before + int(self.model.config.text_config.num_hidden_layers)
        given = self.settings(  # the same conversation for every clip
            text=[self.conversation(instruction, {"type": "video"})],
            videos=[torch.zeros(frames, 3, size, size, dtype=torch.uint8)],
            video_metadata=[{"total_num_frames": frames, "fps": fps or own.fps, "frames_indices": [*range(frames)]}],
            do_sample_frames=False,
            do_resize=False,
            return_tensors="pt",
        )
        kinds = given["mm_token_type_ids"]
        self.shape = given["video_grid_thw"]  # (1, 3): T', H / patch, W / patch
        positions, _ = self.model.get_rope_index(given["input_ids"], kinds, video_grid_thw=self.shape)
        self.register_buffer("ids", given["input_ids"], persistent=False)
        self.register_buffer("positions", positions, persistent=False)

    def forward(self, video: Tensor) -> Tokens:
        """(B, T, 3, H, W) -> Tokens (B, N, D)."""
        rows, (tubelet, merge, patch) = video.shape[0], self.cube
        missing = video[:, -1:].expand(-1, -video.shape[1] % tubelet, -1, -1, -1)
        slots, side = int(self.shape[0, 0]), int(self.shape[0, 1]) // merge
        cut = torch.cat([video, missing], 1).reshape(rows, slots, tubelet, 3, side, merge, patch, side, merge, patch)
        cut = cut.permute(0, 1, 4, 7, 5, 8, 3, 2, 6, 9).reshape(-1, 3 * tubelet * patch * patch)
        hidden = self.model(
            input_ids=self.ids.expand(rows, -1),
            position_ids=self.positions.expand(-1, rows, -1),
            pixel_values_videos=cut,
            video_grid_thw=self.shape.to(video.device).expand(rows, -1),
        ).last_hidden_state
        return Tokens(hidden, hidden.new_ones(hidden.shape[:2], dtype=torch.bool))

    def layer_of(self, name: str) -> int:
        """Layer of a parameter for learning-rate decay: 0 embeddings, then those of the pictures (what merges their
        patches belongs to the last one), then those of the language model; depth + 1 behind them.
        """
        if ".visual." in name:
            return self.before if "merger" in name else layer_of_huggingface(name, self.before)
        layer = layer_of_huggingface(name, self.depth - self.before)
        return layer and self.before + layer
