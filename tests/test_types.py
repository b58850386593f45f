"""Samples and references to media refuse wrong types where they are made."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

from vtp.errors import DataError
from vtp.types import MediaRef, Sample

REF = MediaRef("a.mp4", 0.5, 2.0)


@pytest.mark.parametrize(
    "made, words",
    [
        (
            lambda: Sample("a", texts="a dog"),
            r"Sample 'a': texts='a dog' must be a tuple of strings, of one with a comma.*: \('a dog',\)\.",
        ),
        (lambda: Sample("a", texts=["a dog"]), r"texts=\['a dog'\] must be a tuple of strings"),
        (lambda: Sample("a", texts=("a", 3)), r"texts=\('a', 3\) must be a tuple of strings"),
        (lambda: Sample("a", texts=None), "texts=None must be a tuple of strings"),
        (lambda: Sample(3), "Sample: id=3 must be a string: '3'"),
        (lambda: Sample("a", "a.mp4"), r"video='a.mp4' must be a MediaRef\(path\) or None"),
        (lambda: Sample("a", audio=Path("a.wav")), "audio=PosixPath.* must be a MediaRef"),
        (lambda: Sample("a", labels=["red"]), r"labels=\['red'\] must be a dict, such as {'answer': ...}"),
        (lambda: Sample("a", extra="x"), "extra='x' must be a dict, such as {'category': ...}"),
        (lambda: replace(Sample("a"), texts="a dog"), "texts='a dog' must be a tuple"),
        (lambda: MediaRef(Path("v") / "a.mp4"), "MediaRef: path=PosixPath.* must be the path of a file.*'v/a.mp4'"),
        (lambda: MediaRef(None), "path=None must be the path of a file"),
        (lambda: MediaRef("a", "1"), "start='1' must be a number of seconds or None"),
        (lambda: MediaRef("a", 1.0, True), "end=True must be a number of seconds"),
    ],
)
def test_wrong_types_are_refused_in_one_line(made, words):
    with pytest.raises(DataError, match=words) as error:
        made()
    assert (
        isinstance(error.value, TypeError)
        and str(error.value).startswith(f"{__name__}, line ")
        and "\n" not in str(error.value)
    )


def test_a_long_value_is_cut():
    with pytest.raises(DataError) as error:
        Sample("a", texts="word " * 1000)
    assert len(str(error.value)) < 300


def test_what_is_right_stays_what_it_was():
    sample = Sample("a", REF, None, ("x", "y"), {"answer": 1}, {"video_id": "v"})
    assert sample == Sample(id="a", video=REF, texts=("x", "y"), labels={"answer": 1}, extra={"video_id": "v"})
    assert pickle.loads(pickle.dumps(sample)) == sample and hash(REF) == hash(MediaRef("a.mp4", 0.5, 2.0))
    assert replace(sample, texts=()).texts == () and replace(sample, texts=()).extra == {"video_id": "v"}
    assert repr(REF) == "MediaRef(path='a.mp4', start=0.5, end=2.0)"
    empty = Sample("a")
    assert (empty.texts, empty.labels, empty.extra) == ((), {}, {}) and empty.labels is not Sample("b").labels
    with pytest.raises(AttributeError):
        sample.id = "b"


def test_what_behaves_alike_is_taken():
    class Own(MediaRef):
        pass

    labels = MappingProxyType({"answer": 1})
    assert Sample(np.str_("a"), Own("a"), texts=(np.str_("x"),), labels=labels, extra=OrderedDict()).labels is labels
    assert MediaRef("a", 1, np.float32(2)).end == 2 and MediaRef(b"data").path == b"data"
