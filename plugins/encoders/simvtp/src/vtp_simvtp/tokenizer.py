"""Tokenizers for the text embeddings: BERT's word pieces, or whole words of the training texts for small
experiments."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from vtp.errors import ConfigError
from vtp.model.build import BuildContext
from vtp.types import TextSpec
from vtp_encoders.tiny_text import TokenizeWords, build_tokenizer

__all__ = ["SPECIAL", "load_tokenizer", "spec_of", "word_pieces"]

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def load_tokenizer(source: str, context: BuildContext) -> Tokenizer:
    """The tokenizer that ``source`` names; the one that a checkpoint keeps when one is being restored.

    Args:
        source: ``texts`` (words of the training texts), a ``vocab.txt``, a ``tokenizer.json`` or a folder with one of
            them, or a name on the Hugging Face hub, which downloads.

    Raises:
        ConfigError: if there is no such tokenizer, or it lacks a special token of BERT.
    """
    saved = context.assets_of("encoders/text")
    if saved is not None:
        file = saved / "tokenizer.json"
        if not file.is_file():
            raise ConfigError(
                f"encoder simvtp: the checkpoint lacks its tokenizer, {file}. Copy the folder as a whole."
            )
        return Tokenizer.from_file(str(file))
    if source == "texts":
        return build_tokenizer(context.texts(), 30522, 1)
    path = Path(source).expanduser()
    found = [p for p in (path, path / "tokenizer.json", path / "vocab.txt") if p.is_file()]
    if found:
        tool = Tokenizer.from_file(str(found[0])) if found[0].suffix == ".json" else word_pieces(found[0])
    else:
        tool = _from_hub(source)
    lacking = [token for token in SPECIAL if tool.token_to_id(token) is None]
    if lacking:
        raise ConfigError(f"encoder simvtp: tokenizer {source} lacks {', '.join(lacking)}; SimVTP needs those of BERT.")
    tool.no_padding()
    return tool


def word_pieces(vocab: Path) -> Tokenizer:
    """BERT's lower-casing word-piece tokenizer over a ``vocab.txt``."""
    text = vocab.read_text(encoding="utf-8")
    words = [line.rstrip("\r") for line in text.rstrip("\n").split("\n")]  # splitlines would also split at U+2028
    tool = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tool.normalizer = normalizers.BertNormalizer(lowercase=True)
    tool.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tool.decoder = decoders.WordPiece()
    tool.add_special_tokens([token for token in SPECIAL if token in words])
    if "[CLS]" in words and "[SEP]" in words:
        tool.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", words.index("[CLS]")), ("[SEP]", words.index("[SEP]"))]
        )
    return tool


def spec_of(tool: Tokenizer, max_length: int, vocabulary: int) -> TextSpec:
    """What the loader and the masking need to know."""
    ids = {token: tool.token_to_id(token) for token in SPECIAL}
    return TextSpec(
        tokenize=TokenizeWords(tool, max_length),
        pad_id=ids["[PAD]"],
        mask_id=ids["[MASK]"],
        cls_id=ids["[CLS]"],
        sep_id=ids["[SEP]"],
        special_ids=tuple(sorted(ids.values())),
        vocab_size=vocabulary,
        max_length=max_length,
    )


def _from_hub(name: str) -> Tokenizer:
    from transformers import AutoTokenizer

    try:
        return Tokenizer.from_str(AutoTokenizer.from_pretrained(name).backend_tokenizer.to_str())
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"encoder simvtp: tokenizer={name} is neither a file or folder here nor to be had from the Hugging Face "
            f"hub "
            f"({reason}). Give the path of a BERT vocab.txt: encoder.text.tokenizer=/path/vocab.txt, or `texts` to "
            f"build "
            "one from the training texts."
        ) from error
