from __future__ import annotations

from vtp.data.table import media_id, whole_clip
from vtp.types import MediaRef, Sample


def test_a_clip_is_known_by_its_id_else_its_file_else_the_sample():
    assert media_id(Sample("a", MediaRef("x/y.mp4"), extra={"video_id": 7010})) == "7010"
    assert media_id(Sample("a", MediaRef("x/y.mp4"))) == "y.mp4"
    assert media_id(Sample("a", None, MediaRef("x/y.wav", None, 3.0))) == "y.wav[0-3]"
    assert media_id(Sample("a", MediaRef(b"bytes"))) == media_id(Sample("a")) == "a"


def test_what_is_a_span():
    spans = {"a[0-2.5]": "a", "a[3-]": "a", "a[1e+06-2e+06]": "a", "a[x]": "a[x]", "[1-2]b": "[1-2]b"}
    for name, clip in spans.items():
        assert whole_clip(name) == clip
