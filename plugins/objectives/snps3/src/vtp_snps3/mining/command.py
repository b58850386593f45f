"""The command ``vtp mine-words``."""

from __future__ import annotations

import gc
import inspect
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vtp.cli.arguments import key_values, refuse_file
from vtp.components import check_options, refuse
from vtp.errors import ConfigError, DataError
from vtp.machine import cores
from vtp.prepare import GO_ON
from vtp.progress import bar
from vtp.ranges import Processes
from vtp.registry import did_you_mean
from vtp_snps3.mining.rows import STOP_WORDS, Lemmas
from vtp_univl.parts_of_speech import Tagger

if TYPE_CHECKING:
    from vtp.types import TextSpec
    from vtp_snps3.mining.captions import Captions
    from vtp_snps3.words import WordTable

__all__ = ["main", "mine"]

USAGE = """vtp mine-words: which words of captions are nouns, verbs and adjectives, and how often. SNP-S3 masks these
words first and matches them with the clip one by one.

usage: vtp mine-words DATASET|FILE OUT [OPTION=VALUE ...]
       vtp mine-words OUT --from-antmmf FILE [--same-lemma FILE] [tokenizer=NAME]
       vtp mine-words show TABLE [OUT.png] [top=30]

  DATASET   a data set as in dataset=NAME, with its options: the captions of its training split
  FILE      captions: csv, tsv or jsonl with a column `caption`, or json: rows, or an object from names to captions
  OUT       the table, a json file for objectives.NAME.words=OUT

  tokenizer=bert-base-uncased   of the model: a name on the hub, a folder, a vocab.txt or tokenizer.json, or `texts` for
                                the words of the captions themselves. Default for language=zh: bert-base-chinese
  language=en                   en or zh
  tagger=nltk                   en: nltk or spacy; zh: jieba
  lemmas=lemminflect            en: lemminflect, wordnet (data of NLTK), simplemma or none
  stop_words=[be,is,...]        words that are never significant, in place of the forms of be, have and do
  pieces=true                   whether words that the tokenizer splits are kept, with all their tokens. Default: not
                                those of English word pieces (BERT), which know frequent words as one
  column=caption                of FILE, in which captions stand
  workers=N                     processes (default: one per core)

Words of the captions are counted in lower case where the tokenizer is uncased, ranked by how often they are a verb, a
noun or an adjective; ties go by the smaller token id. What is counted is kept beside OUT while it is made: the same
command again goes on where it was stopped. Equal captions and options give equal files.

examples:
  vtp mine-words msvd msvd.json root=DATA/msvd
  vtp mine-words captions.jsonl words.json tokenizer=models/bert/vocab.txt workers=8
  vtp mine-words msvd_cn msvd_cn.json language=zh tokenizer=bert-base-chinese
  vtp mine-words webvid.json --from-antmmf count_reprocess_webvid.json --same-lemma vocab_simi_list_new.json
  vtp mine-words show msvd.json msvd.png

exit code: 0 done, 1 the run failed, 2 a mistake
"""
OWNER = "mine-words"
_HOW_MANY = ("distinct", "total")
_LEFT = (("unknown_words", "does not know"), ("split_words", "splits (pieces=true keeps them)"))
_LENGTH = 512  # tokens of a caption that are looked at where a word's are asked for


