"""``vtp reconstruct CKPT VIDEO OUT``: what a masked autoencoder fills in, as pictures, a video and words.

A model that predicts normalised patches does not know a patch's brightness and contrast. The usual pictures take both
from the patch that was hidden, which makes them look better than the model is: they say so. ``--own-statistics`` takes
them from the visible patches around instead, which the model has really seen.
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vtp.cli.arguments import Parser, a, place, refuse_file
from vtp.errors import ConfigError, DataError
from vtp.media.multi_view import Windows
from vtp.media.transforms import EvalTransform
from vtp.model.context import ForwardContext
from vtp.model.tubelets import Grid, pixels, unpatch
from vtp.ranges import Count, Range, Seed, Share
from vtp.types import Batch, MediaRef

if TYPE_CHECKING:
    from vtp.model.model import VTPModel

__all__ = ["Reconstruction", "main", "reconstruct"]

Frames = npt.NDArray[np.uint8]
TRUE_STATISTICS = "brightness and contrast of hidden patches: the true ones"
OWN_STATISTICS = "brightness and contrast of hidden patches: from visible neighbours"


@dataclass(slots=True)
class Reconstruction:
    """Pictures and words of K clips.

    Attributes:
        original, masked, filled: uint8 (K, T, H, W, 3). ``masked`` is black where tokens were hidden, ``filled`` shows
            the prediction there and the original elsewhere.
        statistics: where brightness and contrast of the prediction come from, in words; "" if the model predicts
            pixels.
        words: per clip ``original``, ``masked`` and ``filled`` text; empty without a text.
    """

    original: Frames
    masked: Frames
    filled: Frames
    statistics: str
    words: list[dict[str, str]] = field(default_factory=list)


@torch.no_grad()
def reconstruct(
    model: VTPModel, clips: Frames, text: str | None = None, *, own_statistics: bool = False, seed: int = 0
) -> Reconstruction:
    """Hide, and let the model fill in. Uses the masks that the model was trained with.

    Args:
        model: with the objective mvm; with mlm if a text is given.
        clips: uint8 (K, T, H, W, 3), of the size that the video encoder wants.
        text: one text for all clips.
        own_statistics: see the module.
        seed: of the masks.
    """
    mvm: Any = model.objectives["mvm"]
    ctx = _context(model, clips, text, seed)
    view = ctx.masked("video")
    made = ctx.inputs("video", view)
    grid = Grid.of(made["video"], mvm.grid.shape)
    values = pixels(made["video"], None, grid, mvm.mean, mvm.std)  # (K, N, P, C)
    hidden = made["hidden"]
    guess = mvm.predict(ctx).float().unflatten(2, values.shape[2:])
    statistics = ""
    if mvm.normalise:
        statistics = OWN_STATISTICS if own_statistics else TRUE_STATISTICS
        mean, std = _moments(values, made["visible"], hidden, grid, own_statistics)
        guess = guess * std + mean
    rows = torch.arange(len(values), device=values.device)[:, None]
    filled, masked = values.clone(), values.clone()
    filled[rows, hidden] = guess
    masked[rows, hidden] = 0.0
    original, dark, full = (_frames(part, grid) for part in (values, masked, filled))
    return Reconstruction(original, dark, full, statistics, _words(model, ctx) if text else [])


def main(arguments: list[str]) -> int:
    """The command."""
    options = _parser().parse_args(arguments)
    from vtp.model.build import lookup_in
    from vtp.model.weights import load_model
    from vtp.plugins import host

    refuse_file(options.out)
    if not options.video.is_file():
        raise DataError(f"{options.video}: there is no such video.")
    if options.out.exists() and any(options.out.iterdir()):
        raise DataError(f"{options.out} exists and is not empty. Give a new folder.")
    model = load_model(_checkpoint(options.checkpoint), lookup_in(host().registry)).to(_device(options.device)).eval()
    _prepare(model, options)
    spec: Any = model.specs()["video"]
    clips = _read(options.video, spec, options.clips, options.stride or spec.stride or 4)
    made = reconstruct(model, clips, options.text, own_statistics=options.own_statistics, seed=options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    _write(options.out, made, options.fps)
    if made.statistics:
        print(f"note: {made.statistics}")
    for i, words in enumerate(made.words):
        print("\n".join(f"clip {i + 1} {name:<9} {words[name]}" for name in ("original", "masked", "filled")))
    print(f"{len(clips)} clip(s) of {clips.shape[1]} frames: {options.out / 'reconstruction.png'}, reconstruction.mp4")
    return 0


def _path(text: str) -> Path:
    return Path(place(text))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="vtp reconstruct", description=__doc__.split("\n\n")[0].replace("``", ""))
    parser.add_argument("checkpoint", type=_path, metavar="CKPT", help="a vtp checkpoint with the objective mvm")
    parser.add_argument("video", type=_path, metavar="VIDEO", help="any length; short ones repeat their last frame")
    parser.add_argument("out", type=_path, metavar="OUT", help="new folder for pictures, video and words.json")
    parser.add_argument("--text", help="a text about the clip; words are hidden and guessed as well")
    parser.add_argument(
        "--clips",
        type=a(Annotated[int, Range(least=1, most=1000)]),
        default=1,
        help="clips spread over the video (default 1, the middle)",
    )
    parser.add_argument(
        "--stride", type=a(Count), help="source frames between two frames of a clip (default the model's, or 4)"
    )
    parser.add_argument("--mask-kind", choices=["tube", "token", "frame"], help="default the model's")
    parser.add_argument("--mask-ratio", type=a(Share), help="share of hidden tokens; default the model's")
    parser.add_argument("--probability", type=a(Share), help="that a word is hidden; default the model's")
    parser.add_argument("--own-statistics", action="store_true", help="take nothing from hidden patches")
    parser.add_argument("--seed", type=a(Seed), default=0, help="of the masks")
    rate = Annotated[float, Range(above=0, most=1000)]
    parser.add_argument("--fps", type=a(rate), default=8.0, help="of the video that is written")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser


def _device(name: str) -> torch.device:
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name) or (name != "cpu" and not torch.cuda.is_available()):
        raise ConfigError(f"--device {name}: expected cpu, or a GPU that is here, such as cuda or cuda:1.")
    return torch.device(name)


def _checkpoint(path: Path) -> Path:
    """The folder with the weights: the best or last one of a run folder, or the folder itself (an imported model)."""
    from vtp.train.checkpoint import locate

    return path if (path / "model.safetensors").is_file() else locate(path)


def _prepare(model: VTPModel, options: argparse.Namespace) -> None:
    """Check that the model can do it, and take over the masks that were asked for."""
    if "mvm" not in model.objectives:
        has = ", ".join(model.objectives) or "none"
        raise ConfigError(
            f"{options.checkpoint} has the objectives {has}; only a model trained with mvm can reconstruct."
        )
    if options.text is not None and "mlm" not in model.objectives:
        raise ConfigError(f"{options.checkpoint} was not trained with mlm, so it cannot guess words: leave --text out.")
    asked = {
        "video": {"kind": options.mask_kind, "ratio": options.mask_ratio},
        "text": {"probability": options.probability},
    }
    for modality, changes in asked.items():
        mask: Any = model.masks[modality]
        model.masks[modality] = replace(mask, **{key: value for key, value in changes.items() if value is not None})


def _read(video: Path, spec: Any, clips: int, stride: int) -> Frames:
    """K windows of one video, uint8 (K, T, H, W, 3), decoded once."""
    from vtp.media import MediaError, MediaReader, Wanted

    transform = EvalTransform(spec.size)
    reader = MediaReader()
    try:
        times = partial(Windows(clips), frames=spec.frames, stride=stride)
        clip = reader.read(MediaRef(str(video)), Wanted(times, transform.decode_size))
    except MediaError as error:
        raise DataError(f"{video}: {error.reason}. Give a video file that can be decoded.") from error
    finally:
        reader.close()
    if clip.frames is None:
        raise DataError(f"{video}: {clip.missing.get('video', 'no video stream')}.")
    frames = transform(clip.frames)
    return frames.reshape(clips, spec.frames, *frames.shape[1:])


def _context(model: VTPModel, clips: Frames, text: str | None, seed: int) -> ForwardContext:
    device = next(model.parameters()).device
    rows = len(clips)
    inputs = {"video": {"frames": torch.from_numpy(np.ascontiguousarray(clips))}}
    present = {"video": torch.ones(rows, dtype=torch.bool)}
    if text is not None:
        spec: Any = model.specs()["text"]
        ids = torch.tensor(spec.tokenize([text])).expand(rows, -1)
        inputs["text"] = {"token_ids": ids, "attention_mask": torch.ones_like(ids, dtype=torch.bool)}
        present["text"] = torch.ones(rows, dtype=torch.bool)
    return ForwardContext(model, Batch([str(i) for i in range(rows)], inputs, present, step=seed).to(device))


def _moments(values: Tensor, visible: Tensor, hidden: Tensor, grid: Grid, own: bool) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (K, N_h, 1, C) to give back to the predictions.

    With ``own`` those of the visible tubelets, weighted by exp(-distance^2 / 2) with the distance in tokens.
    """
    rows = torch.arange(len(values), device=values.device)[:, None]
    seen = values[rows, visible if own else hidden]
    std, mean = torch.std_mean(seen, dim=2, keepdim=True)
    if not own:
        return mean, std + 1e-6
    _, h, w = grid.shape
    place = torch.stack(
        torch.meshgrid(
            *(torch.arange(n, device=values.device, dtype=torch.float32) for n in grid.shape), indexing="ij"
        ),
        -1,
    ).view(-1, 3)
    weight = (torch.cdist(place[hidden], place[visible]).square() / -2).softmax(dim=2)  # (K, N_h, N_v)
    mean, std = (torch.einsum("khv,kvpc->khpc", weight, part) for part in (mean, std))
    return mean, std


