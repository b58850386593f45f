"""Tokenizers of text encoders: BERT's word pieces, whole words of the training texts, what a folder or the hub holds.

An encoder takes a tokenizer from :func:`load_tokenizer`, its ``spec`` from :func:`spec_of` (or
:func:`spec_of_transformers`, for a tokenizer object of transformers), and writes it with :func:`save_tokenizer` from
``save_assets``: then a checkpoint needs neither training texts nor the hub. Its ``origin`` is :func:`origin_of`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from vtp.errors import ConfigError
from vtp.types import TextSpec
from vtp_encoders import hub

if TYPE_CHECKING:
    from vtp.model.build import BuildContext  # which imports torch; tools that only tokenize do without

__all__ = [
    "SPECIAL",
    "Tokenize",
    "TokenizeTransformers",
    "build_tokenizer",
    "load_tokenizer",
    "named_tokenizer",
    "origin_of",
    "save_tokenizer",
    "saved_tokenizer",
    "spec_of",
    "spec_of_transformers",
    "vocabulary_hash",
    "word_pieces",
]

PAD, UNKNOWN, CLS, SEP, MASK = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_FILE = "tokenizer.json"
_CHUNK = 128  # ids that are read together where a vocabulary is hashed


class Tokenize:
    """Texts to id lists, special tokens included, cut to ``max_length``. Picklable, for the loader's workers."""

    def __init__(self, tokenizer: Tokenizer, max_length: int) -> None:
        self.tokenizer = Tokenizer.from_str(tokenizer.to_str())
        self.tokenizer.enable_truncation(max_length)

    def __call__(self, texts: list[str]) -> list[list[int]]:
        # One by one: encode_batch starts threads, which do not survive the fork into loader workers.
        return [self.tokenizer.encode(text).ids for text in texts]

    def words(self, text: str) -> list[tuple[str, list[int]]]:
        """``TextSpec.words``."""
        return _words(text, self.tokenizer.encode(text))

    def detokenize(self, ids: Sequence[int]) -> str:
        """``TextSpec.detokenize``."""
        around = {self.tokenizer.token_to_id(token) for token in (PAD, CLS, SEP)}
        text: str = self.tokenizer.decode([int(i) for i in ids if int(i) not in around], skip_special_tokens=False)
        return text.strip()


def load_tokenizer(encoder: str, source: str, context: BuildContext) -> Tokenizer:
    """The tokenizer that ``source`` names; the one that a checkpoint keeps when one is being restored.

    Args:
        encoder: registered name of the encoder, for messages.
        source: ``texts`` (words of the training texts), a ``vocab.txt``, a ``tokenizer.json`` or a folder with one of
            them, or a name on the Hugging Face hub, which downloads.
        context: of the encoder's constructor.

    Raises:
        ConfigError: there is no such tokenizer, it lacks a special word of BERT, or knows no other word.
    """
    saved = saved_tokenizer(encoder, context)
    if saved is not None:
        return saved
    if source == "texts":
        return build_tokenizer(context.texts(), encoder=encoder)
    return named_tokenizer(encoder, source)


def named_tokenizer(encoder: str, source: str) -> Tokenizer:
    """:func:`load_tokenizer` of a file, a folder or a name on the hub."""
    path = Path(source).expanduser()
    found = [p for p in (path, path / _FILE, path / "vocab.txt") if p.is_file()]
    tokenizer = _read(encoder, found[0]) if found else _from_hub(encoder, source)
    tokenizer.no_padding()
    return tokenizer


