"""What the page answers: searches, bytes of indexed files and of nothing else, uploads within bounds."""

from __future__ import annotations

import contextlib
import gc
import html
import os
import re
import socket
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from odd_names import HTML_NAME as NAME


def shown(page: Any) -> list[dict[str, Any]]:
    """The results of a page: score, file, where they are played from."""
    found = re.findall(
        r'<li>.*?(?:src|href)="([^"]*)".*?<b>(.*?)</b> <span title="([^"]*)">(.*?)</span>', str(page), re.DOTALL
    )
    return [
        {"source": s, "score": float(n), "path": html.unescape(p), "name": html.unescape(f)} for s, n, p, f in found
    ]


def test_a_text_finds_what_the_model_finds(site, searches):
    answer, page = site.ask("/?q=two+blue+stars")
    assert answer.status == 200 and 'value="two blue stars"' in page
    want = [r for s in searches for r in s.find("two blue stars", "text", 24)]
    found = shown(page)
    assert [row["path"] for row in found] == [row["file"] for row in want] and len(found) == 6
    assert [row["score"] for row in found] == [round(row["score"], 3) for row in want]
    start, end = want[0]["start"], want[0]["end"]
    assert found[0]["source"].endswith(f"#t={start:.3f},{end:.3f}")
    assert "exact: compared with all of 4 windows" in page and "<h2>Heard</h2>" in page


def test_a_filter_leaves_the_other_modality_out(site):
    assert {row["name"] for row in shown(site.ask("/?q=a&of=audio")[1])} == {"tone.wav"}
    assert {row["name"] for row in shown(site.ask("/?q=a&of=video")[1])} == {"a.mp4", NAME}


@pytest.mark.parametrize("kind", ["", "video"])
def test_a_clip_finds_itself(site, tables, searches, kind):
    answer, page = site.ask(f"/query?name=x.mp4&as={kind}", "POST", (tables["media"] / "a.mp4").read_bytes())
    (best, *_) = searches[0].find(str(tables["media"] / "a.mp4"), "video", 1)
    assert answer.status == 200 and shown(page)[0]["path"] == best["file"]
    assert len(shown(page)) == 4  # of the table of pictures alone


def test_a_sound_finds_itself(site, tables):
    answer, page = site.ask("/query?name=x.wav", "POST", (tables["media"] / "tone.wav").read_bytes())
    assert answer.status == 200 and [row["name"] for row in shown(page)] == ["tone.wav", "tone.wav"]
    assert "<audio controls" in page


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.mark.parametrize("query", ['"><script>alert(1)</script>', "<img src=x onerror=alert(1)>"])
def test_what_comes_from_elsewhere_stays_text(site, query):
    """A query, the name of an indexed file and the name of an upload, each with HTML in it."""
    pages = [site.ask(f"/?q={quote(query)}")[1], site.ask(f"/query?name={quote(query)}", "POST", b"\0" * 500)[1]]
    assert html.escape(query) in pages[0] and html.escape(NAME) in pages[0] and html.escape(query) in pages[1]
    for page in pages:
        tags = Tags()
        tags.feed(page)
        assert not any(name.startswith("on") for _, attributes in tags.found for name in attributes)
        assert len([1 for tag, _ in tags.found if tag == "script"]) <= 1
        places = [value for _, attributes in tags.found for n, value in attributes.items() if n in ("src", "href")]
        assert all(re.fullmatch(r"(media|picture)/\d+/\d+(#t=[\d.,]+)?", place or "") for place in places)


def test_the_policy_allows_the_page_and_nothing_else(site):
    answer, page = site.ask("/")
    rules = dict(rule.split(" ", 1) for rule in answer.getheader("content-security-policy").split("; "))
    assert rules["default-src"] == "'none'" and rules["script-src"].startswith("'sha256-")
    assert "unsafe" not in str(rules) and "http" not in str(rules) and "//" not in page.replace("</", "")
    for name in ("x-content-type-options", "cross-origin-resource-policy", "referrer-policy"):
        assert answer.getheader(name), name
    assert answer.getheader("cache-control") == "no-store"


# -- files -------------------------------------------------------------------------------------------------------------


def first(site: Any) -> str:
    """Where the best clip is played from."""
    return "/" + shown(site.ask("/?q=a&of=video")[1])[0]["source"].partition("#")[0]


