"""Search at work, from nothing: train on generated clips, embed the test clips, ask for them. `make demo-search`.

    python3 tools/demo_search.py [--size small] [--steps 300] [--work outputs/demo-search]

1. `vtp run`: one dual model with two spaces, clips by texts (vtc) and sounds by texts (atc), on dataset=shapes
2. `vtp embed` of the test clips, twice: what is seen, in the space of vtc, and what is heard, in that of atc
3. Ten captions, evenly chosen: does the right clip stand among the first three? Ten sounds, told in words and played:
   has the first clip that is found (another one than is played) the same timbre and rhythm?
4. `vtp serve`, opened in a headless Chromium through playwright where both are at hand, and asked one of the captions

Wanted are 9 of 10 each, and that the page shows what the table finds. Exit code: 0 reached, 1 not, 2 a library is
missing. Training that was interrupted goes on where it was; what is finished is not repeated.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NEEDS = ("lancedb", "fastapi", "uvicorn")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
MODEL = ["task=msrvtt_retrieval", "model=dual", "encoder/audio=tiny", "encoder.audio.depth=1", "objective=[vtc,atc]"]
# Small batches: what is wanted is a good order of 200 clips after few clips seen. A caption that names everything has
# more than the 32 tokens that encoder/text=tiny keeps.
SETTINGS = ["train.global_batch=64", "encoder.text.max_length=48", "train.eval_every=0"]
ASKED, FIRST, WANTED = 10, 3, 0.9
HEARD = re.compile(r"^a (\w+) with a (\w+) rhythm")  # the caption of a clip that is about its sound alone


@dataclass(frozen=True, slots=True)
class Clip:
    """A test clip.

    Attributes:
        caption: that names everything.
        words: the caption about its sound.
        sound: timbre and rhythm; None for a clip without sound.
    """

    file: Path
    caption: str
    words: str
    sound: tuple[str, ...] | None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="small", choices=("tiny", "small", "medium"), help="of dataset=shapes")
    parser.add_argument("--steps", type=int, default=300, help="of training (%(default)s)")
    parser.add_argument("--work", type=Path, default=Path("outputs/demo-search"), help="where it goes (%(default)s)")
    options = parser.parse_args()
    if missing := [name for name in NEEDS if importlib.util.find_spec(name) is None]:
        print(f"[demo-search] {', '.join(missing)} missing: {sys.executable} -m pip install {' '.join(missing)}")
        return 2
    work = options.work / f"{options.size}-{options.steps}"
    say(f"1/4 training {options.steps} steps on generated clips, a few minutes on two cores")
    run = train(work / "model", options.size, options.steps)
    clips = test_clips(options.size)
    say(f"2/4 embedding {len(clips)} test clips")
    tables = [
        embed(work / name, run, space, options.size, clips) for name, space in (("seen", "vtc"), ("heard", "atc"))
    ]
    say("3/4 asking")
    seen, heard = searches(tables, run)
    reached = [captions(seen, clips), *sounds(heard, clips)]
    say("4/4 the page")
    reached.append(page(tables, seen, clips[0].caption))
    print(f"look yourself: {Path(sys.executable).parent / 'vtp'} serve {' '.join(map(str, tables))}")
    print(f"  and ask, for example: {clips[0].caption}")
    return 0 if all(reached) else 1


def say(text: str) -> None:
    print(f"[demo-search] {text}", flush=True)


def vtp(*arguments: str) -> None:
    """
    Raises:
        SystemExit: it failed, and has said why.
    """
    if code := subprocess.run([sys.executable, "-m", "vtp", *arguments], check=False).returncode:
        raise SystemExit(code)


def train(run: Path, size: str, steps: int) -> Path:
    """The folder of the run, which is not repeated once it is finished."""
    if not (run / "report.json").is_file():
        of_this = ["dataset=shapes", f"dataset.size={size}", f"train.steps={steps}", f"run_dir={run}"]
        vtp("run", *MODEL, *SETTINGS, *of_this, "resume=auto" if run.exists() else "resume=null")
    return run


def test_clips(size: str) -> list[Clip]:
    """In the order of the official list."""
    from vtp_datasets.shapes import Shapes

    root = Shapes(size=size).root
    told: dict[str, list[str]] = {}
    for row in json.loads((root / "MSRVTT_data.json").read_text(encoding="utf-8"))["sentences"]:
        told.setdefault(row["video_id"], []).append(row["caption"])
    with (root / "MSRVTT_JSFUSION_test.csv").open(encoding="utf-8", newline="") as file:
        names = [(row["video_id"], row["sentence"]) for row in csv.DictReader(file)]
    clips = []
    for name, sentence in names:
        of_sound = next(((text, found) for text in told[name] if (found := HEARD.match(text))), None)
        words, sound = ("", None) if of_sound is None else (of_sound[0], of_sound[1].groups())
        clips.append(Clip(root / "videos" / f"{name}.mp4", sentence, words, sound))
    return clips


def embed(table: Path, run: Path, space: str, size: str, clips: Sequence[Clip]) -> Path:
    """A table of the test clips, a row for each. One that another model made gives way."""
    made, of = table.parent / f"{table.name}.model", (run / "report.json").read_text(encoding="utf-8")
    if table.exists() and not (made.is_file() and made.read_text(encoding="utf-8") == of):
        shutil.rmtree(table)
    made.write_text(of, encoding="utf-8")
    silent = sum(clip.sound is None for clip in clips) if space == "atc" else 0
    how = ["--model", str(run), "--objective", space, "--window", "0", "--accept", str(silent)]
    vtp("embed", "shapes", str(table), f"size={size}", "split=test", *how)
    return table


def searches(tables: Sequence[Path], run: Path) -> list[Any]:
    from vtp.use.loading import load
    from vtp.use.search import Search
    from vtp.use.table import Table

    model = load(str(run), workers=0)
    return [Search(str(table), Table.open(str(table)), model) for table in tables]


def evenly(clips: Sequence[Clip]) -> list[Clip]:
    """Ten of them, or all where there are fewer."""
    count = min(ASKED, len(clips))
    return [clips[place * len(clips) // count] for place in range(count)]


def captions(seen: Any, clips: Sequence[Clip]) -> bool:
    """How often does the right clip stand among the first three?"""

    def asked(clip: Clip) -> tuple[str, bool]:
        files = [Path(row["file"]).name for row in seen.find(clip.caption, "text", FIRST)]
        return f"{clip.file.name} for {clip.caption!r}: {', '.join(files)}", clip.file.name in files

    return count(f"captions find their clip among the first {FIRST}", evenly(clips), asked)


def sounds(heard: Any, clips: Sequence[Clip]) -> list[bool]:
    """How often has the first clip that is found the sound that was told in words, or played?"""
    by_file = {clip.file.name: clip for clip in clips}

    def first(clip: Clip, asked: str, rows: Sequence[dict[str, Any]]) -> tuple[str, bool]:
        names = [name for row in rows if (name := Path(row["file"]).name) != clip.file.name or asked == clip.words]
        found = by_file[names[0]]
        return f"{asked!r}: {found.file.name}, {found.words!r}", found.sound == clip.sound

    def told(clip: Clip) -> tuple[str, bool]:
        return first(clip, clip.words, heard.find(clip.words, "text", 1))

    def played(clip: Clip) -> tuple[str, bool]:
        return first(clip, f"the sound of {clip.file.name}, {clip.words}", heard.find(str(clip.file), "audio", 2))

    chosen = evenly([clip for clip in clips if clip.sound is not None])
    return [
        count("sounds that are told in words find a clip that has them", chosen, told),
        count("sounds that are played find another clip that has them", chosen, played),
    ]


def count(what: str, chosen: Sequence[Clip], asked: Callable[[Clip], tuple[str, bool]]) -> bool:
    """Ask for each, print what is found, and whether that is often enough."""
    right = 0
    for clip in chosen:
        line, is_right = asked(clip)
        right += is_right
        print(f"  {'right' if is_right else 'WRONG'}  {line}", flush=True)
    reached = right >= WANTED * len(chosen)
    say(f"{right} of {len(chosen)} {what}; wanted: {WANTED * ASKED:.0f} of {ASKED}{'' if reached else ', NOT REACHED'}")
    return reached


def page(tables: Sequence[Path], seen: Any, caption: str) -> bool:
    """Does the page, in a browser, show first what the table finds first? True where there is no browser to ask."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None or importlib.util.find_spec("playwright") is None:
        say("there is no headless browser (Debian's chromium, and pip install playwright): the page is not tried")
        return True
    from playwright.sync_api import sync_playwright

    (want,) = seen.find(caption, "text", 1)
    command = [sys.executable, "-m", "vtp", "serve", *map(str, tables), "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        address = served(server)
        with sync_playwright() as driver:
            # Chromium has no sandbox as root; what it opens here is a page of this machine.
            browser = driver.chromium.launch(
                executable_path=program, args=["--no-sandbox", "--disable-gpu"], timeout=180_000
            )
            tab = browser.new_page()
            tab.set_default_timeout(120_000)
            tab.goto(address)
            tab.fill("input[name=q]", caption)
            tab.click("#search button")
            tab.wait_for_selector("#results li")
            shown = tab.locator("#results li span[title]").first.get_attribute("title")
            browser.close()
    finally:
        server.kill()  # not asked to end: it would tell of every picture that it was still drawing
        server.wait()
    same: bool = shown == want["file"]
    say(
        f"in {Path(program).name}, {address} shows first {Path(shown or '').name}, the search found "
        f"{Path(want['file']).name}{'' if same else ': NOT THE SAME'}"
    )
    return same


def served(server: subprocess.Popen[str], seconds: float = 120) -> str:
    """The address that `vtp serve` prints.

    Raises:
        SystemExit: it ended, or said nothing for so long.
    """
    assert server.stdout is not None
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0 and select.select([server.stdout], [], [], left)[0]:
        line = server.stdout.readline()
        if found := re.search(r"http://\S+", line):
            return found[0]
        if not line:
            break
    raise SystemExit(f"vtp serve said no address within {seconds:.0f} s, or ended; its message is above.")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        say("interrupted; the next call goes on from the last checkpoint")
        sys.exit(130)