def _frames(values: Tensor, grid: Grid) -> Frames:
    video = unpatch(values, grid).clamp(0, 1).mul(255).round().to(torch.uint8)
    out: Frames = video.cpu().numpy()
    return out


def _words(model: VTPModel, ctx: ForwardContext) -> list[dict[str, str]]:
    mlm: Any = model.objectives["mlm"]
    tokenizer = model.encoders["text"].tokenizer
    made = ctx.inputs("text", ctx.masked("text"))
    filled = made["token_ids"].clone()
    logits, places = mlm.word_logits(ctx)
    if len(places):
        filled[places[:, 0], places[:, 1]] = logits.argmax(dim=1)
    spec: Any = model.specs()["text"]
    rows = zip(ctx.inputs("text")["token_ids"].tolist(), made["token_ids"].tolist(), filled.tolist(), strict=True)
    names = ("original", "masked", "filled")
    out = []
    for row in rows:
        # by the original: the model may guess a special token, which then belongs to the sentence
        words = [i for i, token in enumerate(row[0]) if token not in (spec.cls_id, spec.sep_id, spec.pad_id)]
        out.append({n: _sentence(tokenizer, [ids[i] for i in words]) for n, ids in zip(names, row, strict=True)})
    return out


def _sentence(tokenizer: Any, ids: list[int]) -> str:
    """Ids as text, [MASK] kept."""
    return " ".join(tokenizer.id_to_token(i) or "[?]" for i in ids).replace(" ##", "")


