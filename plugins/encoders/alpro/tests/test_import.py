"""``vtp import alpro``: every tensor finds its place, and the model computes what the released formulas give."""

from __future__ import annotations

import json
from functools import cache

import alpro_models as released
import pytest
import torch
from alpro_models import Released, vocabulary
from torch.nn.functional import normalize

from vtp.cli.main import main
from vtp.model.build import lookup_in
from vtp.model.context import ForwardContext
from vtp.model.weights import load_model
from vtp.plugins import host
from vtp.types import Batch

plain = cache(Released)


def run_import(state, tmp_path, *options):
    torch.save(state, tmp_path / "model_step_1.pt")
    out = tmp_path / "imported"
    words = f"tokenizer={vocabulary(tmp_path)}"
    sizes = ["heads=2", "video_heads=2", f"text_layers={released.TEXT_LAYERS}"]
    code = main(["import", "alpro", str(tmp_path / "model_step_1.pt"), str(out), words, *sizes, *options])
    return code, out


def imported(state, tmp_path, *options):
    code, out = run_import(state, tmp_path, *options)
    assert code == 0
    return load_model(out, lookup_in(host().registry)).eval(), json.loads((out / "import_report.json").read_text())


def example(model):
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(5, released.WORDS, (3, 8), generator=generator)
    mask = torch.arange(8) < torch.tensor([[8], [5], [3]])
    frames = torch.randint(
        256, (3, released.FRAMES, released.SIZE, released.SIZE, 3), generator=generator, dtype=torch.uint8
    )
    inputs = {"text": {"token_ids": ids * mask, "attention_mask": mask}, "video": {"frames": frames}}
    rows = torch.ones(3, dtype=torch.bool)
    return ForwardContext(model, Batch(list("abc"), inputs, {"text": rows, "video": rows})), ids * mask, mask


def close(got, want, what):
    torch.testing.assert_close(got, want, rtol=1e-4, atol=2e-5, msg=lambda m: f"{what}: {m}")


@torch.no_grad()
def test_an_imported_model_computes_what_transformers_and_the_formulas_give(tmp_path):
    model, report = imported(plain().state(), tmp_path)
    ctx, ids, mask = example(model)
    video = ctx.inputs("video")["video"]
    clips, texts = plain().clip_tokens(video), plain().text_tokens(ids, mask)
    close(ctx.tokens("video").x, clips, "clip tokens")
    close(ctx.tokens("text").x[mask], texts[mask], "text tokens")
    vtc, vtm = model.objectives["vtc"], model.objectives["vtm"]
    close(vtc.embed(ctx, "video"), normalize(plain().vision_proj(clips[:, 0]), dim=1), "clip embedding")
    close(vtc.embed(ctx, "text"), normalize(plain().text_proj(texts[:, 0]), dim=1), "text embedding")
    close(vtc.logit_scale, -plain().temp.log()[None], "temperature")
    pairs = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    got = vtm.match_logits(ctx, {"text": pairs[:, 0], "video": pairs[:, 1]})
    want = [plain().pair(texts[t : t + 1], mask[t : t + 1], clips[v : v + 1]) for t, v in pairs]
    close(got, plain().itm_head(torch.cat(want)), "matching of all pairs")
    assert report["kind"] == "ALPRO for retrieval"
    dropped = {"text_encoder.cls.predictions.bias", "text_encoder.bert.embeddings.position_ids"}
    assert set(report["dropped"]) == dropped
    assert set(report["used"]) == set(plain().state()) - dropped


@pytest.mark.parametrize("prefix", ["text_encoder.", "text_encoder.bert."])
@torch.no_grad()
def test_a_model_that_answers_questions(prefix, tmp_path):
    theirs = plain("answers")
    (tmp_path / "train_ans2label.json").write_text(json.dumps({"dog": 2, "man": 0, "red": 1}))
    found, _ = imported(theirs.state(prefix), tmp_path, f"answers={tmp_path / 'train_ans2label.json'}", "max_length=9")
    ctx, ids, mask = example(found)
    pooled = theirs.pair(theirs.text_tokens(ids, mask), mask, theirs.clip_tokens(ctx.inputs("video")["video"]))
    close(found.objectives["qa"].logits(ctx), theirs.classifier(pooled), "answers")
    assert found.spec["answers"] == ["man", "red", "dog", "[no answer 3]", "[no answer 4]"]
    assert list(found.objectives) == ["qa"] and found.specs()["text"].max_length == 9


@torch.no_grad()
def test_as_released_pairs_are_ranked_by_rounded_probabilities(tmp_path):
    model, _ = imported(plain().state(), tmp_path, "variant=released")
    ctx, ids, mask = example(model)
    got = model.objectives["vtm"].match_logits(ctx)
    clips, texts = plain().clip_tokens(ctx.inputs("video")["video"]), plain().text_tokens(ids, mask)
    exact = plain().itm_head(plain().pair(texts, mask, clips)).softmax(1)[:, 1]
    assert got.shape == (3,)
    assert [round(float(x), 6) for x in got] == [round(float(x), 4) for x in exact]
    assert not torch.equal(got, exact)


def test_times_of_other_numbers_of_frames_are_the_nearest(tmp_path):
    state = plain().state()
    model, report = imported(state, tmp_path, "frames=6")
    table = model.encoders["video"].time_embed[0]
    close(table, state["visual_encoder.model.time_embed"][0].repeat_interleave(2, dim=0), "3 times as 6")
    assert model.specs()["video"].frames == 6 and any("times of 3" in note for note in report["notes"])


@pytest.mark.parametrize(
    "change, options, said",
    [
        (lambda s: s.pop("visual_encoder.model.time_embed"), (), "holds no ALPRO"),
        (lambda s: s.pop("visual_encoder.model.blocks.1.temporal_fc.weight"), (), "not in the file"),
        (lambda s: s.update({"text_decoder.bias": torch.zeros(2)}), (), "have no place in this model: text_decoder"),
        (lambda s: [s.pop(n) for n in list(s) if n.startswith(("itm", "vision_proj"))], (), "nothing in it can be"),
        (lambda s: None, ("text_layers=3",), "text_layers=3"),
        (lambda s: None, ("video_heads=3",), "does not divide the width"),
        (lambda s: None, ("frames=0",), "must be at least 1"),
        (lambda s: None, ("answers=nowhere.json",), "has no classifier"),
        (lambda s: s.update(temp=torch.zeros(2)), (), "temp"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(change, options, said, tmp_path, capsys):
    state = plain().state()
    change(state)
    code, out = run_import(state, tmp_path, *options)
    told = capsys.readouterr().err
    assert code == 2 and said in told and "Traceback" not in told and not out.exists()


@pytest.mark.parametrize(
    "content, said", [('["a", "a"]', "each once"), ('["a","b","c","d","e","f"]', "holds 6"), ("3", "holds no")]
)
def test_answers_that_do_not_fit_are_refused(content, said, tmp_path, capsys):
    file = tmp_path / "answers.json"
    file.write_text(content)
    code, _ = run_import(plain("answers").state(), tmp_path, f"answers={file}")
    assert code == 2 and said in capsys.readouterr().err
