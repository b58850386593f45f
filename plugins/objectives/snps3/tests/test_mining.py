"""``vtp mine-words``: a table counted by hand, the same bytes whatever happens in between, and what is refused."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from mining import CAPTIONS, GOLDEN, WORDS, fake_spacy, needs_jieba, start, write_captions, write_vocabulary

from vtp.cli.main import main
from vtp_snps3.words import WordTable, read_table


@pytest.fixture
def spacy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A spaCy that knows some words, for this process and those that are started."""
    folder = fake_spacy(tmp_path / "packages")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "spacy", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    yield folder
    sys.modules.pop("spacy", None)


def mined(tmp_path: Path, *options: str, captions: Any = CAPTIONS, vocabulary: Path | None = None) -> WordTable:
    """A table of captions by the fake spaCy."""
    source = write_captions(tmp_path / "captions.jsonl", captions)
    vocabulary = vocabulary or write_vocabulary(tmp_path / "vocab.txt")
    out = tmp_path / "words.json"
    out.unlink(missing_ok=True)
    options = (f"tokenizer={vocabulary}", "tagger=spacy", "lemmas=none", "workers=1", *options)
    assert main(["mine-words", str(source), str(out), *options]) == 0
    return read_table(out)


@pytest.mark.usefixtures("spacy")
def test_a_table_counted_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = mined(tmp_path, "pieces=true")
    assert [(w.ids, w.word, w.total, w.verb, w.noun, w.adj) for w in table.words] == GOLDEN
    assert [w.rank for w in table.words] == list(range(len(GOLDEN)))
    assert [w.lemma for w in table.words] == [word for _, word, *_ in GOLDEN]
    assert (table.tagger, table.language, table.settings["lower"]) == ("spacy", "en", True)
    assert (table.counted["captions"], table.counted["words"]) == (20, WORDS)
    assert table.counted["unknown_words"] == {"distinct": 2, "total": 2}
    said = capsys.readouterr().out
    assert "9 words of 20 captions" in said and "2 words that the tokenizer does not know" in said
    assert not (tmp_path / "words.json.parts").exists()
    capsys.readouterr()
    whole = mined(tmp_path)
    assert [word.word for word in whole.words] == [word for ids, word, *_ in GOLDEN if len(ids) == 1]
    assert whole.counted["split_words"] == {"distinct": 1, "total": 2}
    assert "1 words that the tokenizer splits" in capsys.readouterr().out


@pytest.mark.usefixtures("spacy")
def test_equal_counts_go_by_the_smaller_id(tmp_path: Path) -> None:
    vocabulary = write_vocabulary(tmp_path / "other.txt", "[PAD] [UNK] [CLS] [SEP] [MASK] a the old ball dog red runs")
    table = mined(tmp_path, vocabulary=vocabulary)
    assert [(word.word, word.total) for word in table.words] == [(w, 4) for w in ("old", "ball", "dog", "red", "runs")]


@pytest.mark.usefixtures("spacy")
def test_words_of_a_cased_tokenizer_keep_their_capitals(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "A", "the", "dog", "Dog", "DOG", "red"]
    )}, unk_token="[UNK]"))  # fmt: skip
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    table = mined(tmp_path, vocabulary=tmp_path / "tokenizer.json")
    assert table.settings["lower"] is False
    assert {word.word: word.total for word in table.words} == {"red": 4, "dog": 2, "Dog": 1, "DOG": 1}