def main(arguments: list[str]) -> int:
    """Mine, convert or show."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    options = key_values([argument for argument in arguments if "=" in argument and not argument.startswith("-")])
    rest, files = _flags([argument for argument in arguments if "=" not in argument or argument.startswith("-")])
    if rest[:1] == ["show"]:
        return _show(rest[1:], options)
    if "--from-antmmf" in files:
        if len(rest) != 1:
            raise ConfigError(f"expected OUT --from-antmmf FILE, got {' '.join(rest) or 'no OUT'}.{_EXPLAINED}")
        return _convert(Path(rest[0]), files, options)
    if files:
        raise ConfigError(f"--same-lemma goes with --from-antmmf.{_EXPLAINED}")
    if len(rest) != 2 or not all(path.strip() for path in rest):
        raise ConfigError(f"expected DATASET or FILE, and OUT; got {' '.join(arguments)}.{_EXPLAINED}")
    own = {name: options.pop(name) for name in _OWN if name in options}
    problems: list[str] = []
    check_options("", OWNER, mine, own, problems, given=("source", "out", "dataset"))
    refuse(problems)
    dataset = {name.removeprefix("dataset."): value for name, value in options.items()}
    if dataset and Path(rest[0]).expanduser().is_file():
        name = next(iter(dataset))
        raise ConfigError(f"{rest[0]} is a file, and {name} is for data sets.{did_you_mean(name, _OWN)}{_EXPLAINED}")
    with _without_collection():
        table, there = mine(rest[0], Path(rest[1]).expanduser(), dataset, **own)
    _say(table, Path(rest[1]), "was there already, with these options" if there else "written")
    return 0


_EXPLAINED = " `vtp mine-words --help` explains."


def mine(
    source: str,
    out: Path,
    dataset: dict[str, Any],
    *,
    tokenizer: str | None = None,
    language: Literal["en", "zh"] = "en",
    tagger: Tagger | None = None,
    lemmas: Lemmas | None = None,
    stop_words: Sequence[str] | None = None,
    pieces: bool | None = None,
    column: str | None = None,
    workers: Processes = 0,
) -> tuple[WordTable, bool]:
    """Write a table of the words of captions.

    Args:
        source: name of a data set, or a file or a folder.
        out: the table.
        dataset: options of the data set.
        tokenizer: of the model; None is BERT's of the language.
        language: of the captions.
        tagger, lemmas: None is that of the language.
        stop_words: that are left out; None is those of the language.
        pieces: whether words that the tokenizer splits are kept; None is not those of English word pieces.
        column: of a file, in which captions stand.
        workers: processes; 0 = one per core.

    Returns:
        The table, and whether it was there already.

    Raises:
        ConfigError, DataError: there is no such thing, or ``out`` was made from other captions or with other options.
        RunError: the disk is full, or a process has died.
    """
    from vtp.storage import alone, clean_leftovers
    from vtp_encoders.tokenizers import vocabulary_hash
    from vtp_snps3.mining.captions import captions_of
    from vtp_snps3.mining.counting import How, corpus_hash, count_words, remove_parts, without_empty
    from vtp_snps3.mining.rows import Spelling, lemmatizer, make_rows
    from vtp_snps3.mining.taggers import facts_of
    from vtp_snps3.words import WordTable, save_table

    tagger = tagger or ("nltk" if language == "en" else "jieba")
    lemmas = lemmas or ("lemminflect" if language == "en" else "none")
    if (tagger == "jieba") != (language == "zh") or (language == "zh" and lemmas != "none"):
        raise ConfigError(
            f"tagger={tagger} and lemmas={lemmas} do not go with language={language}: en has the taggers nltk and "
            "spacy, zh has jieba, and its words are their own lemmas."
        )
    _check_out(out, source)
    captions = captions_of(source, dataset, column)
    facts = facts_of(tagger, "tagger")
    lemma, version = lemmatizer(lemmas, "lemmas")
    stop = STOP_WORDS[language] if stop_words is None else stop_words
    name, spec = _tokenizer(tokenizer or f"bert-base-{'uncased' if language == 'en' else 'chinese'}", captions)
    spelling = Spelling(spec, language)
    pieces = spelling.splits if pieces is None else pieces
    how = How(tagger, spelling.lower, facts)
    head = WordTable(
        tokenizer=name,
        vocabulary=vocabulary_hash(spec),
        corpus="",
        tagger=tagger,
        language=language,
        settings={"lower": how.lower, **facts, "lemmas": version, "pieces": pieces, "stop_words": sorted(set(stop))},
    )
    folder = out.with_name(f"{out.name}.parts")
    if out.exists():
        return _same(out, head, lambda: corpus_hash(captions)), True
    refuse_file(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError:  # /proc
        raise ConfigError(f"{folder}: no folder can be made there. Name another place.") from None
    with alone(folder), without_empty(folder):
        if out.exists():  # by now
            return _same(out, head, lambda: corpus_hash(captions)), True
        clean_leftovers(folder)
        with _progress(captions) as progress, _told(folder):
            corpus = count_words(captions, how, folder, workers=workers or cores(), progress=progress)
        rows = make_rows(corpus.words, spelling, stop, lemma, pieces)
        counted = {
            "source": captions.name,
            "captions": corpus.captions,
            "words": sum(map(sum, corpus.words.values())),
            "unknown_words": dict(zip(_HOW_MANY, rows.unknown, strict=True)),
            "split_words": dict(zip(_HOW_MANY, rows.split, strict=True)),
            "left_out": captions.left_out(),
        }
        table = WordTable(**{**_fields(head), "corpus": corpus.sha256, "counted": counted, "words": rows.words})
        if not rows.words:
            if not any(any(row[:3]) for row in corpus.words.values()):  # another tokenizer would find none either
                remove_parts(folder)
            raise DataError(_nothing(captions, table))
        save_table(table, out, GO_ON)
        remove_parts(folder)
    return table, False


_OWN = [name for name, p in inspect.signature(mine).parameters.items() if p.kind is p.KEYWORD_ONLY]


def _check_out(out: Path, source: str = "") -> None:
    """Refuse what cannot be a new table, before any work is done for it."""
    refuse_file(out.parent)
    if out.is_dir():
        raise ConfigError(f"{out} is a folder; the table is a file, such as {out / 'words.json'}.")
    if out.exists() and not out.is_file():
        raise ConfigError(f"{out} is no file, and the table is to be written there. Name another one.")
    if source and out.is_file() and Path(source).expanduser().is_file() and out.samefile(Path(source).expanduser()):
        raise ConfigError(f"{out} has the captions, and the table is to be written there. Name another file.")


def _nothing(captions: Captions, table: WordTable) -> str:
    """Why there is no table."""
    counted = table.counted
    left = [
        f"{counted[name]['distinct']:,} that the tokenizer {what}" for name, what in _LEFT if counted[name]["total"]
    ]
    return (
        f"{captions.name} has no nouns, verbs and adjectives for a table in its {counted['captions']:,} captions (the "
        f"first: {next(iter(captions))[:60]!r}){', but ' if left else ''}{' and '.join(left)}. Is this the column of "
        f"the captions (column=NAME), their language (language={table.language}), and the tokenizer of the model?"
    )


@contextmanager
def _without_collection() -> Iterator[None]:
    """Nothing here makes cycles, and looking for them among millions of small lists takes a tenth of the time."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        if any(folder.glob("*.json")):
            print(f"vtp {OWNER}: what was counted is kept in {folder}; the same command goes on", file=sys.stderr)
        raise


