"""Queues, pointers and key encoders: what goes in, and that a run that is cut or continued is the unbroken one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from objective_models import build, gradients, random_batch, take_step

from vtp.model.context import ForwardContext
from vtp.types import StepDone

SMALL = ("objectives.vtc.queue_size=16", "objectives.vtc.momentum=0.5")


def after(model: Any, step: int) -> None:
    """What the engine calls after an update."""
    with torch.no_grad():
        for part in reversed(list(model.modules())):
            if getattr(part, "after_step", None) is not None:
                part.after_step(StepDone(step, 10))


@pytest.mark.parametrize("model", ["base", "simvtp"])
def test_keys_go_into_the_queues(model: str) -> None:
    """Those of rows that have both, clip by clip, and what they are about; the next step knows its own again."""
    built = build(model, ["univl/moco"], *SMALL)
    moco: Any = built.objectives["vtc"]
    batch = random_batch(built, 4, video=[2])
    ctx = ForwardContext(built, batch)
    text, clips = moco.text_embeddings(ctx).detach(), moco.clip_embeddings(ctx).detach()  # keys start as equal
    take_step(built, batch)
    before = moco.text_queue.clone()
    after(built, 1)
    there = torch.tensor([0, 1, 3])
    n = clips.shape[1]
    torch.testing.assert_close(moco.text_queue[:, :3], text[there].T)
    torch.testing.assert_close(moco.video_queue[:, : 3 * n], clips[there].flatten(0, 1).T)
    assert torch.equal(moco.text_queue[:, 3:], before[:, 3:])
    assert int(moco.text_queue_ptr) == 3 and int(moco.video_queue_ptr) == 3 * n % 16
    known = moco._known(moco.features(ForwardContext(built, batch)), "video")
    assert torch.equal(known[there].sum(dim=1), torch.full((3,), n)) and not known[2].any()
    losses = []
    for place, row in enumerate(there.tolist()):  # against all columns but those of its own earlier keys
        texts = [k for k in range(16) if k != place]
        videos = [k for k in range(16) if not place * n <= k < (place + 1) * n]
        near = clips[row] @ text[row] / 0.05
        far = text[row] @ moco.video_queue[:, videos] / 0.05
        of_text = torch.cat([near, far]).logsumexp(0) - near.logsumexp(0)
        others = clips[row] @ moco.text_queue[:, texts] / 0.05
        of_clips = torch.cat([near[:, None], others], dim=1).logsumexp(1) - near
        losses.append((of_text + of_clips.mean()) / 2)
    torch.testing.assert_close(take_step(built, batch)["vtc"].loss, torch.stack(losses).mean())
    moco.mask_duplicates = False
    assert take_step(built, batch)["vtc"].loss > torch.stack(losses).mean()


def test_a_key_that_is_no_number_stays_out() -> None:
    built = build("base", ["univl/moco"], *SMALL)
    moco: Any = built.objectives["vtc"]
    take_step(built, random_batch(built, 4))
    moco._fresh["key_text"][1, 0] = torch.nan
    texts, clips = moco.text_queue.clone(), moco.video_queue.clone()
    after(built, 1)
    assert torch.equal(moco.text_queue, texts) and int(moco.text_queue_ptr) == 0
    assert not torch.equal(moco.video_queue, clips)


def test_key_encoders_follow_and_drop_out_as_asked() -> None:
    for dropout in (True, False):
        built = build("base", ["univl/moco"], *SMALL, f"objectives.vtc.key_dropout={dropout}").train()
        moco: Any = built.objectives["vtc"]
        assert moco.key_encoders["text"].module.training == dropout
        weight, key = (next(m.parameters()) for m in (built.encoders["video"], moco.key_encoders["video"].module))
        assert not key.requires_grad and torch.equal(weight, key)
        with torch.no_grad():
            weight += 1
        after(built, 1)
        torch.testing.assert_close(key, weight - 0.5)


def test_it_is_all_in_the_checkpoint() -> None:
    """Registered when it is built, not in the first step."""
    names = set(build("base", ["univl/moco"], *SMALL).state_dict())
    for name in ("text_queue", "video_queue", "text_queue_ptr", "video_queue_ptr"):
        assert f"objectives.vtc.{name}" in names
    keys = {n.removeprefix("objectives.vtc.key_encoders.video.module.") for n in names if ".key_encoders.video." in n}
    assert {n.removeprefix("encoders.video.") for n in names if n.startswith("encoders.video.")} <= keys


def test_micro_batches_are_one_batch() -> None:
    """Two steps, with the queue and the average that the first one leaves behind."""
    found = []
    for accumulation in (1, 3):
        built = build("base", ["univl/moco", "univl/mlm"], *SMALL)
        batch = random_batch(built, 6, video=[4])
        optimizer = torch.optim.SGD(built.parameters(), lr=0.1)
        losses = []
        for step in (1, 2):
            batch.step = step - 1
            losses.append(take_step(built, batch, accumulation)["vtc"].loss)
            optimizer.step()
            after(built, step)
        found.append((losses, gradients(built), built.state_dict()))
    (whole, gradient, state), (parts, their_gradient, their_state) = found
    torch.testing.assert_close(whole, parts)
    for name in gradient:
        torch.testing.assert_close(their_gradient[name], gradient[name], atol=1e-5, rtol=1e-4, msg=name)
    for name in state:
        torch.testing.assert_close(their_state[name], state[name], atol=1e-5, rtol=1e-4, msg=name)
