from __future__ import annotations

import pytest

from vtp.errors import ConfigError
from vtp.eval.task import carve_validation, media_id, resolve_selection
from vtp.types import MediaRef, Sample


def test_the_selection_rule_defaults_to_validation_where_there_is_some():
    assert resolve_selection(None, True) == "val" and resolve_selection(None, False) == "last"
    assert resolve_selection("last", True) == "last" and resolve_selection("test(!)", False) == "test(!)"


def test_selecting_on_the_test_set_must_be_spelt_out():
    with pytest.raises(ConfigError, match=r"'test\(!\)'"):
        resolve_selection("test", True)
    with pytest.raises(ConfigError, match="must be one of last, val"):
        resolve_selection("best", True)
    with pytest.raises(ConfigError, match="no validation split"):
        resolve_selection("val", False)


def test_carving_never_splits_a_clip_and_does_not_depend_on_the_order():
    samples = [Sample(f"q{i}", texts=("x",), extra={"video_id": f"video{i // 5}"}) for i in range(1000)]
    train, val = carve_validation(samples, 0.2, 0)
    assert not {media_id(s) for s in train} & {media_id(s) for s in val}
    assert len(train) + len(val) == 1000 and 0.12 < len(val) / 1000 < 0.28
    again = carve_validation(samples[::-1] + [Sample("new", extra={"video_id": "new"})], 0.2, 0)[1]
    assert {s.id for s in again} - {"new"} == {s.id for s in val}
    assert {s.id for s in carve_validation(samples, 0.2, 1)[1]} != {s.id for s in val}


def test_a_clip_is_known_by_its_id_else_its_file_else_the_sample():
    assert media_id(Sample("a", MediaRef("x/y.mp4"), extra={"video_id": 7010})) == "7010"
    assert media_id(Sample("a", MediaRef("x/y.mp4"))) == "y.mp4"
    assert media_id(Sample("a", None, MediaRef("x/y.wav", None, 3.0))) == "y.wav[0-3]"
    assert media_id(Sample("a", MediaRef(b"bytes"))) == media_id(Sample("a")) == "a"
