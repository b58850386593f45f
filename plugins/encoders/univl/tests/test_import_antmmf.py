"""``vtp import antmmf`` and ``vtp export antmmf``: a checkpoint of the release, its outputs, and the way back."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from functools import cache

import antmmf_models as released
import pytest
import torch
from antmmf_models import PRETRAINING, Plain, checkpoint, vocabulary

from vtp.cli.main import main
from vtp.cli.run import compose
from vtp.model.build import BuildContext, build_model, lookup_in
from vtp.model.context import ForwardContext
from vtp.model.weights import load_model, load_weights
from vtp.plugins import host
from vtp.train import TrainConfig
from vtp.train.after_step import AfterStep
from vtp.train.parallel import Parallel
from vtp.types import Batch

FINETUNED = ("similarity",)
KINDS = ("pvt", "swin", "resnet")


composed = cache(lambda options: compose(list(options)))


@pytest.fixture(autouse=True)
def composed_once(monkeypatch):
    """The importer composes a recipe, which takes longer than the rest of it; the same options give the same."""
    monkeypatch.setattr("vtp.cli.run.compose", lambda options: deepcopy(composed(tuple(options))))


def run_import(state, tmp_path, *options, wrap=None):
    """Write the file, import it, and load what came out."""
    torch.save({"model": state, "current_iteration": 7} if wrap is None else wrap(state), tmp_path / "best.ckpt")
    out = tmp_path / "imported"
    found = ["import", "antmmf", str(tmp_path / "best.ckpt"), str(out), f"tokenizer={vocabulary(tmp_path)}", *options]
    assert main(found) == 0
    return load_model(out, lookup_in(host().registry)).eval(), json.loads((out / "import_report.json").read_text())


def export(tmp_path, *options):
    assert main(["export", "antmmf", str(tmp_path / "imported"), str(tmp_path / "back.pth"), *options]) == 0
    return torch.load(tmp_path / "back.pth", weights_only=True)


def example(frames=3, size=64):
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(5, released.WORDS, (3, 8), generator=generator)
    mask = torch.arange(8) < torch.tensor([[8], [5], [3]])
    ids[:, 0] = released.CLS
    ids[torch.arange(3), mask.sum(1) - 1] = released.SEP
    ids[1, 2] = released.MASK
    pixels = torch.randint(256, (3, frames, size, size, 3), generator=generator, dtype=torch.uint8)
    return ids * mask, mask, pixels


def context(model, ids, mask, frames):
    inputs = {"text": {"token_ids": ids, "attention_mask": mask}, "video": {"frames": frames}}
    rows = torch.ones(len(ids), dtype=torch.bool)
    return ForwardContext(model, Batch(list("abc"), inputs, {"text": rows, "video": rows}))


def close(got, want, what):
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5, msg=lambda m: f"{what}: {m}")


@pytest.mark.parametrize(
    "kind, real", [*((k, False) for k in KINDS), *(pytest.param(k, True, marks=pytest.mark.slow) for k in KINDS)]
)
@torch.no_grad()
def test_an_imported_model_computes_what_the_released_one_does(kind, real, tmp_path):
    """``real`` is Base-VTP's own size but for the layers of BERT."""
    state, net = checkpoint(kind, real=real)
    plain = Plain(state, net, kind)
    model, report = run_import(state, tmp_path)
    if real:
        assert "sizes" not in model.spec["encoders"]["video"]
    ids, mask, frames = example()
    ctx = context(model, ids, mask, frames)
    tokens, text = plain.text(ids, mask)
    clips, features = plain.clips(ctx.inputs("video")["video"])
    vtc, vtm, mlm, mlm_text, itm = (model.objectives[n] for n in ("vtc", "vtm", "mlm", "mlm_text", "itm"))

    close(ctx.tokens("text").x[mask], tokens[mask], "text tokens")
    close(vtc.embed(ctx, "text"), text, "text features")
    close(ctx.tokens("video").x, clips, "clip tokens")
    close(vtc.embed(ctx, "video"), features, "clip features")
    fused = ctx.fused({"video": "", "text": ""})
    words, seen, pooled = plain.cross(ids, mask, clips)
    close(fused.tokens["text"].x[mask], words[mask], "cross text tokens")
    close(fused.tokens["video"].x, seen, "cross visual tokens")
    close(fused.pooled, pooled, "cross pooled")
    close(mlm.vocabulary_scores(ctx)[mask], plain.word_logits(words, "transformer_mlm")[mask], "words behind the cross")
    close(mlm_text.vocabulary_scores(ctx)[mask], plain.word_logits(tokens, "text_encoder_mlm")[mask], "words of texts")
    close(itm.match_logits(ctx), plain.linear(pooled, "itm_head.cls.seq_relationship"), "itm")

    pairs = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    rows = {"text": pairs[:, 0], "video": pairs[:, 1]}
    got = vtm.match_logits(ctx, rows).diff(dim=1)[:, 0]
    want = [plain.similarity(plain.cross(ids[t : t + 1], mask[t : t + 1], clips[v : v + 1])[2])[0] for t, v in pairs]
    close(got, torch.stack(want), "l2 scores")
    want_l1 = torch.einsum("bd,vcd->bvc", text, features).logsumexp(2)
    got_l1 = torch.einsum("bd,vcd->bvc", vtc.embed(ctx, "text"), vtc.embed(ctx, "video")).logsumexp(2)
    close(got_l1, want_l1, "l1 scores")
    assert report["kind"] == "pre-trained UniVL of AntMMF"
    assert not any("decoder.weight" in name for name in report["used"])


