"""``tiny``: a word-level tokenizer built from the training texts and a small transformer, trained from scratch. No
download.

token_ids       (B, L) int64       [CLS] w1 .. wn [SEP] [PAD]*
attention_mask  (B, L) bool        True = real
tokens          (B, L, D)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, arange, nn

from vtp.errors import ConfigError
from vtp.model.blocks import Transformer, layer_of_blocks
from vtp.model.build import BuildContext
from vtp.types import TextSpec, Tokens

__all__ = ["TinyText", "TokenizeWords", "build_tokenizer"]

PAD, UNKNOWN, CLS, SEP, MASK = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class TinyText(nn.Module):
    """Words to tokens.

    Args:
        width: D.
        depth: transformer blocks; 0 gives the embeddings alone.
        heads: attention heads.
        max_length: longest text in tokens, [CLS] and [SEP] included; the rest is cut off.
        vocabulary: most words to keep, the most frequent ones first.
        min_count: words that occur less often in the training texts become [UNK].
        dropout: after attention and feed-forward.
        context: gives the training texts, or the saved tokenizer when a checkpoint is restored.
    """

    def __init__(
        self,
        *,
        context: BuildContext,
        width: int = 96,
        depth: int = 1,
        heads: int = 4,
        max_length: int = 32,
        vocabulary: int = 10000,
        min_count: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        saved = context.assets_of("encoders/text")
        self.tokenizer = build_tokenizer(context.texts(), vocabulary, min_count) if saved is None else _load(saved)
        self.spec = spec_of(self.tokenizer, max_length)
        self.width = width
        self.depth = depth
        self.words = nn.Embedding(self.spec.vocab_size, width)
        self.positions = nn.Embedding(max_length, width)
        self.transformer = Transformer(width, depth, heads, mlp_ratio=2.0, dropout=dropout)
        nn.init.normal_(self.words.weight, std=1.0)  # beside what the blocks add, smaller words would drown
        nn.init.normal_(self.positions.weight, std=0.5)

    def forward(self, token_ids: Tensor, attention_mask: Tensor) -> Tokens:
        """(B, L) ids -> Tokens (B, L, D)."""
        tokens = self.embed(token_ids, attention_mask)
        tokens.x = self.transformer(tokens.x, attention_mask)
        return tokens

    def embed(self, token_ids: Tensor, attention_mask: Tensor) -> Tokens:
        """Word plus position embedding, not yet contextual: Tokens (B, L, D)."""
        position = arange(token_ids.shape[1], device=token_ids.device)
        return Tokens(self.words(token_ids) + self.positions(position), attention_mask)

    def layer_of(self, name: str) -> int:
        """Layer of a parameter for learning-rate decay: 0 embeddings, 1..depth blocks, depth + 1 the final norm."""
        return layer_of_blocks(name, self.depth)

    def gradient_checkpointing_enable(self) -> None:
        """Recompute the blocks in the backward pass."""
        self.transformer.blocks.checkpointing = True

    def save_assets(self, directory: Path) -> None:
        """Write the tokenizer, so that a checkpoint can be loaded without the training texts."""
        self.tokenizer.save(str(directory / "tokenizer.json"))


class TokenizeWords:
    """Texts to id lists, special tokens included, cut to ``max_length``. Picklable, for the loader's workers."""

    def __init__(self, tokenizer: Tokenizer, max_length: int) -> None:
        self.tokenizer = Tokenizer.from_str(tokenizer.to_str())
        self.tokenizer.enable_truncation(max_length)

    def __call__(self, texts: list[str]) -> list[list[int]]:
        # One by one: encode_batch starts threads, which do not survive the fork into loader workers.
        return [self.tokenizer.encode(text).ids for text in texts]


def build_tokenizer(texts: Iterable[str], vocabulary: int, min_count: int) -> Tokenizer:
    """A lower-casing word tokenizer over the words of ``texts``; ids by falling count, ties alphabetically.

    Raises:
        ConfigError: if there are no texts.
    """
    normalizer = normalizers.BertNormalizer(lowercase=True)
    splitter = pre_tokenizers.BertPreTokenizer()  # at spaces and around punctuation
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    if not counts:
        raise ConfigError(
            "encoder tiny: the training data holds no texts, so there are no words to build a tokenizer from. "
            "Check the data set, or use a text encoder that brings its tokenizer (encoder/text=transformers)."
        )
    kept = [word for word in counts if counts[word] >= min_count and word not in SPECIAL]
    kept.sort(key=lambda word: (-counts[word], word))
    words = [*SPECIAL, *kept[: max(vocabulary - len(SPECIAL), 0)]]
    ids = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitter
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{CLS} $A {SEP}", special_tokens=[(CLS, ids[CLS]), (SEP, ids[SEP])]
    )
    return tokenizer


def spec_of(tokenizer: Tokenizer, max_length: int) -> TextSpec:
    """What the loader needs to know about a tokenizer of :func:`build_tokenizer`."""
    ids = {token: tokenizer.token_to_id(token) for token in SPECIAL}
    return TextSpec(
        tokenize=TokenizeWords(tokenizer, max_length),
        pad_id=ids[PAD],
        mask_id=ids[MASK],
        cls_id=ids[CLS],
        sep_id=ids[SEP],
        special_ids=tuple(sorted(ids.values())),
        vocab_size=tokenizer.get_vocab_size(),
        max_length=max_length,
    )


def _load(directory: Path) -> Tokenizer:
    file = directory / "tokenizer.json"
    if not file.is_file():
        raise ConfigError(f"encoder tiny: the checkpoint lacks its tokenizer, {file}. Copy the folder as a whole.")
    return Tokenizer.from_file(str(file))
