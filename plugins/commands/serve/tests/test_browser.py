"""The page in a real browser: type a query, see the right clip first, play it from the found second; search by a file;
narrow and wide, without a complaint."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
TOKEN = "a-token-of-tests-0123456789"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# Where to leave screenshots to look at; they are not compared.
SCREENSHOTS = os.environ.get("VTP_SCREENSHOTS", "")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    driver = pytest.importorskip(
        "playwright.sync_api", reason="a browser is driven by playwright: pip install playwright"
    )
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    with driver.sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=found, args=["--no-sandbox", "--disable-gpu"], timeout=180_000
        )
        yield started
        started.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page that collects what the browser complains of, and every address it asks for."""
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    opened.set_default_timeout(120_000)
    opened.complaints, opened.asked = [], []
    opened.on("console", lambda message: opened.complaints.append(message.text))
    opened.on("pageerror", lambda error: opened.complaints.append(str(error)))
    opened.on("request", lambda request: opened.asked.append(request.url))
    yield opened
    opened.close()


def shot(page: Any, name: str) -> None:
    if SCREENSHOTS:
        page.screenshot(path=str(Path(SCREENSHOTS) / f"{name}.png"), full_page=True)


def test_a_query_finds_a_clip_that_plays_from_its_second(site, searches, page):
    page.goto(f"http://127.0.0.1:{site.port}/")
    page.fill("input[name=q]", "two blue stars")
    page.select_option("#search select[name=of]", "video")
    page.click("#search button")
    page.wait_for_selector("#results li")
    (want, *_) = searches[0].find("two blue stars", "text", 1, "video")
    best = page.locator("#results li").first
    assert best.locator("span[title]").get_attribute("title") == want["file"]
    video = best.locator("video")
    before = len(page.asked)
    played = video.evaluate(
        """video => new Promise((done, fail) => {
          video.muted = true;
          video.onerror = () => fail(new Error("it cannot be played: " + video.error.message));
          video.ontimeupdate = () => { if (!video.seeking && video.readyState > 1)
            done([video.currentTime, video.videoWidth, video.duration]); };
          video.play().catch(fail);
        })"""
    )
    assert want["start"] - 0.01 <= played[0] <= want["end"] and played[1] == 32 and abs(played[2] - 4) < 0.3
    assert any("/media/0/" in address for address in page.asked[before:])
    assert all(address.startswith(f"http://127.0.0.1:{site.port}/") for address in page.asked)
    poster = page.evaluate("address => fetch(address).then(answer => answer.status)", video.get_attribute("poster"))
    assert poster == 200
    shot(page, "wide")
    page.set_viewport_size({"width": 360, "height": 740})
    shot(page, "narrow")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.complaints == []


def test_a_sound_is_searched_with(site, tables, page):
    page.goto(f"http://127.0.0.1:{site.port}/")
    page.set_input_files("input[type=file]", str(tables["media"] / "tone.wav"))
    page.click("#upload button")
    page.wait_for_selector("#results li")
    assert page.locator("#results li span[title]").all_text_contents() == ["tone.wav", "tone.wav"]
    assert page.locator("#results audio").count() == 2
    shot(page, "sound")
    assert page.complaints == []


def test_a_file_that_is_none_and_one_that_is_too_large(site, tables, page, tmp_path):
    page.goto(f"http://127.0.0.1:{site.port}/")
    page.click("#upload button")
    assert page.inner_text("#said") == "Choose a file first."
    (tmp_path / "large.mp4").write_bytes(b"\0" * 300_000)
    page.set_input_files("input[type=file]", str(tmp_path / "large.mp4"))
    page.click("#upload button")
    assert "larger than" in page.inner_text("#said")
    page.set_input_files("input[type=file]", str(tables["media"] / "broken.mp4"))
    page.click("#upload button")
    page.wait_for_selector("#results .bad")
    assert "broken.mp4 cannot be used" in page.inner_text("#results")


def test_the_token_is_asked_for_once(searches, serve, page):
    with serve(searches, token=TOKEN, hosts=None) as site:
        page.goto(f"http://127.0.0.1:{site.port}/?q=a")
        page.fill("input[name=token]", "wrong")
        page.press("input[name=token]", "Enter")
        page.wait_for_selector(".bad")
        page.fill("input[name=token]", TOKEN)
        page.press("input[name=token]", "Enter")
        page.fill("input[name=q]", "a")
        page.press("input[name=q]", "Enter")
        page.wait_for_selector("#results li")
        assert not any(TOKEN in address for address in page.asked)


def test_a_model_is_tried_on_a_clip(tried, tables, page):
    with tried() as site:
        page.goto(f"http://127.0.0.1:{site.port}/")
        page.click("button[value=ask]")
        assert page.inner_text("#said") == "Choose a file first."
        page.set_input_files("input[type=file]", str(tables["media"] / "a.mp4"))
        width = page.locator("#preview video").evaluate(
            """video => new Promise((done, fail) => {
              video.onerror = () => fail(new Error("it cannot be played: " + video.error.message));
              if (video.readyState > 0) done(video.videoWidth);
              video.onloadedmetadata = () => done(video.videoWidth);
            })"""
        )
        assert width == 32
        page.click("button[value=ask]")
        assert page.inner_text("#said") == "Type a question first."
        page.fill("input[name=ask]", "what colour is the ball")
        page.press("input[name=ask]", "Enter")
        page.wait_for_selector("#results section")
        assert page.locator("#results h2").all_text_contents() == ["what colour is the ball"]
        assert set(page.locator("#results td:first-child").all_text_contents()) == {"red", "two", "blue"}
        page.click("button[value=caption]")
        page.wait_for_selector("#results section:nth-of-type(2)")
        page.fill("textarea", "a red ball\ntwo blue stars that stand still in the middle\nred")
        page.click("button[value=compare]")
        page.wait_for_selector("#results section:nth-of-type(3)")
        assert page.locator("#results h2").all_text_contents() == ["Compared", "Described", "what colour is the ball"]
        assert page.locator("#results section").first.locator("meter").count() == 3
        shot(page, "model-wide")
        page.set_viewport_size({"width": 360, "height": 740})
        shot(page, "model-narrow")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.complaints == []
        own = f"http://127.0.0.1:{site.port}/"
        assert all(address.startswith((own, f"blob:{own}")) for address in page.asked)
        page.set_input_files("input[type=file]", str(tables["media"] / "tone.wav"))
        page.wait_for_selector("#preview audio")
        assert page.locator("#results section").count() == 0
