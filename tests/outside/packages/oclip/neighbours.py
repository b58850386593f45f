"""``vtp oclip-neighbours CHECKPOINT CLIP CLIP ...``: how much each clip looks like the first one."""

import argparse
from pathlib import Path


def main(arguments):
    parser = argparse.ArgumentParser(prog="vtp oclip-neighbours", description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("clips", type=Path, nargs="+")
    options = parser.parse_args(arguments)

    import torch

    from vtp.data import EvalLoader, Pipeline
    from vtp.errors import DataError
    from vtp.model.build import lookup_in
    from vtp.model.weights import load_model
    from vtp.plugins import host
    from vtp.types import MediaRef, Sample

    model = load_model(options.checkpoint, lookup_in(host().registry)).eval()
    samples = [Sample(str(clip), video=MediaRef(str(clip))) for clip in options.clips]
    loader = EvalLoader(samples, Pipeline({"video": model.specs()["video"]}, train=False), batch_size=8)
    with torch.inference_mode():
        found = [(batch.ids, model(batch, run=lambda ctx: ctx.pooled("video"))) for batch in loader]
    if loader.misses:
        raise DataError("; ".join(f"{name}: {reason}" for name, reason in loader.misses.items()))
    vectors = torch.nn.functional.normalize(torch.cat([rows for _, rows in found]), dim=1)
    for name, likeness in zip((name for names, _ in found for name in names), vectors @ vectors[0], strict=True):
        print(f"{likeness:.4f} {name}")
    return 0
