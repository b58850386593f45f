from __future__ import annotations

import pytest

from vtp.data.table import media_id
from vtp.errors import ConfigError
from vtp.eval.task import carve_validation, resolve_selection
from vtp.spans import whole_clip
from vtp.types import Sample


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


def test_held_out_rows_of_a_big_table_are_views():
    names = [f"clip{n % 700}" for n in range(2000)]

    class Table:
        def __init__(self, rows):
            self.rows = rows

        def __len__(self):
            return len(self.rows)

        def __iter__(self):
            raise AssertionError("samples were made")

        def video_ids(self):
            return (names[row] for row in self.rows)

        def select(self, rows):
            return Table([self.rows[row] for row in rows])

    train, val = carve_validation(Table(range(2000)), 0.2, 0)
    samples = [Sample(str(n), extra={"video_id": name}) for n, name in enumerate(names)]
    expected = carve_validation(samples, 0.2, 0)
    assert [list(part.rows) for part in (train, val)] == [[int(s.id) for s in part] for part in expected]
    assert 0 < len(val) < len(train)


def test_spans_of_one_clip_are_held_out_together():
    samples = [Sample(f"{n}.{k}", extra={"video_id": f"{n}.mp4[{k}-{k + 1}.5]"}) for n in range(100) for k in range(5)]
    train, val = carve_validation(samples, 0.3, 0)
    clips = [{whole_clip(media_id(s)) for s in part} for part in (train, val)]
    assert not clips[0] & clips[1] and len(clips[0] | clips[1]) == 100 and 10 < len(clips[1]) < 50
