"""Counts by NLTK are those of its own loop over captions, and tables of AntMMF are converted and shown."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from mining import DATA, msvd_captions, needs_jieba, straightforward, use_nltk_data, write_vocabulary

from vtp.cli.main import main
from vtp.errors import ConfigError
from vtp_snps3.mining.counting import How, count_words
from vtp_snps3.mining.perceptron import Perceptron
from vtp_snps3.mining.released import convert
from vtp_snps3.mining.rows import lemmatizer
from vtp_snps3.mining.show import coverage, first_words
from vtp_snps3.mining.taggers import Tokens
from vtp_snps3.words import Word, WordTable, read_table, save_table

WEBVID = DATA / "annotations" / "webvid"
ODD = [
    "I cannot do it, gonna try.", "a red-hot ball -- it rolls...", "He's 3,000 m away (or 1999) .", "don't!", "",
    "Two  spaces", "a, b,c, d", "x.", "..", "wanna", "so wanna dance", "-START- of -END-", "1990 a 12th b-c -d",
    "Ünder\ttab", "lemme see", "Gonna go", "so-gonna", "it cannot.", "cannot, he",
    "a man 's dog", "The 'quoted' \"words\"", "end, ", "more'n that, 'tis",
]  # fmt: skip


@pytest.fixture
def nltk(monkeypatch: pytest.MonkeyPatch) -> Any:
    return use_nltk_data(monkeypatch)


@pytest.mark.parametrize("count", [60, pytest.param(None, marks=pytest.mark.slow)])
def test_words_and_tags_are_those_of_nltk(count: int | None, nltk: Any) -> None:
    texts = [*ODD, *msvd_captions(count)]
    cut, tagger = nltk.tokenize.TreebankWordTokenizer(), nltk.tag.perceptron.PerceptronTagger(lang="eng")
    want = [cut.tokenize(text) for text in texts]
    assert list(map(Tokens(), texts)) == want
    ours = Perceptron(tagger.model.weights, tagger.tagdict, tagger.classes)
    words = [word for caption in want for word in caption]
    tags = ours.tag(words, np.array(list(map(len, want))))
    assert [ours.classes[tag] for tag in tags] == [tag for caption in want for _, tag in tagger.tag(caption)]
    assert ours.names(want[0]) == [tag for _, tag in tagger.tag(want[0])]


def test_of_equal_scores_the_last_tag_of_the_alphabet_is_taken() -> None:
    weights = {"bias": {"DT": 1.0, "NN": 1.0, "JJ": 0.5}, "i word dog": {"DT": -1.0}}
    ours = Perceptron(weights, {"red": "JJ"}, ["NN", "JJ", "VB", "DT"])
    assert ours.names(["a", "dog", "red"]) == ["NN", "NN", "JJ"]
    assert Perceptron({}, {}, ["NN", "VB", "DT"]).names(["a"]) == ["VB"]


@pytest.mark.parametrize(
    ("feature", "places"),
    [
        ("i suffix hot", [1]), ("i suffix Dog", [3]), ("i pref1 B", [0]),
        ("i word big", [0]), ("i word !HYPHEN", [1]), ("i word !YEAR", [2]), ("i word !DIGITS", [4]),
        ("i-1 word -START2-", [0]), ("i-1 word !HYPHEN", [2]), ("i-1 suffix HEN", [2]), ("i-1 suffix dog", [4]),
        ("i-2 word -START-", [0]), ("i-2 word -START2-", [1]), ("i-2 word !YEAR", [4]),
        ("i+1 word dog", [2]), ("i+1 word -END-", [4]), ("i+1 suffix HEN", [0]), ("i+2 word !YEAR", [0]),
        ("i+2 word -END-", [3]), ("i+2 word -END2-", [4]),
        ("i-1 tag -START-", [0]), ("i-2 tag -START2-", [0]), ("i-2 tag -START-", [1]), ("i-1 tag A", [1, 3]),
        ("i tag+i-2 tag -START- -START2-", [0]), ("i tag+i-2 tag A -START-", [1]), ("i tag+i-2 tag A A", [2]),
        ("i-1 tag+i word -START- big", [0]), ("i-1 tag+i word A !HYPHEN", [1]), ("i-1 tag+i word B !HYPHEN", []),
    ],
)  # fmt: skip
def test_a_feature_is_of_its_place(feature: str, places: list[int]) -> None:
    """All words are A but where the feature is: the names are those of the perceptron's data."""
    words = ["Big", "red-hot", "1999", "Dog", "12th"]
    ours = Perceptron({"bias": {"A": 0.5}, feature: {"X": 1.0}}, {}, ["A", "B", "X"])
    assert [place for place, tag in enumerate(ours.names(words)) if tag == "X"] == places
    # The same in a batch, between longer and shorter texts
    tags = ours.tag(["a", *words, "a", "b", "c", "d", "e", "f"], np.array([1, 5, 6]))[1:6]
    assert [place for place, tag in enumerate(tags) if ours.classes[tag] == "X"] == places