@pytest.mark.parametrize(
    "kind, heads, count",
    [
        ("swin", PRETRAINING, (492, 414)),
        ("pvt", PRETRAINING, (477, 399)),
        pytest.param("resnet", PRETRAINING, (408, 330), marks=pytest.mark.slow),
        pytest.param("swin", ("clf",), (474, 398), marks=pytest.mark.slow),
        ("swin", FINETUNED, (476, 400)),
        pytest.param("pvt", FINETUNED, (461, 385), marks=pytest.mark.slow),
    ],
)
def test_the_layout_has_as_many_names_as_the_release(kind, heads, count, monkeypatch):
    """Numbers of names and of tensors that were counted on the released models with two layers of BERT."""
    monkeypatch.setattr(released, "value", lambda name, shape: torch.empty(shape))
    with torch.device("meta"):
        state, _ = checkpoint(kind, heads, real=True)
    assert (len(state), len({id(tensor) for tensor in state.values()})) == count


@pytest.mark.parametrize(
    "kind, heads",
    [
        ("pvt", PRETRAINING),
        ("swin", PRETRAINING),
        ("swin", FINETUNED),
        pytest.param("resnet", ("clf",), marks=pytest.mark.slow),
    ],
)
def test_what_is_exported_is_what_was_imported(kind, heads, tmp_path):
    state, _ = checkpoint(kind, heads)
    model, report = run_import(state, tmp_path)
    assert set(model.objectives) == (
        {"vtc", "vtm", "mlm", "mlm_text", "itm"}
        if heads is PRETRAINING
        else {"vtc", "vtm"}
        if heads is FINETUNED
        else {"qa"}
    )
    equal(export(tmp_path), state)


def equal(got, want):
    assert sorted(got) == sorted(want)
    for name, tensor in want.items():
        assert got[name].dtype == tensor.dtype and torch.equal(got[name], tensor), name


def test_training_starts_from_an_imported_model(tmp_path, caplog):
    """``model=univl objective=[univl/moco,...] init_from=MODEL``: heads that it has no use for are left, and so is what
    is carried along; queues start anew, and key encoders as copies of what was read."""
    imported, _ = run_import(checkpoint("pvt")[0], tmp_path)
    spec = json.loads(json.dumps(imported.spec))
    assert spec["encoders"]["video"].pop("carried")
    spec["objectives"] = {"vtm": spec["objectives"]["vtm"], "vtc": {"name": "univl_moco", "queue_size": 8}}
    fresh = build_model(spec, lookup_in(host().registry), BuildContext(assets=tmp_path / "imported" / "assets"))
    config = compose(["model=univl", "objective=[univl/moco,univl/vtm]"])
    allowed = {name: config[f"init_{name}"] for name in ("allow_missing", "allow_unused")}
    with caplog.at_level("INFO", logger="vtp"):
        load_weights(tmp_path / "imported", fresh, **allowed)
    assert "kept their own values: objectives.vtc.text_queue, " in caplog.text
    AfterStep(Parallel(fresh, TrainConfig(steps=1, global_batch=3), torch.device("cpu"))).begin()
    wanted = imported.state_dict()
    for name, tensor in fresh.state_dict().items():
        source = re.sub(r"^objectives\.vtc\.key_encoders\.(\w+)\.module\.", r"encoders.\1.", name)
        if source in wanted:
            assert torch.equal(tensor, wanted[source]), name
        else:
            assert "_queue" in name or name.endswith(".updates"), name
    loss = fresh.objectives["vtc"]
    assert loss.loss_from_features(loss.features(context(fresh, *example()))).loss.isfinite()