def saved_tokenizer(encoder: str, context: BuildContext) -> Tokenizer | None:
    """The tokenizer in the assets of a checkpoint; None where none is being restored.

    Raises:
        ConfigError: the checkpoint lacks it, or it is none.
    """
    folder = context.assets_of("encoders/text")
    if folder is None:
        return None
    if not (folder / _FILE).is_file():
        raise ConfigError(
            f"encoder {encoder}: the checkpoint lacks its tokenizer, {folder / _FILE}. Copy the folder as a whole."
        )
    return _read(encoder, folder / _FILE)


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write it where :func:`saved_tokenizer` looks."""
    tokenizer.save(str(folder / _FILE))


def build_tokenizer(
    texts: Iterable[str], vocabulary: int = 30522, min_count: int = 1, encoder: str = "tiny"
) -> Tokenizer:
    """A lower-casing word tokenizer over the words of ``texts``; ids by falling count, ties alphabetically.

    Args:
        texts: training texts.
        vocabulary: most ids, special words included; the most frequent words are kept.
        min_count: words that occur less often become [UNK].
        encoder: registered name of the encoder, for the message.

    Raises:
        ConfigError: there are no texts, or no word of them is left.
    """
    normalizer = normalizers.BertNormalizer(lowercase=True)
    splitter = pre_tokenizers.BertPreTokenizer()  # at spaces and around punctuation
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    if not counts:
        raise ConfigError(
            f"encoder {encoder}: the training data holds no texts, so there are no words to build a tokenizer from. "
            "Check the data set, or use a text encoder that brings its tokenizer (encoder/text=transformers)."
        )
    kept = [word for word in counts if counts[word] >= min_count and word not in SPECIAL]
    kept.sort(key=lambda word: (-counts[word], word))
    words = [*SPECIAL, *kept[: max(vocabulary - len(SPECIAL), 0)]]
    if len(words) == len(SPECIAL):
        raise ConfigError(
            f"encoder {encoder}: vocabulary={vocabulary} and min_count={min_count} leave no word of the training "
            f"texts, so that every text would be the same. {len(SPECIAL)} of the ids are special words; the texts have "
            f"{len(counts):,} words, the most frequent one {max(counts.values()):,} times."
        )
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=UNKNOWN))
    return _like_bert(tokenizer, words)


def word_pieces(vocab: Path) -> Tokenizer:
    """BERT's lower-casing word-piece tokenizer over a ``vocab.txt``."""
    text = vocab.read_text(encoding="utf-8")
    words = [line.rstrip("\r") for line in text.rstrip("\n").split("\n")]  # splitlines would also split at U+2028
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token=UNKNOWN))
    tokenizer.decoder = decoders.WordPiece()
    return _like_bert(tokenizer, words)


def spec_of(tokenizer: Tokenizer, max_length: int, vocab_size: int | None = None) -> TextSpec:
    """What the loader and masks need to know about a tokenizer with BERT's special words.

    Args:
        tokenizer: as :func:`load_tokenizer` gives it.
        max_length: longest text in tokens, [CLS] and [SEP] included.
        vocab_size: rows of the embedding table; None is the tokenizer's number of ids.

    Raises:
        ConfigError: ``max_length`` has no room for a word.
    """
    _check_length(max_length, tokenizer.num_special_tokens_to_add(is_pair=False))
    ids = {token: _id(tokenizer, token) for token in SPECIAL}
    tokenize = Tokenize(tokenizer, max_length)
    return TextSpec(
        tokenize=tokenize,
        pad_id=ids[PAD],
        mask_id=ids[MASK],
        cls_id=ids[CLS],
        sep_id=ids[SEP],
        special_ids=tuple(sorted(ids.values())),
        vocab_size=tokenizer.get_vocab_size() if vocab_size is None else vocab_size,
        max_length=max_length,
        detokenize=tokenize.detokenize,
        words=tokenize.words,
    )


