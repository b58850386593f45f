"""What pages are made of."""

from __future__ import annotations

import base64
import io
from html.parser import HTMLParser

import numpy as np

from vtp import page


class Reader(HTMLParser):
    """Collects tags, attributes and text, as a browser would find them."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.said: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.said.append(data)


HOSTILE = "<script>alert('1')</script> & \"quoted\" \udcff"


def test_texts_stay_texts_wherever_they_stand():
    parts = [page.heading(HOSTILE), page.paragraph(HOSTILE, "bad"), page.table((HOSTILE,), [(page.text(HOSTILE),)])]
    read = Reader(page.document(HOSTILE, parts))
    assert read.tags.count("script") == 1  # that of the page
    shown = HOSTILE.replace("\udcff", "\\udcff")
    assert [said for said in read.said if "alert" in said] == [shown] * 5


def test_a_page_needs_nothing_from_elsewhere():
    read = Reader(page.document("a", [page.picture(page.jpeg(np.zeros((4, 8, 3), np.uint8)))]))
    names = {name for name, _ in read.attributes}
    assert "href" not in names and "link" not in read.tags
    assert all(str(value).startswith("data:image/jpeg;base64,") for name, value in read.attributes if name == "src")


def test_numbers_sort_by_their_value_and_stand_to_the_right():
    read = Reader(page.table(("name", "count"), [("a", page.number(1234)), ("b",)], numbers=(1,)))
    assert ("data-value", "1234") in read.attributes and "1,234" in read.said
    assert [value for name, value in read.attributes if name == "class"] == ["sortable", "number", "number"]


def test_bars_stay_within_their_width():
    shares = [page.bar(share).partition("calc(")[2].partition(" ")[0] for share in (-1, 0.25, 7, float("nan"))]
    assert shares == ["0.0000", "0.2500", "1.0000", "0.0000"]


def test_a_frame_becomes_a_small_jpeg_of_its_colours():
    from PIL import Image

    frame = np.zeros((90, 300, 3), np.uint8)
    frame[..., 0] = 200
    found = Image.open(io.BytesIO(base64.b64decode(page.jpeg(frame, 100))))
    assert (found.format, found.size) == ("JPEG", (100, 30))
    assert np.abs(np.asarray(found).astype(int) - (200, 0, 0)).max() < 12
    assert page.picture("") == ""