def test_bytes_whole_and_in_ranges(site):
    place = first(site)
    path = shown(site.ask("/?q=a&of=video")[1])[0]["path"]
    want = Path(path).read_bytes()
    answer, content = site.ask(place)
    assert (answer.status, answer.getheader("content-type"), content) == (200, "video/mp4", want)
    assert answer.getheader("accept-ranges") == "bytes"
    size = len(want)
    for header, begin, end in (
        ("bytes=0-0", 0, 1), ("bytes=10-19", 10, 20), ("bytes=5-", 5, size), ("bytes=-7", size - 7, size),
        (f"bytes={size - 2}-{size + 50}", size - 2, size), (f"bytes=-{size + 9}", 0, size), ("Bytes = 3 - 4 ", 3, 5),
    ):  # fmt: skip
        answer, content = site.ask(place, Range=header)
        assert answer.status == 206 and content == want[begin:end], header
        assert answer.getheader("content-range") == f"bytes {begin}-{end - 1}/{size}"
        assert int(answer.getheader("content-length")) == end - begin
    for header in ("bytes=4-3", "bytes=a-b", "bytes=0-1,3-4", "frames=0-1", "bytes=-"):
        assert site.ask(place, Range=header)[0].status == 200, header
    for header in (f"bytes={size}-", "bytes=-0", f"bytes={10**18}-"):
        answer, content = site.ask(place, Range=header)
        assert answer.status == 416 and answer.getheader("content-range") == f"bytes */{size}"
    answer, content = site.ask(place, "HEAD", Range="bytes=1-2")
    assert answer.status == 206 and not content and answer.getheader("content-length") == "2"
    assert site.ask(place, Range="bytes=0-0", If_Range='"another"')[0].status == 200


def test_a_member_of_a_tar_file(tables, tmp_path):
    import tarfile

    from vtp.media.member import member_path
    from vtp_serve.media import Bytes

    want = (tables["media"] / "a.mp4").read_bytes()
    with tarfile.open(tmp_path / "x.tar", "w") as file:
        file.add(tables["media"] / "tone.wav", "tone.wav")
        file.add(tables["media"] / "a.mp4", "a.mp4")
    with tarfile.open(tmp_path / "x.tar") as file:
        begin = file.getmember("a.mp4").offset_data
    found = Bytes(member_path(str(tmp_path / "x.tar"), begin, len(want), "a.mp4"))
    assert found.size == len(want) and b"".join(found.pieces(3, 99)) == want[3:100]
    with pytest.raises(ValueError, match="cut off"):
        Bytes(member_path(str(tmp_path / "x.tar"), begin, 10**9, "a.mp4"))
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(ValueError, match="no regular file"):
        Bytes(str(tmp_path / "pipe.mp4"))