@pytest.mark.usefixtures("spacy")
def test_pieces_of_bytes_are_those_inside_a_caption(tmp_path: Path) -> None:
    """Byte-level BPE: a word behind a space is another token than at the beginning."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(
        ["a dog a cat a man plays"] * 9,
        trainers.BpeTrainer(
            vocab_size=300, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
        ),
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    rows = {word.word: word.ids for word in mined(tmp_path, vocabulary=tmp_path / "tokenizer.json").words}
    inside = tokenizer.encode("a giraffe plays with a dog")
    for word in ("giraffe", "plays", "dog"):
        begin = "a giraffe plays with a dog".index(word) - 1  # with the space
        own = [
            i
            for i, (start, end) in zip(inside.ids, inside.offsets, strict=True)
            if start <= begin + len(word) and end > begin
        ]
        assert rows[word] == tuple(own), word
    assert len(rows["dog"]) == 1 < len(rows["giraffe"])
    assert rows["dog"] != tuple(tokenizer.encode("dog").ids)


@needs_jieba
def test_chinese_words_are_all_their_characters(tmp_path: Path) -> None:
    captions = ["一个男人在切洋葱", "女人在切洋葱", "一个小女孩在跳舞"]
    letters = sorted({letter for caption in captions for letter in caption})
    vocabulary = write_vocabulary(tmp_path / "vocab.txt", " ".join(["[PAD] [UNK] [CLS] [SEP] [MASK]", *letters]))
    source, out = write_captions(tmp_path / "captions.jsonl", captions), tmp_path / "words.json"
    assert main(["mine-words", str(source), str(out), "language=zh", f"tokenizer={vocabulary}", "workers=1"]) == 0
    place = {letter: 5 + number for number, letter in enumerate(letters)}
    rows = {word.word: word for word in read_table(out).words}
    assert rows["洋葱"].ids == (place["洋"], place["葱"]) and rows["洋葱"].noun == 2
    assert rows["切"].ids == (place["切"],) and rows["切"].verb == 2
    assert rows["跳舞"].verb == 1 and rows["男人"].noun == 1
    assert not {"在", "一个", "一"} & rows.keys()
    assert rows["洋葱"].same_lemma == ("洋葱",)


@pytest.mark.usefixtures("spacy")
def test_lemmas_by_part_of_speech_and_their_families(tmp_path: Path) -> None:
    """``plays`` is mostly a verb; of the vocabulary, play and played come behind, by id, as no caption has them."""
    pytest.importorskip("lemminflect")
    words = "[PAD] [UNK] [CLS] [SEP] [MASK] a the played dog play plays playe runs dogs"
    vocabulary = write_vocabulary(tmp_path / "vocab.txt", words)
    rows = {w.word: w for w in mined(tmp_path, "lemmas=lemminflect", vocabulary=vocabulary).words}
    assert (rows["plays"].lemma, rows["plays"].same_lemma) == ("play", ("plays", "played", "play"))
    assert (rows["dog"].lemma, rows["dog"].same_lemma) == ("dog", ("dog", "dogs"))


@pytest.mark.usefixtures("spacy")
def test_stop_words_can_be_others(tmp_path: Path) -> None:
    words = {word.word for word in mined(tmp_path, "stop_words=[man]").words}
    assert "man" not in words and {"is", "background"} <= words


@pytest.mark.usefixtures("spacy")
def test_the_words_of_the_captions_can_be_the_vocabulary(tmp_path: Path) -> None:
    table = mined(tmp_path, "tokenizer=texts")
    assert {"dogs", "giraffe"} <= {word.word for word in table.words}
    assert all(len(word.ids) == 1 for word in table.words)


@pytest.mark.usefixtures("spacy")
def test_a_name_on_the_hub_may_have_dots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vtp_encoders import tokenizers

    asked = []

    def named(owner: str, source: str) -> Any:
        asked.append(source)
        return tokenizers.word_pieces(write_vocabulary(tmp_path / "vocab.txt"))

    monkeypatch.setattr(tokenizers, "named_tokenizer", named)
    assert mined(tmp_path, "tokenizer=org/model-1.3b").tokenizer == "org/model-1.3b"
    assert asked == ["org/model-1.3b"]


def many(tmp_path: Path) -> Path:
    """Five chunks of captions, each another one."""
    return write_captions(tmp_path / "many.jsonl", (f"{c} {n}" for n in range(512) for c in CAPTIONS))


def test_the_bytes_are_the_same_with_two_processes_and_after_a_kill(spacy: Path, tmp_path: Path) -> None:
    source, calls = many(tmp_path), tmp_path / "calls"
    options = [f"tokenizer={write_vocabulary(tmp_path / 'vocab.txt')}", "tagger=spacy", "lemmas=none"]
    outs = [tmp_path / f"{name}.json" for name in ("one", "two", "killed")]
    assert main(["mine-words", str(source), str(outs[0]), *options, "workers=1"]) == 0
    assert {w.word: w.total for w in read_table(outs[0]).words}["man"] == 5 * 512
    both = start([str(source), str(outs[1]), *options, "workers=2"], spacy)
    arguments = [str(source), str(outs[2]), *options, "workers=1"]
    killed = start(arguments, spacy, CALLS=str(calls), SLOW="0.2")
    parts = tmp_path / "killed.json.parts"
    while not list(parts.glob("[0-9a-f]*.json")):
        assert killed.poll() is None, killed.communicate()[0].decode()
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert not outs[2].exists()
    kept = len(list(parts.glob("[0-9a-f]*.json")))
    begun = len(calls.read_text().split())
    again = start(arguments, spacy, CALLS=str(calls))
    assert again.wait() == 0, again.communicate()[0].decode()
    again.communicate()
    assert len(calls.read_text().split()) - begun == 5 - kept  # 10,240 captions in chunks of 2,048
    assert both.wait() == 0, both.communicate()[0].decode()
    both.communicate()
    assert outs[0].read_bytes() == outs[1].read_bytes() == outs[2].read_bytes()
    assert not parts.exists()


@pytest.mark.usefixtures("spacy")
def test_a_second_command_leaves_the_table_and_other_options_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mined(tmp_path)
    source, out = tmp_path / "captions.jsonl", tmp_path / "words.json"
    before, changed = out.read_bytes(), out.stat().st_mtime_ns
    options = [f"tokenizer={tmp_path / 'vocab.txt'}", "tagger=spacy", "lemmas=none"]
    assert main(["mine-words", str(source), str(out), *options]) == 0
    assert "was there already" in capsys.readouterr().out
    assert main(["mine-words", str(source), str(out), *options, "stop_words=[cat]"]) == 2
    assert "made with other options: stop_words" in capsys.readouterr().err
    write_vocabulary(tmp_path / "other.txt", "[PAD] [UNK] [CLS] [SEP] [MASK] dog")
    assert main(["mine-words", str(source), str(out), *options, f"tokenizer={tmp_path / 'other.txt'}"]) == 2
    assert "other options: vocabulary" in capsys.readouterr().err
    write_captions(source, CAPTIONS[1:])
    assert main(["mine-words", str(source), str(out), *options]) == 2
    assert "made from other captions" in capsys.readouterr().err
    assert (out.read_bytes(), out.stat().st_mtime_ns) == (before, changed)
    out.write_text("mine")
    assert main(["mine-words", str(source), str(out), *options]) == 2
    assert "no table of words" in capsys.readouterr().err and out.read_text() == "mine"


@pytest.mark.usefixtures("spacy")
def test_two_commands_for_one_table_are_kept_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from vtp.storage import alone

    (tmp_path / "words.json.parts").mkdir()
    source = write_captions(tmp_path / "captions.jsonl")
    options = [f"tokenizer={write_vocabulary(tmp_path / 'vocab.txt')}", "tagger=spacy", "lemmas=none"]
    with alone(tmp_path / "words.json.parts"):
        assert main(["mine-words", str(source), str(tmp_path / "words.json"), *options]) == 2
    assert "another process is writing" in capsys.readouterr().err


@pytest.mark.usefixtures("spacy")
def test_only_the_parts_are_removed(tmp_path: Path) -> None:
    (tmp_path / "words.json.parts").mkdir()
    (tmp_path / "words.json.parts" / "mine.txt").write_text("mine")
    mined(tmp_path)
    assert [file.name for file in (tmp_path / "words.json.parts").iterdir()] == ["mine.txt"]


@pytest.mark.usefixtures("spacy")
@pytest.mark.parametrize("broken", ["", "{", '{"word": []}', '{"man": [1, 2]}', "[1]"])
def test_a_broken_part_is_counted_again(broken: str, tmp_path: Path) -> None:
    from vtp_snps3.mining.counting import How, count_words

    how = How("spacy", True)
    whole = count_words(CAPTIONS, how, tmp_path / "parts")
    (part,) = (tmp_path / "parts").glob("*.json")
    part.write_text(broken)
    assert count_words(CAPTIONS, how, tmp_path / "parts") == whole
    assert json.loads(part.read_text()) == whole.words


def test_a_process_that_is_killed_is_told_of(spacy: Path, tmp_path: Path) -> None:
    (spacy / "spacy" / "__init__.py").write_text("import os\ndef load(name, disable=()):\n    os._exit(9)\n")
    from vtp.errors import RunError
    from vtp_snps3.mining.counting import How, count_words

    captions = (f"{caption} {n}" for n in range(6) for caption in CAPTIONS)
    with pytest.raises(RunError, match="ended on its own.*what was counted is kept"):
        count_words(captions, How("spacy", True, chunk=20), tmp_path / "parts", workers=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["captions.jsonl"], "expected DATASET or FILE, and OUT"),
        (["captions.jsonl", "o.json", "--fast"], "there is no --fast"),
        (["captions.jsonl", "o.json", "language=fr"], "language: expected one of 'en', 'zh'"),
        (["captions.jsonl", "o.json", "language=zh", "tagger=nltk"], "do not go with language=zh"),
        (["captions.jsonl", "o.json", "root=x"], "is a file, and root is for data sets"),
        (["captions.jsonl", "o.json", "tagger=spacy", "lemmas=none", "tokenizer=no/such/vocab.txt"], "no such file"),
        (["nothing", "o.json"], "neither a data set nor a file"),
        (["msvd", "o.json", "split=test"], "training captions alone"),
        (["o.json", "--same-lemma", "x"], "--same-lemma goes with --from-antmmf"),
        (["captions.jsonl", "o.json", "tokeniser=x"], "Did you mean 'tokenizer'?"),
        (["captions.jsonl", "captions.jsonl"], "has the captions"),
        (["captions.jsonl", "/dev/full"], "is no file"),
        (["captions.jsonl", "/proc/o.json"], "no folder can be made there"),
        (["captions.jsonl", "o.json", "lemmas=none", "tagger=spacy", "tokenizer=captions.jsonl"], "of another family"),
        (["empty.csv", "o.json"], "has no captions"),
        (["empty.json", "o.json"], "not JSON"),
        (["ages.csv", "o.json"], "there is no column caption"),
        (["numbers.csv", "o.json"], "no nouns, verbs and adjectives for a table in its 2 captions (the first: '1')"),
        (["captions.jsonl", "o.json", "tokenizer=few.txt"], "but 11 that the tokenizer does not know. Is this"),
        (["o.json", "--from-antmmf", "/dev/zero"], "is no file"),
        (["captions.jsonl", "--from-antmmf", "none.json"], "there is no such file"),
        (["show", "none.json", "picture.jpg"], "the picture is a .png, such as none.png"),
        (["show"], "expected show TABLE"),
        (["show", "none.json"], "there is no file none.json"),
    ],
)
@pytest.mark.usefixtures("spacy")
def test_mistakes_are_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    write_captions(tmp_path / "captions.jsonl")
    write_vocabulary(tmp_path / "few.txt", "[PAD] [UNK] [CLS] [SEP] [MASK] the")
    write_vocabulary(tmp_path / "vocab.txt")
    for name, text in {
        "empty.csv": "",
        "empty.json": "",
        "ages.csv": "id,age\n1,2\n",
        "numbers.csv": "text\n1\n2\n",
    }.items():
        (tmp_path / name).write_text(text)
    before = sorted(tmp_path.iterdir())
    if "--from-antmmf" not in arguments and arguments[0] != "show":
        given = {argument.partition("=")[0] for argument in arguments}
        usual = {"tagger": "spacy", "lemmas": "none", "tokenizer": "vocab.txt"}
        arguments = [*arguments, *(f"{name}={value}" for name, value in usual.items() if name not in given)]
    assert main(["mine-words", *arguments]) == 2
    said = capsys.readouterr().err
    assert message in said, said
    assert said.count("\n") == 1
    left = set(tmp_path.iterdir()) - set(before)
    assert {file.name for file in left} <= ({"o.json.parts"} if "few.txt" in str(arguments) else set())


@pytest.mark.parametrize(
    ("options", "module", "command"),
    [
        (["tagger=nltk"], "nltk", "pip install nltk"),
        (["tagger=spacy"], "spacy", "pip install spacy"),
        (["language=zh"], "jieba", "pip install jieba"),
        (["tagger=spacy", "lemmas=lemminflect"], "lemminflect", "pip install lemminflect"),
    ],
)
def test_what_is_missing_is_named_with_the_command(
    options: list[str], module: str, command: str, spacy: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    source = write_captions(tmp_path / "captions.jsonl")
    assert main(["mine-words", str(source), str(tmp_path / "o.json"), "lemmas=none", *options]) == 2
    said = capsys.readouterr().err
    assert command in said and said.count("\n") == 1


def test_the_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mine-words", "--help"]) == 0
    said = capsys.readouterr().out
    assert "examples:" in said and "vtp mine-words show msvd.json msvd.png" in said
