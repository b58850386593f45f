"""The model card: README.md of a saved model, made of what its checkpoint knows and of nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from vtp import __version__
from vtp.shown import printable
from vtp.types import AudioSpec, TextSpec, VideoSpec

if TYPE_CHECKING:
    from vtp.use.model import Model

__all__ = ["model_card"]

_SHORT = 16  # digits of a hash that are shown; provenance.json has all


def model_card(model: Model, name: str) -> str:
    """Markdown with the head that the hub reads.

    Args:
        model: whose card it is.
        name: what it is called: a folder, or ``organisation/name``.
    """
    lines = ["---", "library_name: vtp", "tags:", "- vtp", *(f"- {m}" for m in model.modalities), "---", ""]
    lines += [f"# {_cell(name)}", "", *_made_of(model), "", *_use(model, name), "", *_trained(model), ""]
    lines += [*_measured(model), "", *_limits(model), ""]
    return "\n".join(map(printable, lines))


def _made_of(model: Model) -> Iterator[str]:
    spec = model.module.spec
    parameters = sum(tensor.numel() for tensor in model.module.parameters())
    yield f"{parameters:,} parameters, fingerprint `{model.fingerprint[:_SHORT]}`, written by vtp {__version__}."
    yield ""
    yield "| slot | encoder | input |"
    yield "|---|---|---|"
    shown = model.module.specs()
    for slot, options in (spec.get("encoders") or {}).items():
        if (options or {}).get("name"):
            source = options.get("model")
            encoder = f"{options['name']} ({source})" if source else options["name"]
            yield f"| {slot} | {_cell(encoder)} | {_input(shown.get(slot))} |"
    yield ""
    yield f"Objectives: {', '.join(spec.get('objectives') or {}) or 'none'}."


def _input(spec: Any) -> str:
    if isinstance(spec, VideoSpec):
        return f"{spec.frames} frames of {spec.size} x {spec.size} pixels"
    if isinstance(spec, AudioSpec):
        return f"{spec.seconds:g} s at {spec.sample_rate:,} Hz"
    return f"{spec.max_length} tokens" if isinstance(spec, TextSpec) else "tokens of the others"


def _use(model: Model, name: str) -> Iterator[str]:
    yield "## Use"
    yield ""
    yield "```python"
    yield "import vtp"
    yield f'model = vtp.load("{name}")'
    if {"video", "text"} <= {*model.embeds}:
        yield 'found = model.encode(videos=["a.mp4"], texts=["a dog runs"])'
        yield "print(model.similarity(found.texts, found.videos))"
    elif model.embeds:
        listed = ", ".join(f"{m}s=[...]" for m in model.embeds)
        yield f"found = model.encode({listed})"
    medium = "a.mp4" if "video" in model.modalities else "a.wav"
    if "answer" in model.tasks:
        yield f'print(model.answer("{medium}", "what is it").text)'
    if "caption" in model.tasks:
        yield f'print(model.caption("{medium}"))'
    yield "```"


def _trained(model: Model) -> Iterator[str]:
    yield "## Training data"
    yield ""
    stages = model.provenance.get("stages") or []
    if not stages:
        yield "Nothing was trained by vtp: weights are those that the encoders come with, or random."
        return
    yield "| stage | data set | list | samples | clips | sha256 of the list |"
    yield "|---|---|---|---|---|---|"
    for stage in stages:
        known = [stage.get(key) for key in ("stage", "dataset", "list", "samples", "clips")]
        digest = str(stage.get("sha256") or "not recorded")
        yield "| " + " | ".join([*map(_cell, known), f"`{digest}`" if stage.get("sha256") else digest]) + " |"
    if any(stage.get("media") is None for stage in stages):
        yield ""
        yield "Of a stage without a hash, nobody knows which clips it was trained on: any test set may be among them."


def _measured(model: Model) -> Iterator[str]:
    yield "## Evaluation"
    yield ""
    found: Mapping[str, Any] | None = model.provenance.get("evaluation")
    if not found:
        yield "There is no evaluation of these weights beside their checkpoint."
        return
    protocol, ledger = found.get("protocol") or {}, found.get("ledger") or {}
    official = "the published protocol" if protocol.get("official") else "not the published protocol"
    task, split, name = (_cell(part) for part in (found.get("task"), found.get("split"), protocol.get("name")))
    yield f"{task}, {split} split; protocol {name} ({official})."
    for what, digest in (protocol.get("sha256") or {}).items():
        yield f"- sha256 of {_cell(what)}: `{_cell(digest)}`"
    for difference in protocol.get("differences") or ():
        yield f"- differs: {_cell(difference)}"
    yield ""
    if found.get("incomplete"):
        yield "INCOMPLETE: some items could not be evaluated."
        yield ""
    counts = ", ".join(f"{_cell(key)} {_cell(value)}" for key, value in ledger.items())
    yield f"Coverage: {counts or 'not recorded'}. Checkpoint chosen by: {_cell(found.get('selection'))}."
    yield ""
    yield "| metric | value | 95 % interval |"
    yield "|---|---|---|"
    intervals = found.get("intervals") or {}
    for metric, value in (found.get("metrics") or {}).items():
        span = intervals.get(metric)
        shown = f"{value:.2f}" if isinstance(value, float) else _cell(value)
        between = f"{span[0]:.2f} to {span[1]:.2f}" if isinstance(span, list) and len(span) == 2 else ""
        yield f"| {_cell(metric)} | {shown} | {between} |"


def _limits(model: Model) -> Iterator[str]:
    yield "## Limits"
    yield ""
    specs = model.module.specs()
    video, audio, text = (specs.get(m) for m in ("video", "audio", "text"))
    if isinstance(video, VideoSpec):
        shown, square = model.shown(), f"{video.size} x {video.size} pixels"
        count, crops = video.frames * shown.get("eval_clips", 1), shown.get("eval_crops", 1)
        yield f"- It sees {count} frames of a clip, however long it is: what lies between is not seen."
        if video.squeeze:
            yield f"- Frames are squeezed to {square}, whatever their shape."
        elif crops == 1:
            yield f"- Frames are cut to {square}: what lies beside that square is not seen."
        else:
            yield f"- Of every frame {crops} squares of {square} are seen, and nothing beside them."
    if isinstance(audio, AudioSpec):
        yield f"- It hears {audio.seconds:g} s of a sound, the middle of a longer one."
    if isinstance(text, TextSpec):
        yield f"- It reads {text.max_length} tokens of a text; what is behind them is cut off."
    if model.module.answers:
        yield f"- It answers with one of {len(model.module.answers):,} answers, whatever is asked."
    for warning in (model.provenance.get("evaluation") or {}).get("warnings") or ():
        yield f"- {_cell(warning)}"


def _cell(value: Any) -> str:
    """In a table: one line, without what ends a cell."""
    text = "-" if value is None else str(value)
    return " ".join(text.replace("|", "\\|").split())