def test_names_below_module_and_position_numbers_come_back(tmp_path):
    state, _ = checkpoint("swin", FINETUNED)
    numbers = {f"model.module.{n}.position_ids": torch.arange(20)[None] for n in ("cross_embeddings",)}
    numbers["model.module.text_encoder.embeddings.position_ids"] = torch.arange(20)[None]
    numbers["model.module.img_proj"] = torch.randn(5, 128)
    _, report = run_import(state | numbers, tmp_path, wrap=lambda s: {f"module.{n}": t for n, t in s.items()})
    assert any("img_proj is never set by AntMMF" in note for note in report["notes"])
    equal(export(tmp_path), state | numbers)
    other = export_as(tmp_path, "form=pretraining")
    assert "model.model.module.text_encoder.pooler.dense.weight" in other
    assert "model.model.similarity_dense.0.weight" in other


def export_as(tmp_path, option):
    (tmp_path / "back.pth").unlink()
    return export(tmp_path, option)


@pytest.mark.slow
def test_a_resnet_written_as_a_sequence_comes_back(tmp_path):
    state, _ = checkpoint("resnet", FINETUNED)
    numbers = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
    at = "model.module.img_encoder.model."
    for name in [name for name in state if name.startswith(at)]:
        first, _, rest = name.removeprefix(at).partition(".")
        state[f"{at}{numbers[first]}.{rest}"] = state.pop(name)
    run_import(state, tmp_path)
    equal(export(tmp_path), state)


def test_without_decoder_bias_the_other_one_is_in_use(tmp_path):
    state, net = checkpoint("swin")
    state = {name: tensor for name, tensor in state.items() if not name.endswith("decoder.bias")}
    model, _ = run_import(state, tmp_path)
    want = state["model.mlm_head.transformer_mlm.cls.predictions.bias"]
    assert torch.equal(model.objectives["mlm"].decoder.bias, want)
    equal(export(tmp_path), state)


@pytest.mark.slow
def test_moco_is_left_out_or_kept(tmp_path):
    state, _ = checkpoint("pvt", moco=True)
    plain = {name: tensor for name, tensor in state.items() if ".moco_utils." not in name}
    (tmp_path / "without").mkdir()
    (tmp_path / "with").mkdir()
    model, report = run_import(state, tmp_path / "without")
    assert any("moco=true keeps them" in reason for reason in report["dropped"].values())
    equal(export(tmp_path / "without"), plain)
    model, _ = run_import(state, tmp_path / "with", "moco=true")
    vtc, at = model.objectives["vtc"], "model.model.moco_utils."
    assert torch.equal(vtc.text_queue, state[f"{at}txt_queue"]) and int(vtc.video_queue_ptr) == 4
    key = vtc.key_encoders["text"].module.bert.pooler.dense.weight
    assert torch.equal(key, state[f"{at}txt_encoder_k.pooler.dense.weight"])
    got = export(tmp_path / "with")
    head = {name for name in state if "img_encoder_k.model.head." in name}  # the key encoder's, which nothing reads
    equal(got, {name: tensor for name, tensor in state.items() if name not in head})


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: s | {"model.model.module.cross_encoder.layer.1.output.dense.bias": torch.ones(128)}, "1 pairs of"),
        (lambda s: s | {"model.model.module.temporal.weight": torch.ones(2)}, "1 tensors have no place.* temporal"),
        (lambda s: s | {"model.model.module.img_encoder.model.norm9.weight": torch.ones(2)}, "norm9|norm"),
        (lambda s: without(s, "model.model.module.cross_pooler.dense.bias"), "not in the file.*cross_pooler"),
        (lambda s: without(s, "model.model.module.text_encoder.pooler.dense.bias"), "second name of text_encoder.pool"),
        (
            lambda s: without(s, "model.model.module.cross_embeddings.LayerNorm.bias"),
            "lacks 1 of the names below cross",
        ),
        (lambda s: without(s, "model.model.module.img_encoder.model.block1.0.attn.q.bias"), "not in the file.*q.bias"),
        (lambda s: without(s, "model.model.module.img_encoder.model.block3.0.norm1.weight"), "its PVTv2 lacks"),
        (lambda s: without(s, "model.model.similarity_dense.0.weight"), "not whole: it lacks similarity_dense.0"),
        (lambda s: with_clip(s), "neither a PVTv2, a Video Swin nor a ResNet.* CLIP's vision transformer"),
        (lambda s: {"text.weight": torch.ones(2)}, "is no checkpoint of AntMMF's video-text models"),
    ],
)
def test_what_does_not_fit_is_an_error(change, message, tmp_path, capsys):
    torch.save(change(checkpoint("pvt")[0]), tmp_path / "f.pth")
    command = ["import", "antmmf", str(tmp_path / "f.pth"), str(tmp_path / "out"), f"tokenizer={vocabulary(tmp_path)}"]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert re.search(message, said), said
    assert not (tmp_path / "out").exists()