class TokenizeTransformers:
    """The same as :class:`Tokenize`, by a tokenizer object of transformers."""

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length

    def __call__(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        encoded = self.tokenizer(texts, truncation=True, max_length=self.max_length, padding=False)
        ids: list[list[int]] = encoded["input_ids"]
        return ids

    def words(self, text: str) -> list[tuple[str, list[int]]]:
        """``TextSpec.words``, of tokenizers of the tokenizers library."""
        encoded = self.tokenizer(text, truncation=True, max_length=self.max_length, padding=False)
        return _words(text, encoded.encodings[0])

    def detokenize(self, ids: Sequence[int]) -> str:
        """``TextSpec.detokenize``."""
        tool = self.tokenizer
        around = set(tool.all_special_ids) - {tool.mask_token_id}
        if tool.unk_token_id not in (tool.pad_token_id, tool.eos_token_id, tool.bos_token_id):  # CLIP has one for all
            around.discard(tool.unk_token_id)
        kept = [int(i) for i in ids if int(i) not in around]
        text: str = tool.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        model = getattr(getattr(tool, "backend_tokenizer", None), "model", None)
        ending = getattr(model, "end_of_word_suffix", None)  # CLIP's, which only the object that was built takes off
        return (text.replace(ending, " ") if ending else text).strip()


class Within:
    """``TextSpec.tokenize`` of a text within a conversation, by a tokenizer object of transformers. What is too long is
    cut off from the text, never from what stands around it.

    Args:
        tokenizer: that of the model.
        before, after: what stands around a text.
        max_length: longest conversation in tokens.

    Raises:
        ConfigError: ``max_length`` has no room for a word.
    """

    def __init__(self, tokenizer: Any, before: str, after: str, max_length: int) -> None:
        self.tokenizer, self.before, self.after, self.max_length = tokenizer, before, after, max_length
        self.ending = len(tokenizer(after)["input_ids"])
        _check_length(max_length, len(tokenizer(before + after)["input_ids"]))

    def __call__(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        whole = self.tokenizer([f"{self.before}{text}{self.after}" for text in texts], padding=False)["input_ids"]
        cut = self.max_length - self.ending
        return [ids if len(ids) <= self.max_length else ids[:cut] + ids[-self.ending :] for ids in whole]


def spec_of_transformers(encoder: str, tokenizer: Any, max_length: int, model: str, vocab_size: int) -> TextSpec:
    """:func:`spec_of` for a tokenizer object of transformers, whatever its special words are.

    Raises:
        ConfigError: it knows no word at all, as one whose vocabulary was not found; it has more ids than the model; or
            ``max_length`` has no room for a word.
    """
    # The tokenizers library starts threads that do not survive the fork into loader workers, and warns in each of them.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not _tells_words_apart(
        lambda text: tokenizer(text, add_special_tokens=False)["input_ids"],
        tokenizer.unk_token_id,
        lambda: _own_words(tokenizer),
    ):
        raise ConfigError(
            f"encoder {encoder}: the tokenizer of {model!r} turns every word into the same ids: its vocabulary was not "
            "found. Its folder must hold tokenizer.json, or the vocabulary files that its class reads."
        )
    _check_length(max_length, tokenizer.num_special_tokens_to_add(pair=False))

    def of(*names: str) -> int:
        ids = [getattr(tokenizer, f"{name}_token_id") for name in names]
        return next((int(i) for i in ids if i is not None), -1)

    largest = max(int(tokenizer.vocab_size) - 1, of("pad", "eos"), of("mask"), of("cls", "bos"), of("sep", "eos"))
    if largest >= vocab_size:
        raise ConfigError(
            f"encoder {encoder}: the tokenizer of {model!r} gives ids up to {largest}, and the model has embeddings of "
            f"{vocab_size}: they do not belong together. The folder must hold the tokenizer that the model was trained "
            "with."
        )

    tokenize = TokenizeTransformers(tokenizer, max_length)
    return TextSpec(
        tokenize=tokenize,
        pad_id=max(of("pad", "eos"), 0),  # any id will do: padding is masked
        mask_id=of("mask"),
        cls_id=of("cls", "bos"),
        sep_id=of("sep", "eos"),
        special_ids=tuple(sorted({int(i) for i in tokenizer.all_special_ids})),
        vocab_size=vocab_size,
        max_length=max_length,
        detokenize=tokenize.detokenize,
        words=tokenize.words if tokenizer.is_fast else None,
    )


def vocabulary_hash(spec: TextSpec) -> str:
    """sha256 of what the ids of a tokenizer stand for, in their order; ids beyond its words, for which a model may have
    embeddings, do not count.

    Raises:
        ConfigError: the tokenizer cannot turn ids into words.
    """
    if spec.detokenize is None:
        raise ConfigError(
            "the tokenizer of this text encoder does not turn ids into words (TextSpec.detokenize), so its vocabulary "
            "cannot be told from others. Choose another encoder/text."
        )
    read = [spec.detokenize(range(at, min(at + _CHUNK, spec.vocab_size))) for at in range(0, spec.vocab_size, _CHUNK)]
    special = [spec.pad_id, spec.mask_id, spec.cls_id, spec.sep_id, *spec.special_ids]
    return hashlib.sha256(json.dumps([special, "\n".join(read).rstrip("\n")]).encode()).hexdigest()


def origin_of(spec: TextSpec) -> dict[str, Any]:
    """What a text encoder was made of: sha256 of its vocabulary, and how many ids it has embeddings for."""
    return {"vocabulary": vocabulary_hash(spec), "vocab_size": spec.vocab_size}


def _tells_words_apart(encode: Callable[[str], list[int]], unknown: int | None, own: Callable[[], list[str]]) -> bool:
    """Whether different words get different ids; the one of unknown words tells nothing.

    Args:
        encode: ids of a text, without special tokens.
        unknown: id of unknown words.
        own: words of the vocabulary, asked for where it has none of the ordinary ones: perhaps of another language.
    """
    ordinary = ["a", "b", "c", "d", "e", "0", "1", "2", "cat", "blue"]
    sources: tuple[Callable[[], list[str]], ...] = (lambda: ordinary, own)
    for words in sources:
        try:
            ids = [encode(word) for word in words()]
        except Exception:  # the tokenizers library has no class of its own for a vocabulary without an unknown word
            continue
        if len({tuple(i for i in found if i != unknown) for found in ids}) > 1:
            return True
    return False


def _own_words(tokenizer: Any) -> list[str]:
    """Some words of the vocabulary of a tokenizer object of transformers."""
    special = set(tokenizer.all_special_tokens)
    tokens = islice((token for token in tokenizer.get_vocab() if token not in special), 100)
    return [text for token in tokens if (text := tokenizer.convert_tokens_to_string([token]))]


def _words(text: str, encoding: Any) -> list[tuple[str, list[int]]]:
    """The words of an ``Encoding`` of the tokenizers library, each with its ids. A word that is cut off is told whole,
    with the ids that are left of it."""
    words: list[tuple[str, list[int]]] = []
    spans: list[list[int]] = []  # of each word in the text
    last = None
    for part in (encoding, *encoding.overflowing):
        for token, word, (start, end), special in zip(
            part.ids, part.word_ids, part.offsets, part.special_tokens_mask, strict=True
        ):
            if special:
                continue
            known = word is not None and word == last
            if known:
                spans[-1][1] = max(spans[-1][1], end)
            elif part is not encoding:  # the first word that is cut off altogether
                break
            else:
                words.append(("", []))
                spans.append([start, end])
            if part is encoding:
                words[-1][1].append(token)
            last = word
        else:
            continue
        break
    return [(text[start:end].strip(), ids) for (start, end), (_, ids) in zip(spans, words, strict=True)]


def _like_bert(tokenizer: Tokenizer, words: list[str]) -> Tokenizer:
    """Lower case, splits at spaces and around punctuation, [CLS] and [SEP] around a text."""
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens([token for token in SPECIAL if token in words])
    if CLS in words and SEP in words:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{CLS} $A {SEP}", special_tokens=[(CLS, words.index(CLS)), (SEP, words.index(SEP))]
        )
    return tokenizer