def test_words_are_tagged_the_same_when_others_are_forgotten(nltk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vtp_snps3.mining.perceptron._MOST", 10)
    tagger = nltk.tag.perceptron.PerceptronTagger(lang="eng")
    ours = Perceptron(tagger.model.weights, tagger.tagdict, tagger.classes)
    for text in ODD * 2:
        assert ours.names(text.split()) == [tag for _, tag in tagger.tag(text.split())]


@pytest.mark.parametrize("count", [300, pytest.param(None, marks=pytest.mark.slow)])
def test_counts_are_those_of_the_straightforward_loop(count: int | None, nltk: Any, tmp_path: Path) -> None:
    texts = [*ODD, *msvd_captions(count)]
    texts += texts[:50]
    found = count_words(texts, How("nltk", True, chunk=100 if count else 0), tmp_path)
    assert {word: list(row) for word, row in found.words.items()} == straightforward(nltk, texts)
    assert found.captions == len(texts)


@pytest.mark.usefixtures("nltk")
def test_missing_data_of_nltk_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    monkeypatch.setattr("nltk.data.path", [])
    (tmp_path / "a.csv").write_text("caption\na dog\n")
    assert main(["mine-words", str(tmp_path / "a.csv"), str(tmp_path / "o.json"), "tokenizer=texts"]) == 2
    said = capsys.readouterr().err
    assert "python -m nltk.downloader averaged_perceptron_tagger_eng" in said and said.count("\n") == 1


@needs_jieba
@pytest.mark.slow
def test_the_chinese_captions_of_msvd(tmp_path: Path) -> None:
    """All 11,758: words of several characters have all of them, and twice gives the same bytes."""
    source = DATA / "annotations" / "msvd_cn" / "msvd_cn_captions_release_utf8.csv"
    if not source.is_file():
        pytest.skip("needs ../shared/data/annotations/msvd_cn, beside the repository")
    letters = sorted({letter for letter in source.read_text(encoding="utf-8-sig") if letter >= "\u2e80"})
    vocabulary = write_vocabulary(tmp_path / "vocab.txt", " ".join(["[PAD] [UNK] [CLS] [SEP] [MASK]", *letters]))
    for out, workers in (("one.json", 1), ("two.json", 2)):
        options = ["language=zh", f"tokenizer={vocabulary}", f"workers={workers}"]
        assert main(["mine-words", str(source), str(tmp_path / out), *options]) == 0
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    table = read_table(tmp_path / "one.json")
    assert table.counted["captions"] == 11758
    place = {letter: 5 + number for number, letter in enumerate(letters)}
    chinese = [word for word in table.words if all(letter in place for letter in word.word)]
    assert len(chinese) > 4000
    assert all(word.ids == tuple(place[letter] for letter in word.word) for word in chinese)
    assert {"人", "男人", "女人"} <= {word.word for word in first_words(table, "noun", 12)}
    assert {"切", "跳舞", "吃"} <= {word.word for word in first_words(table, "verb", 12)}


# -- lemmas ------------------------------------------------------------------------------------------------------------


def test_lemmas_of_each_source(monkeypatch: pytest.MonkeyPatch) -> None:
    from vtp_snps3.mining import rows

    assert lemmatizer("none", "it")[0]("dogs") == {}
    pytest.importorskip("lemminflect")
    lemma, version = lemmatizer("lemminflect", "it")
    assert (lemma("cutting"), lemma("Leaves")["verb"], lemma("slicing")) == (
        {"verb": "cut", "noun": "cutting"}, "leave", {"verb": "slice"},
    )  # fmt: skip
    assert version.startswith("lemminflect 0.")
    known = {("leaves", "v"): "leave", ("leaves", "n"): "leaf"}
    wordnet = SimpleNamespace(morphy=lambda word, part: known.get((word, part)))
    monkeypatch.setattr(rows, "nltk_with", lambda *names: SimpleNamespace(corpus=SimpleNamespace(wordnet=wordnet)))
    monkeypatch.setattr(rows, "_version", lambda *names: "1")
    assert lemmatizer("wordnet", "it")[0]("Leaves") == {"verb": "leave", "noun": "leaf"}


def test_simplemma_knows_one_lemma() -> None:
    pytest.importorskip("simplemma")
    assert lemmatizer("simplemma", "it")[0]("Dogs") == dict.fromkeys(("verb", "noun", "adj"), "dog")


def test_missing_data_of_wordnet_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nltk")
    monkeypatch.setattr("nltk.data.path", [])
    with pytest.raises(ConfigError, match="python -m nltk.downloader wordnet"):
        lemmatizer("wordnet", "it")


# -- tables of AntMMF --------------------------------------------------------------------------------------------------


def test_the_released_table_has_its_significant_words(tmp_path: Path) -> None:
    """3,002 ids have a rank of at most 3000 in the file, and at least 752 occurrences."""
    if not WEBVID.is_dir():
        pytest.skip("needs ../shared/data/annotations/webvid, beside the repository")
    file, lists = WEBVID / "count_reprocess_webvid.json", WEBVID / "vocab_simi_list_new.json"
    out = tmp_path / "webvid.json"
    assert main(["mine-words", str(out), "--from-antmmf", str(file), "--same-lemma", str(lists)]) == 0
    table = read_table(out)
    content = json.loads(file.read_text())
    want = {i for i, rank in zip(content["id"], content["rank"], strict=True) if rank <= 3000}
    found = table.significant(3000, released=True)
    assert len(found) == len(want) == 3002
    assert {word.ids[0] for word in found} == want
    assert min(word.total for word in found) == 752
    assert len(table.significant(3000)) == 3000
    assert [(word.word, word.total) for word in table.words[:3]] == [
        ("view", 228105), ("woman", 171797), ("motion", 166901),
    ]  # fmt: skip
    man = next(word for word in table.words if word.word == "man")
    assert man.same_lemma == ("man", "men", "manning", "manned", "mans") or set(man.same_lemma) == {
        "man", "men", "manning", "manned", "mans",
    }  # fmt: skip
    assert sum(word.total for word in table.words) == 17_227_269


def released(tmp_path: Path, **changes: Any) -> Path:
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "dog", "runs", "cat"]
    content: dict[str, Any] = {"id": list(range(8)), "name": names, "total_count": [0, 0, 0, 0, 0, 4, 9, 4]}
    content |= {"verb_count": [0] * 6 + [9, 0], "noun_count": [0] * 5 + [4, 0, 4], "adj_count": [0] * 8}
    file = tmp_path / "count.json"
    file.write_text(json.dumps(content | changes))
    return file