def _fields(table: WordTable) -> dict[str, Any]:
    return {name: getattr(table, name) for name in ("tokenizer", "vocabulary", "tagger", "language", "settings")}


def _same(out: Path, head: WordTable, corpus: Any) -> WordTable:
    """The table that is there, if it was made with these options from these captions."""
    there = _read(out)
    ours, theirs = _fields(head), _fields(there)
    different = [name for name in ours if ours[name] != theirs[name] and name != "tokenizer"]
    if "settings" in different:
        different.remove("settings")
        keys = sorted({*ours["settings"], *theirs["settings"]})
        different += [key for key in keys if ours["settings"].get(key) != theirs["settings"].get(key)]
    if different:
        raise ConfigError(
            f"{out} exists, and was made with other options: {', '.join(different)}. Give another name, or remove it."
        )
    if there.corpus != corpus():
        raise ConfigError(f"{out} exists, and was made from other captions. Give another name, or remove it.")
    return there


def _read(out: Path) -> WordTable:
    """The table that is there."""
    from vtp_snps3.words import read_table

    try:
        return read_table(out)
    except DataError:
        raise ConfigError(f"{out} exists, and is no table of words. Give another name, or remove it.") from None


def _tokenizer(source: str, captions: Captions) -> tuple[str, TextSpec]:
    """A tokenizer by its name, file or folder, and what it is called in the table."""
    from vtp_encoders.tokenizers import build_tokenizer, named_tokenizer, spec_of

    path = Path(source).expanduser()
    if source == "texts":
        return source, spec_of(build_tokenizer(captions, encoder=OWNER), _LENGTH)
    if (path.suffix in (".txt", ".json") or len(path.parts) > 2) and not path.exists():  # a name on the hub has dots
        raise ConfigError(f"tokenizer={source}: there is no such file or folder.")
    try:
        return path.name if path.exists() else source, spec_of(named_tokenizer(OWNER, source), _LENGTH)
    except ConfigError as error:
        others = "lacks [" in str(error) or "it needs those of BERT" in str(error)  # no BERT's: of another family
        if not others or path.is_file():
            told = str(error).replace(f"encoder {OWNER}: ", "").replace("encoder.text.tokenizer=", "tokenizer=")
            more = " Of a tokenizer of another family give the folder, with all of its files." if others else ""
            raise ConfigError(told + more) from None
    from transformers import AutoTokenizer

    from vtp_encoders.huggingface import from_pretrained, load
    from vtp_encoders.tokenizers import spec_of_transformers

    found: Any = load(OWNER, str(path), "tokenizer", lambda: from_pretrained(AutoTokenizer, str(path)))
    return path.name, spec_of_transformers(OWNER, found, _LENGTH, source, len(found))


