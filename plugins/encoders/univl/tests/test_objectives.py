"""The objectives in models of several kinds, against brute force, and the defects of the released code."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden import group
from objective_models import build, gradients, random_batch, take_step
from torch import nn

from vtp.errors import ConfigError
from vtp.model.context import ForwardContext
from vtp.model.losses import mil_nce
from vtp.model.momentum import Momentum
from vtp.types import IGNORE, StepDone
from vtp_univl.clip_order import moved
from vtp_univl.losses import level1

ALL = ["univl/vtc", "univl/hsm", "univl/itm", "univl/mlm", "univl/mlm_text", "univl/clip_order"]
PLACES = "objectives.clip_order.places=8"


@pytest.mark.parametrize("first", ["univl/vtc", "univl/moco"])
@pytest.mark.parametrize(("model", "released"), [("base", False), ("base", True), ("simvtp", False), ("univl", False)])
def test_every_objective_works_in_other_models(model: str, released: bool, first: str) -> None:
    small = ["objectives.vtc.queue_size=32"] if first == "univl/moco" else []
    built = build(model, [first, *ALL[1:]], *small, PLACES, released=released).train()
    batch = random_batch(built, 6, video=[1], text=[4])
    ctx = ForwardContext(built, batch)
    counts = {name: float(o.count(ctx)) for name, o in built.objectives.items()}
    out = take_step(built, batch)
    assert set(out) == {"vtc", "vtm", "itm", "mlm", "mlm_text", "clip_order"}
    for name, seen in out.items():
        assert torch.isfinite(seen.loss) and seen.loss > 0, name
        assert float(seen.weight) == counts[name] > 0, name
    trained = {n: p for n, p in built.named_parameters() if p.requires_grad}
    assert [n for n, p in trained.items() if p.grad is None] == []


def scores_of(model: Any, ctx: ForwardContext) -> torch.Tensor:
    """Score of every text with every video, pair by pair."""
    vtm, rows = model.objectives["vtm"], len(ctx.batch)
    found = torch.zeros(rows, rows)
    for i in range(rows):
        for j in range(rows):
            logits = vtm.match_logits(ctx, {"text": torch.tensor([i]), "video": torch.tensor([j])})
            found[i, j] = logits[0, 1] - logits[0, 0]
    return found


def test_all_pairs_are_mil_nce_of_their_scores() -> None:
    """With two equal captions, and a row that has no video."""
    model = build("base", ["univl/vtm"])
    batch = random_batch(model, 5, video=[3])
    text = batch.inputs["text"]
    text["token_ids"][2], text["attention_mask"][2] = text["token_ids"][0], text["attention_mask"][0]
    ctx = ForwardContext(model, batch)
    scores = scores_of(model, ctx)
    scores[0, 2] = scores[2, 0] = -torch.inf
    rows = torch.arange(5) != 3
    want = mil_nce(scores, torch.arange(5), rows)[rows].mean()
    model.zero_grad()
    want.backward()
    by_hand = gradients(model)
    torch.testing.assert_close(take_step(model, batch)["vtm"].loss, want.detach())
    for name, found in gradients(model).items():
        if name in by_hand:
            torch.testing.assert_close(found, by_hand[name], atol=1e-6, rtol=1e-4, msg=name)
    released = build("base", ["univl/vtm"], released=True)
    released.load_state_dict(model.state_dict())
    scores = scores_of(released, ForwardContext(released, batch))
    want = mil_nce(scores, torch.arange(5), rows)[rows].mean().detach()
    torch.testing.assert_close(take_step(released, batch)["vtm"].loss, want)


def test_blocks_are_batches_of_their_own() -> None:
    model = build("base", ["univl/vtm"], "objectives.vtm.block=2")
    batch = random_batch(model, 5)
    scores = scores_of(model, ForwardContext(model, batch))
    want = torch.cat([mil_nce(scores[a:b, a:b], torch.arange(b - a)) for a, b in ((0, 2), (2, 4), (4, 5))]).mean()
    torch.testing.assert_close(take_step(model, batch)["vtm"].loss, want)


@pytest.mark.parametrize("method", ["top_k", "nearliest"])
@pytest.mark.parametrize("weights", ["null", "mean"])
def test_mined_rows_hold_the_hardest_videos(method: str, weights: str) -> None:
    """Against loops: the hardest videos of the batch in the slots of a block of three."""
    options = [f"objectives.vtm.{o}" for o in ("block=3", f"re_sample_method={method}", f"re_weight_method={weights}")]
    model = build("base", ["univl/vtc", "univl/hsm"], *options, "objectives.vtm.negatives_from=gathered")
    batch = random_batch(model, 6)
    ctx = ForwardContext(model, batch)
    vtc: Any = model.objectives["vtc"]
    sim = level1(vtc.text_embeddings(ctx), vtc.clip_embeddings(ctx)).detach()
    scores, slots = scores_of(model, ctx), torch.zeros(6, 3)
    for i in range(6):
        gap = -sim[i] if method == "top_k" else (sim[i] - sim[i, i]).abs()
        hardest = sorted((j for j in range(6) if j != i), key=lambda j: float(gap[j]))
        hardest.insert(i % 3, i)
        slots[i] = scores[i, hardest[:3]]
    own = sim.diagonal()
    losses = []
    for start in (0, 3):
        part, d = mil_nce(slots[start : start + 3], torch.arange(3)), own[start : start + 3]
        easy = ((d.mean() - d.min()) / (d - d.min())).clamp(min=0.2)
        losses.append(part * (torch.where(d > d.mean(), easy, 1.0) if weights == "mean" else 1.0))
    torch.testing.assert_close(take_step(model, batch)["vtm"].loss, torch.cat(losses).mean())


def test_the_curriculum_mines_more_and_more() -> None:
    """Step 0 never, step 35000 always, in between in about the share that the curriculum says; weights only then."""
    model = build("base", ["univl/vtc", "univl/hscl"], "objectives.vtm.negatives_from=gathered")
    plain = build("base", ["univl/vtc", "univl/vtm"])
    plain.load_state_dict(model.state_dict())
    batch = random_batch(model, 4)
    first = take_step(model, batch)["vtm"]
    assert first.metrics["mined"] == 0
    torch.testing.assert_close(first.loss, take_step(plain, batch)["vtm"].loss)
    batch.step = 35000
    last = take_step(model, batch)["vtm"]
    assert last.metrics["mined"] == 1
    assert not torch.isclose(last.loss, first.loss)
    from vtp_univl.draws import mines_now

    ctx = ForwardContext(model, batch)
    mined = []
    for step in range(15000, 15400):
        batch.step = step
        mined.append(mines_now(ctx, 5000, 0.15))
    assert sum(mined) / 400 == pytest.approx(0.45, abs=0.08)
    many = []  # with eight processes the released draw is nearly a threshold
    for step in range(10000, 10400):
        batch.step = step
        many.append(mines_now(ctx, 5000, 0.15, processes=8))
    assert sum(many) / 400 < 0.1


def test_the_released_code_weights_steps_that_mine_nothing() -> None:
    options = ["objectives.vtm.negatives_from=gathered", "objectives.vtm.mask_duplicates=true"]
    model = build("base", ["univl/vtc", "univl/hscl"], *options, released=True)
    plain = build("base", ["univl/vtc", "univl/vtm"])
    plain.load_state_dict(model.state_dict())
    batch = random_batch(model, 5)
    assert not torch.isclose(take_step(model, batch)["vtm"].loss, take_step(plain, batch)["vtm"].loss)


def test_mining_needs_a_similarity() -> None:
    model = build("base", ["univl/hsm"])
    with pytest.raises(ConfigError, match="univl/vtc"):
        take_step(model, random_batch(model, 3))


def test_options_without_mining_are_refused() -> None:
    with pytest.raises(ConfigError, match="hard_example_mining"):
        build("base", ["univl/vtm"], "objectives.vtm.re_weight_method=mean")


def test_features_of_two_widths_need_a_projection() -> None:
    with pytest.raises(ConfigError, match="objectives.vtc.width"):
        build("base", ["univl/vtc"], "encoder.video.width=64")
    assert build("base", ["univl/vtc"], "encoder.video.width=64", "objectives.vtc.width=16")


def test_duplicates_are_no_negatives() -> None:
    """Equal captions, and clips of one video; the released code counts them."""
    losses = {}
    for released in (False, True):
        model = build("base", ["univl/vtc"], "objectives.vtc.temperature=1", released=released)
        batch = random_batch(model, 4)
        batch.extra["video_id"] = ["a", "b", "c", "b"]
        text = batch.inputs["text"]
        text["token_ids"][2], text["attention_mask"][2] = text["token_ids"][0], text["attention_mask"][0]
        ctx = ForwardContext(model, batch)
        vtc: Any = model.objectives["vtc"]
        sim = torch.einsum("ae,bne->abn", vtc.text_embeddings(ctx), vtc.clip_embeddings(ctx))
        for a, b in () if released else ((0, 2), (2, 0), (1, 3), (3, 1)):
            sim[a, b] = -torch.inf
        n = sim.shape[2]
        bag = torch.arange(4).repeat_interleave(n)
        want = mil_nce(sim.repeat_interleave(n, dim=0).flatten(1), bag)[torch.arange(4) * n + n // 2].mean()
        losses[released] = take_step(model, batch)["vtc"].loss
        torch.testing.assert_close(losses[released], want)
    assert losses[True] > losses[False]


def test_matching_shows_the_same_words_in_positives_and_negatives() -> None:
    """Each text stands once on either side, masked alike, so that words alone never tell; the released code shows
    negatives as they are."""
    for released in (False, True):
        model = build("base", ["univl/itm"], "masks.text.probability=0.5", released=released)
        read: list[torch.Tensor] = []

        def keep(module: nn.Module, arguments: Any, read: list[torch.Tensor] = read) -> None:
            read.append(arguments[0]["text"].x.detach())

        model.encoders["fusion"].register_forward_pre_hook(keep)
        batch = random_batch(model, 6)
        out = take_step(model, batch)
        positive, negative = read
        assert torch.equal(positive, negative) != released
        clean = model.encoders["text"](**batch.inputs["text"]).x.detach()
        assert not torch.equal(positive, clean) and torch.equal(negative, clean) == released
        assert int(out["itm"].weight) == 12


def test_the_negative_of_a_text_is_another_video() -> None:
    """Not one of the same caption or the same clip; a row without any takes no part."""
    model = build("base", ["univl/itm"])
    batch = random_batch(model, 4)
    batch.extra["video_id"] = ["a", "a", "a", "b"]
    other: list[torch.Tensor] = []
    fused = ForwardContext.fused

    class Context(ForwardContext):
        def fused(self, views: Any, rows: Any = None) -> Any:
            if rows:
                other.append(rows["video"])
            return fused(self, views, rows)

    ctx = Context(model, batch)
    out: Any = model.objectives["itm"](ctx)
    assert other[0][:3].tolist() == [3, 3, 3] and int(out.weight) == 8
    batch.extra["video_id"] = ["a"] * 4
    out = model.objectives["itm"](ForwardContext(model, batch))
    assert int(out.weight) == 0 and out.loss == 0


def test_the_text_encoder_reads_masked_words() -> None:
    """And labels are the original ids; the released code shows it the words that it is to guess."""
    for released in (False, True):
        options = ["masks.text.probability=0.5", "masks.text.replace=mask"]
        model = build("base", ["univl/mlm_text"], *options, released=released)
        batch = random_batch(model, 6)
        read: list[Any] = []

        def keep(_: nn.Module, __: Any, given: Any, read: list[Any] = read) -> None:
            read.append(given)

        model.encoders["text"].register_forward_pre_hook(keep, with_kwargs=True)
        ctx = ForwardContext(model, batch)
        mlm: Any = model.objectives["mlm_text"]
        mlm(ctx)
        masked = ctx.inputs("text", mlm.words(ctx))
        labelled = masked["labels"] != IGNORE
        ids, clean = read[0]["token_ids"], batch.inputs["text"]["token_ids"]
        assert labelled.any()
        assert torch.equal(masked["labels"][labelled], clean[labelled])
        assert torch.equal(ids, clean) if released else (ids[labelled] == mlm.spec.mask_id).all()


class Attending(nn.Module):
    """A text encoder that tells its attention: a word gets as much as its place says."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.spec, self.width = encoder, encoder.spec, encoder.width

    def forward(self, token_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        return self.encoder(token_ids, attention_mask)

    def attentions(self, token_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        length = token_ids.shape[1]
        weight = torch.zeros(length)
        weight[3] = 1.0
        return weight.expand(2, len(token_ids), 2, length, length)


def test_attentive_masking_hides_the_words_that_get_attention() -> None:
    from vtp.model.build import BuildContext
    from vtp_univl.mlm import MLM

    model = build("base", ["univl/vtm"])
    model.encoders["text"] = Attending(model.encoders["text"])
    context = BuildContext(encoders=dict(model.encoders.items()))
    assert MLM(context=context).share == 0.5
    mlm = MLM(context=context, attentive_masking=1.0)
    model.objectives = nn.ModuleDict({"mlm": mlm})
    model.weights = {"mlm": 1.0}
    batch = random_batch(model, 6, text=[5])
    ctx = ForwardContext(model, batch)
    masked, clean = ctx.inputs("text", mlm.words(ctx)), batch.inputs["text"]
    labelled = masked["labels"] != IGNORE
    words = clean["attention_mask"].sum(dim=1) - 2  # without [CLS] and [SEP]
    want = (words * 0.15).long().clamp(min=1) * (words > 0)
    assert torch.equal(labelled.sum(dim=1), want)
    assert (masked["token_ids"][labelled] == mlm.spec.mask_id).all()
    assert torch.equal(masked["labels"][labelled], clean["token_ids"][labelled])
    long = words > 3
    assert labelled[long, 3].all()
    assert int(take_step(model, batch)["mlm"].weight) == int(want.sum()) == int(mlm.count(ctx))
    half = MLM(context=context, attentive_masking=0.5)
    drawn = []
    for batch.step in range(200):
        drawn.append(half.words(ForwardContext(model, batch)) == "univl.attentive")
    assert sum(drawn) / 200 == pytest.approx(0.5, abs=0.12)


def test_a_text_encoder_that_tells_no_attention_is_refused() -> None:
    with pytest.raises(ConfigError, match="attentive_masking=0"):
        build("base", ["univl/mlm"], "objectives.mlm.attentive_masking=0.5")


def test_the_decoder_is_the_word_embeddings() -> None:
    model = build("base", ["univl/mlm"])
    mlm: Any = model.objectives["mlm"]
    ctx = ForwardContext(model, random_batch(model, 3))
    hidden = mlm.transform(ctx.fused({"video": "", "text": ""}).tokens["text"].x)
    table = next(m for m in model.encoders["text"].modules() if isinstance(m, nn.Embedding)).weight
    torch.testing.assert_close(mlm.vocabulary_scores(ctx), hidden @ table.T + mlm.decoder.bias)
    assert "objectives.mlm.decoder.weight" not in model.state_dict()
    wide = build("base", ["univl/mlm"], "encoder.fusion.width=64")
    assert wide.state_dict()["objectives.mlm.decoder.weight"].shape[1] == 64


def test_moved_clips_lie_elsewhere() -> None:
    """Two of four clips change places; more of them move in a circle."""
    for count, share, want in ((4, 0.15, 2), (16, 0.5, 8), (2, 0.0, 2)):
        source, chosen = moved(torch.rand(50, 2 * count), share)
        place = torch.arange(count)
        assert (chosen.sum(dim=1) == want).all()
        assert torch.equal(source.sort(dim=1).values, place.expand(50, -1))
        assert torch.equal(source != place, chosen)


def test_the_average_is_the_recorded_one() -> None:
    case = group("moco_momentum")
    source = nn.Linear(3, 2, bias=False)
    source.weight.data.copy_(case["key_before"])
    average = Momentum(source, case["momentum"])
    source.weight.data.copy_(case["query"])
    average.after_step(StepDone(1, 10))
    torch.testing.assert_close(average.module.weight, case["key_after"], atol=1e-6, rtol=0)


def test_released_choices_are_one_word() -> None:
    """No temperature in batch, duplicates compared, rows of one process, a mean for the median."""
    model: Any = build("base", ["univl/vtc", "univl/hsm"], "objectives.vtm.re_weight_method=median", released=True)
    vtc, vtm = model.objectives["vtc"], model.objectives["vtm"]
    assert (vtc.temperature, vtc.mask_duplicates, vtm.mask_duplicates) == (1.0, False, False)
    assert (vtm.weighting, vtm.everywhere, vtm.block) == ("mean", False, None)
    repaired: Any = build("base", ["univl/vtc", "univl/hsm"], "objectives.vtm.re_weight_method=median")
    vtc, vtm = repaired.objectives["vtc"], repaired.objectives["vtm"]
    assert (vtc.temperature, vtc.mask_duplicates, vtm.mask_duplicates, vtm.weighting) == (0.05, True, True, "median")
    assert build("base", ["univl/vtm"]).objectives["vtm"].everywhere