def test_a_small_released_table(tmp_path: Path) -> None:
    lists = tmp_path / "lists.json"
    lists.write_text(json.dumps([[]] * 6 + [["runs", "run"], []]))
    table = convert(released(tmp_path), lists)
    assert table.words == (
        Word((6,), "runs", "runs", 9, 9, 0, 0, 0, ("runs", "run")),
        Word((5,), "dog", "dog", 4, 0, 4, 0, 1),
        Word((7,), "cat", "cat", 4, 0, 4, 0, 2),
    )


def test_what_is_no_released_table_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def convert_it(file: Path, *more: str) -> str:
        assert main(["mine-words", str(tmp_path / "o.json"), "--from-antmmf", str(file), *more]) == 2
        return capsys.readouterr().err

    assert "no such file" in convert_it(tmp_path / "none.json")
    assert "no table of counts of AntMMF" in convert_it(released(tmp_path, total_count=[1]))
    assert "the counts of id 0" in convert_it(released(tmp_path, total_count=["x"] * 8))
    infinite = convert_it(released(tmp_path, total_count=[float("inf")] * 8))
    assert "the counts of id 0 ('[PAD]') are no numbers" in infinite
    assert "a count of id 6 ('runs') is less than 0" in convert_it(released(tmp_path, verb_count=[0] * 6 + [-1, 0]))
    assert "the name of id 7 is 7, and no word" in convert_it(
        released(tmp_path, name=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "dog", "runs", 7])
    )
    assert "no vocabulary of BERT: [MASK]" in convert_it(
        released(tmp_path, name=["w0", "w1", "w2", "w3", "[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    )
    (tmp_path / "lists.json").write_text("[[]]")
    assert "no list of 8 lists" in convert_it(released(tmp_path), "--same-lemma", str(tmp_path / "lists.json"))
    vocabulary = write_vocabulary(tmp_path / "vocab.txt", "[PAD] [UNK] [CLS] [SEP] [MASK] cat dog")
    assert "for another vocabulary" in convert_it(released(tmp_path), f"tokenizer={vocabulary}")
    assert not (tmp_path / "o.json").exists()


# -- show --------------------------------------------------------------------------------------------------------------


def shown(tmp_path: Path, **counted: int) -> Path:
    words = (
        Word((7,), "dog", "dog", 6, 1, 5, 0, 0),
        Word((8,), "play", "play", 4, 2, 2, 0, 1),
        Word((9,), "red", "red", 2, 0, 0, 2, 2),
    )
    save_table(WordTable("texts", "0", "0", "nltk", "en", {}, words, counted), tmp_path / "words.json")
    return tmp_path / "words.json"


def test_coverage_and_first_words(tmp_path: Path) -> None:
    table = read_table(shown(tmp_path, words=20, captions=7))
    assert coverage(table)[0] == [30, 50, 60]
    assert coverage(read_table(shown(tmp_path)))[0] == [50, pytest.approx(250 / 3), 100]
    assert [[w.word for w in first_words(table, part, 9)] for part in ("noun", "verb", "adj")] == [
        ["dog"], ["play"], ["red"],
    ]  # fmt: skip


def test_show_prints_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "pictures" / "words.png"
    assert main(["mine-words", "show", str(shown(tmp_path, words=20, captions=7)), str(out), "top=2"]) == 0
    said = capsys.readouterr().out
    assert "3 words of 7 captions for texts" in said and "dog" in said and "3 words 60.0 %" in said
    assert out.read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_the_command_is_named(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    for name in ("matplotlib", "matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    assert main(["mine-words", "show", str(shown(tmp_path)), str(tmp_path / "a.png")]) == 2
    said = capsys.readouterr().err
    assert "pip install matplotlib" in said and said.count("\n") == 1