def _write(out: Path, made: Reconstruction, fps: float) -> None:
    from PIL import Image

    _, frames = made.original.shape[:2]
    for k in range(len(made.original)):
        for t in range(frames):
            i = k * frames + t
            for name, part in (("ori", made.original), ("mask", made.masked), ("rec", made.filled)):
                Image.fromarray(part[k, t]).save(out / f"{name}_img{i}.jpg", quality=95)
    _picture(made).save(out / "reconstruction.png")
    _video(out / "reconstruction.mp4", made, fps)
    record = {"statistics": made.statistics, "clips": made.words}
    (out / "words.json").write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _picture(made: Reconstruction, columns: int = 8) -> Any:
    """Rows of original, masked and reconstructed frames, at most ``columns`` of a clip, with what must be said
    below."""
    from PIL import Image, ImageDraw

    clips, frames, height, width = made.original.shape[:4]
    shown = np.linspace(0, frames - 1, min(columns, frames)).round().astype(int)
    label, line = 74, 14
    notes = [f"{n}: {words[n]}" for words in made.words for n in ("original", "masked", "filled")] + [made.statistics]
    notes = [note for note in notes if note]
    size = (label + len(shown) * (width + 2), clips * (3 * (height + 2) + 6) + line * len(notes) + 6)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    top = 2
    for k in range(clips):
        for name, part in (("original", made.original), ("masked", made.masked), ("filled in", made.filled)):
            draw.text((4, top + height // 2 - 6), name, fill="black")
            for column, t in enumerate(shown):
                sheet.paste(Image.fromarray(part[k, t]), (label + column * (width + 2), top))
            top += height + 2
        top += 6
    for i, note in enumerate(notes):
        draw.text((4, top + i * line), note, fill="black")
    return sheet


def _video(path: Path, made: Reconstruction, fps: float) -> None:
    """Original, masked and reconstructed frames side by side, one clip after the other."""
    from fractions import Fraction

    import av

    sheet = np.concatenate([made.original, made.masked, made.filled], axis=3)
    sheet = sheet.reshape(-1, *sheet.shape[2:])
    height, width = (n - n % 2 for n in sheet.shape[1:3])  # yuv420p wants even sides
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=Fraction(fps).limit_denominator(1000))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": "18"}
        for frame in sheet:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