def _check_length(max_length: int, special: int) -> None:
    """Refuse texts that would hold nothing but the ``special`` tokens around them."""
    if max_length <= special:
        raise ConfigError(
            f"max_length={max_length} leaves no room for a word: {special} of the tokens are special ones. "
            f"It must be at least {special + 1}."
        )


def _read(encoder: str, file: Path) -> Tokenizer:
    """A ``tokenizer.json`` or ``vocab.txt`` with BERT's special words."""
    try:
        tokenizer = Tokenizer.from_file(str(file)) if file.suffix == ".json" else word_pieces(file)
    except Exception as error:  # the tokenizers library has no class of its own
        reason = " ".join(str(error).split())[:100]
        raise ConfigError(
            f"encoder {encoder}: {file} is no tokenizer ({reason}). Copy it again, or give another one."
        ) from error
    return _checked(encoder, file, tokenizer)


def _checked(encoder: str, source: object, tokenizer: Tokenizer) -> Tokenizer:
    lacking = [token for token in SPECIAL if tokenizer.token_to_id(token) is None]
    if lacking:
        raise ConfigError(f"encoder {encoder}: tokenizer {source} lacks {', '.join(lacking)}; it needs those of BERT.")
    if tokenizer.get_vocab_size() <= len(SPECIAL):
        raise ConfigError(
            f"encoder {encoder}: tokenizer {source} knows no word: its vocabulary was not found, or is empty."
        )
    return tokenizer


def _id(tokenizer: Tokenizer, token: str) -> int:
    found = tokenizer.token_to_id(token)
    assert found is not None, f"{token} is not in the tokenizer"  # load_tokenizer has looked
    return found


def _from_hub(encoder: str, name: str) -> Tokenizer:
    from transformers import AutoTokenizer

    hub.settle()
    try:
        found = Tokenizer.from_str(
            AutoTokenizer.from_pretrained(name, trust_remote_code=False).backend_tokenizer.to_str()
        )
    except Exception as error:  # of several libraries
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"encoder {encoder}: tokenizer={name} is neither a file or folder here nor to be had from the Hugging Face "
            f"hub ({reason}). Give the path of a BERT vocab.txt, encoder.text.tokenizer=/path/vocab.txt, or write "
            "`texts` to build one from the training texts."
        ) from error
    return _checked(encoder, name, found)