def with_clip(state):
    """Its image encoder under the names that OpenAI gave those of CLIP."""
    at = "model.model.module.img_encoder."
    kept = {name: tensor for name, tensor in state.items() if not name.startswith(f"{at}model.")}
    names = ("class_embedding", "conv1.weight", "transformer.resblocks.0.attn.in_proj_weight")
    return kept | {f"{at}vit.{name}": torch.ones(2) for name in names}


def without(state, name):
    return {key: tensor for key, tensor in state.items() if key != name}


def test_dmae(tmp_path):
    state, _ = checkpoint("swin", ("similarity", "dmae"))
    model, report = run_import(state, tmp_path)
    dmae, at = model.objectives["dmae"], "model.dmae_utils."
    assert torch.equal(dmae.text_weight_fc.weight, state[f"{at}text_weight_fc.weight"])
    assert torch.equal(dmae.v2t_linear_xwp.attn_proj[1].weight, state[f"{at}v2t_linear_xwp.attn_proj.1.weight"])
    assert dmae.partial_type == 4 and model.spec["encoders"]["text"]["max_length"] == 8
    ids, mask, frames = example()
    assert dmae.match_logits(context(model, ids, mask, frames)).isfinite().all()
    assert f"{at}t2v_linear_xwp.q_proj.weight".removeprefix("model.") in report["dropped"]
    equal(export(tmp_path), state)


@pytest.mark.slow
@pytest.mark.parametrize("interaction", ["ti", "att_ti", "att_wti"])
def test_interactions_of_dmae(interaction, tmp_path):
    state, _ = checkpoint("swin", ("similarity", "dmae"))
    model, _ = run_import(state, tmp_path, f"interaction={interaction}", "partial_type=3")
    assert model.objectives["dmae"].weighted is interaction.endswith("wti")
    equal(export(tmp_path), state)


def test_answers_have_names(tmp_path):
    state, _ = checkpoint("swin", ("clf",))
    (tmp_path / "answers.json").write_text('["red", "blue", "two"]')
    model, _ = run_import(state, tmp_path, f"answers={tmp_path / 'answers.json'}")
    assert model.answers == ("red", "blue", "two")
    assert torch.equal(model.objectives["qa"].head[-1].weight, state["model.clf.weight"])


def test_classes_of_clips(tmp_path):
    state, _ = checkpoint("swin", ("clf",))
    model, _ = run_import(state, tmp_path, "classifier=classification")
    assert set(model.objectives) == {"classification"} and model.answers == ("answer 0", "answer 1", "answer 2")
    assert torch.equal(model.objectives["classification"].head[-1].bias, state["model.clf.bias"])
    equal(export(tmp_path), state)


def test_mistakes_of_export_are_told(tmp_path, capsys):
    run_import(checkpoint("swin", FINETUNED)[0], tmp_path)
    for arguments, message in (
        (["simvtp", "a", "b"], "unrecognized arguments: b"),
        (["antmmf", "a"], "expected antmmf CHECKPOINT OUT"),
        (["antmmf", str(tmp_path / "imported"), str(tmp_path / "imported")], "exists already"),
        (["antmmf", str(tmp_path / "imported"), str(tmp_path / "x" / "y")], "there is no folder"),
        (["antmmf", str(tmp_path / "imported"), str(tmp_path / "y"), "form=dual"], "must be pretraining or finetuning"),
        (["antmmf", str(tmp_path / "imported"), str(tmp_path / "y"), "froms=dual"], "has no option 'froms'"),
    ):
        assert main(["export", *arguments]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "y").exists()