def media_open(folder: Path) -> list[str]:
    """Files of a folder that this process has open."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{number}"))
    return [path for path in found if path.startswith(str(folder))]


def test_no_file_is_left_open(site, tables):
    place = first(site)
    for _ in range(5):
        site.ask(place)
        site.ask(place, "HEAD")
        site.ask(place, Range="bytes=99999999-")
        with socket.create_connection(("127.0.0.1", site.port)) as left:  # goes away in the middle
            left.sendall(f"GET {place} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    until = time.monotonic() + 10
    while media_open(tables["media"]) and time.monotonic() < until:
        gc.collect()
        time.sleep(0.05)
    assert media_open(tables["media"]) == []


TRAVERSALS = [
    "/media/../secret.txt", "/media/0/../../secret.txt", "/media/%2e%2e/%2e%2e/secret.txt", "/media/..%2fsecret.txt",
    "/media/0/..%2f..%2fsecret.txt", "/media/0/%2fetc%2fpasswd", "//etc/passwd", "/media//etc/passwd", "/secret.txt",
    "/media/0/0%00.txt", "/media/0/0/../1/secret.txt", "/media/0/-1", "/media/-1/0", "/media/9/0", "/media/0/1e3",
    "/media/0/999", f"/media/0/{2**70}", "/media/0/ 0", "/media/0/٣", "/picture/0/../../etc/passwd", "/picture/0/-1",
    "/media/0/{media}/secret.txt", "/media/{media}/secret.txt", "/media?path={media}/secret.txt", "/media/0/broken.mp4",
]  # fmt: skip


@pytest.mark.parametrize("target", TRAVERSALS)
def test_nothing_is_served_by_a_path(site, tables, target):
    """On the wire as it stands here: a browser would tidy it up."""
    line = target.replace("{media}", str(tables["media"])).replace(" ", "%20")
    with socket.create_connection(("127.0.0.1", site.port), timeout=30) as wire:
        wire.sendall(f"GET {line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: wire.recv(65536), b""))
    status = int(answer.split()[1])
    assert status in (400, 404, 422) and b"not indexed" not in answer and b"root:" not in answer, answer[:300]


def test_a_file_that_is_gone_or_no_file_is_not_found(site, searches, monkeypatch, tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    for path in (tmp_path / "gone.mp4", tmp_path, tmp_path / "pipe.mp4", "x\0y.mp4"):
        monkeypatch.setattr(type(searches[0].table), "row", lambda self, n, p=path: {"file": str(p), "bytes": None})
        assert site.ask("/media/0/0")[0].status == 404


def test_an_indexed_name_that_leads_to_another_file_is_not_found(site, tables):
    place = next(
        "/" + r["source"].partition("#")[0] for r in shown(site.ask("/?q=a&of=video")[1]) if r["name"] == "a.mp4"
    )
    clip, aside = tables["media"] / "a.mp4", tables["media"] / "aside"
    clip.rename(aside)
    try:
        clip.symlink_to(tables["media"] / "secret.txt")
        assert [site.ask(at)[0].status for at in (place, place.replace("media", "picture"))] == [404, 404]
        clip.unlink()
        clip.symlink_to(aside)  # a link to the clip itself is the clip
        assert site.ask(place)[0].status == 200
    finally:
        clip.unlink()
        aside.rename(clip)


def test_pictures_of_windows_are_of_their_middle(site):
    from io import BytesIO

    from PIL import Image

    found = {row["name"] + row["source"]: row for row in shown(site.ask("/?q=a&of=video")[1])}
    lightness = {}
    for row in found.values():
        answer, content = site.ask("/" + row["source"].partition("#")[0].replace("media", "picture"))
        assert answer.status == 200 and answer.getheader("content-type") == "image/jpeg"
        lightness[row["source"].partition("=")[2], row["name"]] = np.asarray(Image.open(BytesIO(content)))[20:].mean()
    # Frames grow lighter by 8 every quarter of a second; the middle of a window is its fourth or fifth.
    assert abs(lightness["0.000,2.000", "a.mp4"] - 32) < 6 and abs(lightness["2.000,4.000", "a.mp4"] - 96) < 6
    sound = "/" + shown(site.ask("/?q=a&of=audio")[1])[0]["source"].partition("#")[0].replace("media", "picture")
    assert site.ask(sound)[0].status == 404


# -- uploads and questions that cannot be ------------------------------------------------------------------------------


def uploads(site_folder: Any = None) -> list[str]:
    import glob
    import tempfile

    return [f for d in glob.glob(f"{tempfile.gettempdir()}/vtp-serve-*") for f in os.listdir(d)]


def test_an_upload_is_bounded_while_it_comes(site):
    answer, said = site.ask("/query?name=a.mp4", "POST", b"x" * 300_000)
    assert answer.status == 413 and "larger than 0 MB" in said
    with socket.create_connection(("127.0.0.1", site.port), timeout=30) as wire:  # without saying how long it is
        wire.sendall(b"POST /query?name=a.mp4 HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        piece, answer = b"1000\r\n" + b"x" * 4096 + b"\r\n", b""
        sent = 0
        try:
            while sent < 100_000_000 and not answer:
                wire.sendall(piece)
                sent += 4096
                wire.settimeout(0.001)
                try:
                    answer = wire.recv(100)
                except TimeoutError:
                    wire.settimeout(30)
        except OSError:  # it has hung up
            pass
    assert sent < 50_000_000 and (not answer or b" 413 " in answer)
    assert uploads() == []


def test_who_goes_away_while_sending_is_no_traceback(serve, searches, capfd):
    with serve(searches, most=200_000) as site:
        for target in ("/query?name=a.mp4", "/login"):
            with socket.create_connection(("127.0.0.1", site.port), timeout=30) as wire:
                wire.sendall(
                    f"POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\n".encode() + b"x"
                )
                time.sleep(0.2)  # it is read by now
        time.sleep(0.2)
        assert site.ask("/")[0].status == 200 and uploads() == []
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("target", "body", "said"),
    [
        ("/query?name=a.mp4", b"", "The file is empty."),
        ("/query?name=a.mp4", b"\0" * 1000, "a.mp4 cannot be used: not a media file"),
        ("/query?name=../../etc/passwd", b"\0" * 1000, "cannot be used"),
        ("/query?name=%00%2f.mp4", b"\0" * 1000, "cannot be used"),
        ("/query", b"\0" * 1000, "The file cannot be used"),
        ("/query?name=a.mp4&as=video&of=audio", b"\0" * 1000, "can be searched with video for what is heard"),
    ],
)
def test_a_query_that_cannot_be_is_a_line(site, target, body, said):
    answer, page = site.ask(target, "POST", body)
    assert answer.status == 400 and said in page and page.startswith('<p class="bad">')
    assert uploads() == []


def test_a_text_that_is_too_long(site):
    answer, page = site.ask(f"/?q={'a' * 1001}")
    assert answer.status == 400 and "A text of 1,001 characters" in page


def test_too_many_at_once_are_told(searches):
    from vtp_serve.access import Access
    from vtp_serve.app import _WAITING, _Served
    from vtp_serve.uploads import Refused

    served = _Served(searches, Access(None), None, None)  # type: ignore[arg-type]
    for _ in range(_WAITING):
        served.turns._places.acquire()
    with pytest.raises(Refused, match="Too many"):
        served.found("a", "text", "", "a")