def _flags(arguments: list[str]) -> tuple[list[str], dict[str, Path]]:
    """The arguments without ``--from-antmmf FILE`` and ``--same-lemma FILE``, and these files."""
    rest, files = [], {}
    words = iter([part for argument in arguments for part in _parted(argument)])
    for word in words:
        if word in ("--from-antmmf", "--same-lemma"):
            value = next(words, "")
            if not value.strip() or value.startswith("--"):
                raise ConfigError(f"{word} needs a file.{_EXPLAINED}")
            files[word] = Path(value).expanduser()
        elif word.startswith("-"):
            raise ConfigError(f"there is no {word}: options are KEY=VALUE.{_EXPLAINED}")
        else:
            rest.append(word)
    return rest, files


def _parted(argument: str) -> list[str]:
    return argument.split("=", 1) if argument.startswith("--") and "=" in argument else [argument]


@contextmanager
def _progress(captions: Captions) -> Iterator[Any]:
    with ExitStack() as stack:
        tell = stack.enter_context(bar("captions"))
        total = captions.total() if sys.stderr.isatty() else 0
        yield lambda done: tell(done, total)


def _convert(out: Path, files: dict[str, Path], options: dict[str, Any]) -> int:
    from vtp_snps3.mining.released import convert
    from vtp_snps3.words import save_table

    if strange := [name for name in options if name != "tokenizer"]:
        raise ConfigError(f"{strange[0]}= does not go with --from-antmmf, which counts nothing.")
    source = options.get("tokenizer")
    if source is not None and (not isinstance(source, str) or source == "texts"):
        raise ConfigError(f"tokenizer={source}: expected the name of a tokenizer, or its file or folder.")
    tokenizer = None if source is None else _tokenizer(source, _NoCaptions())
    table = convert(files["--from-antmmf"], files.get("--same-lemma"), tokenizer)
    _check_out(out)
    if (there := out.exists()) and _read(out) != table:
        raise ConfigError(f"{out} exists, and holds something else. Give another name, or remove it.")
    out.parent.mkdir(parents=True, exist_ok=True)
    save_table(table, out, GO_ON)
    _say(table, out, "was there already" if there else "written")
    return 0


class _NoCaptions:
    name = ""

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def total(self) -> int:
        return 0

    def left_out(self) -> dict[str, Any]:
        return {}


def _show(paths: list[str], options: dict[str, Any]) -> int:
    from vtp.eval.report import print_tables
    from vtp_snps3.mining.show import draw, tables
    from vtp_snps3.words import read_table

    top = options.pop("top", 30)
    if options or not 1 <= len(paths) <= 2 or not isinstance(top, int) or isinstance(top, bool) or top < 1:
        raise ConfigError(f"expected show TABLE [OUT.png] [top=30].{_EXPLAINED}")
    out = Path(paths[-1]).expanduser()
    if len(paths) == 2 and out.suffix.lower() != ".png":
        raise ConfigError(f"{out}: the picture is a .png, such as {Path(paths[0]).with_suffix('.png').name}.")
    table = read_table(paths[0])
    print_tables(tables(table, top))
    if len(paths) == 2:
        out.parent.mkdir(parents=True, exist_ok=True)
        draw(table, out)
        print(f"coverage: {out}")
    return 0


def _say(table: WordTable, out: Path, what: str) -> None:
    from vtp.shown import one_line

    counted = table.counted
    of = f" of {counted['captions']:,} captions" if "captions" in counted else ""
    print(one_line(f"{out} {what}: {len(table.words):,} words{of}, for {table.tokenizer}"))
    left = counted.get("left_out") or {}
    if left.get("rows"):
        print(one_line(f"  left out: {left['rows']:,} rows without a caption (first: {'; '.join(left['first'][:3])})"))
    for name, what in _LEFT:
        if (found := counted.get(name, {})).get("distinct"):
            print(f"  left out: {found['distinct']:,} words that the tokenizer {what}, {found['total']:,} times")
    print(one_line(f"  corpus sha256 {table.corpus[:16]}, vocabulary sha256 {table.vocabulary[:16]}"))
    print(f"look at it: vtp mine-words show {out}")
