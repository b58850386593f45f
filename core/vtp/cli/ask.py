"""``vtp ask VIDEO QUESTION --model RUN`` and ``vtp caption VIDEO --model RUN``."""

from __future__ import annotations

import argparse

from vtp.cli.arguments import Parser, a, place, words
from vtp.ranges import Count
from vtp.shown import one_line

__all__ = ["main"]

ASK = """Answer a question about a video with one of the answers that the model knows, likeliest first:

  vtp ask clip.mp4 "what colour is the ball" --model outputs/DATE/TIME"""

CAPTION = """Write a sentence about a video:

  vtp caption clip.mp4 --model outputs/DATE/TIME"""


def main(arguments: list[str]) -> int:
    """Print the answers, or the sentence; the first argument is the command."""
    command, *rest = arguments
    asking = command == "ask"
    parser = Parser(
        prog=f"vtp {command}",
        description=ASK if asking else CAPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("video", metavar="VIDEO", type=place, help="a file, with sound alone where the model hears")
    if asking:
        parser.add_argument("question", metavar="QUESTION", type=words, help="a text")
        parser.add_argument("--top", type=a(Count), default=3, help="answers (%(default)s)")
    else:
        parser.add_argument("--beams", type=a(Count), default=5, help="width of the search, 1: greedy (%(default)s)")
    parser.add_argument("--model", type=place, required=True, help="what vtp.load takes: a run, a folder, a name")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (%(default)s)")
    parsed = parser.parse_args(rest)
    from vtp.use.loading import load

    model = load(parsed.model, device=parsed.device, workers=0)
    if asking:
        for text, probability in model.answer(parsed.video, parsed.question, top=parsed.top).ranking:
            print(one_line(f"{probability:.3f}  {text}"))
    else:
        print(one_line(model.caption(parsed.video, beams=parsed.beams)))
    return 0
