"""Checkpoints of the released code and of VideoMAE, in every container that is around, and files that are something
else."""

from __future__ import annotations

import argparse
import json
import pickle
from collections import OrderedDict

import pytest
import torch
from simvtp_models import GOLDEN, build, dual_spec, random_batch, spec

from vtp.cli.main import main
from vtp.cli.run import compose
from vtp.errors import DataError
from vtp.eval.leaks import check_leaks
from vtp.model.build import lookup_in
from vtp.model.context import ForwardContext
from vtp.model.weights import load_model, load_weights, save_weights
from vtp.plugins import host
from vtp.run.stages import recorded
from vtp.storage import DirectoryTransaction
from vtp_simvtp.dual import import_dual
from vtp_simvtp.importer import import_simvtp
from vtp_simvtp.keys import DUAL, PRETRAIN

SMALL = {"heads": 4, "decoder_heads": 2, "frames": 4, "size": 32}
FLAGS = ["heads=4", "decoder_heads=2", "frames=4", "size=32"]


@pytest.fixture
def original():
    """The 58 tensors of the recorded step, under the released code's names."""
    if not GOLDEN.is_file():
        pytest.skip(f"the recorded step of the released code is not at {GOLDEN}")
    return torch.load(GOLDEN, weights_only=True)["state_dict"]


def original_dual(vocab):
    """A fine-tuned checkpoint under the released code's names, random weights."""
    torch.manual_seed(3)
    model = build(dual_spec(vocab, released=True))
    state, unknown = DUAL.to_theirs({k: torch.randn_like(v) for k, v in model.state_dict().items()})
    assert not unknown
    return state


def deepspeed(folder, state):
    folder.mkdir(parents=True)
    torch.save(
        {"module": {k: v.half() for k, v in state.items()}, "dp_world_size": 8}, folder / "mp_rank_00_model_states.pt"
    )
    return folder


CONTAINERS = {
    "bare": lambda state, folder: torch.save(state, folder / "a.pth"),
    "ordered": lambda state, folder: torch.save(OrderedDict(state), folder / "a.pth"),
    "training": lambda state, folder: torch.save(
        {"model": state, "epoch": 3, "scaler": {}, "args": argparse.Namespace(lr=1.0)}, folder / "a.pth"
    ),
    "half": lambda state, folder: torch.save({"module": {k: v.half() for k, v in state.items()}}, folder / "a.pth"),
    "wrapped": lambda state, folder: torch.save({"module." + k: v for k, v in state.items()}, folder / "a.pth"),
    "position_ids": lambda state, folder: torch.save(
        state | {"text_embeddings.position_ids": torch.arange(512)[None]}, folder / "a.pth"
    ),
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_pretrained(container, original, vocab, tmp_path):
    CONTAINERS[container](original, tmp_path)
    made, state, report = import_simvtp(tmp_path / "a.pth", tokenizer=str(vocab), **SMALL)
    model = build(made)
    model.load_state_dict(state, strict=True)
    atol = 1e-3 if container == "half" else 0
    back, _ = PRETRAIN.to_theirs(model.state_dict())
    assert set(back) == set(original)
    assert all(torch.allclose(back[name], original[name], atol=atol, rtol=0) for name in original)
    assert set(report["used"]) == set(original)
    assert set(report["dropped"]) == ({"text_embeddings.position_ids"} if container == "position_ids" else set())


@pytest.mark.parametrize("variant", ["released", None])
def test_an_imported_model_goes_on_with_the_choices_of_the_recipe(variant, original, vocab, tmp_path):
    """Its objectives and masks are those of a run that chooses them, but for the sizes that the file tells."""
    torch.save({"model": original}, tmp_path / "a.pth")
    made, _, _ = import_simvtp(tmp_path / "a.pth", tokenizer=str(vocab), variant=variant, **SMALL)
    chosen = "objective=[mvm,simvtp/mlm,simvtp/vtc,simvtp/vtm]"
    recipe = compose(["model=simvtp", f"variant={variant or 'null'}", chosen])
    sizes = {name: value for name, value in made["objectives"]["mvm"].items() if name.startswith("decoder")}
    recipe["objectives"]["mvm"] |= sizes
    assert {key: made[key] for key in ("objectives", "masks", "variant")} == {
        key: recipe[key] for key in ("objectives", "masks", "variant")
    }
    assert recipe["masks"]["text"] == {"probability": 0.75, "replace": "mask", "whole_words": False}
    assert recipe["objectives"]["vtc"]["negatives_from"] == ("local" if variant else "gathered")


@pytest.mark.parametrize("where", ["", "checkpoint-best", "tag"])
def test_deepspeed_folders(where, vocab, tmp_path):
    state = original_dual(vocab)
    folder = tmp_path / "run"
    deepspeed(folder / where, state)
    if where == "tag":
        (folder / "latest").write_text("tag\n")
    made, tensors, report = import_simvtp(folder, tokenizer=str(vocab), **SMALL)
    model = build(made)
    model.load_state_dict(tensors, strict=True)
    assert report["kind"] == "fine-tuned SimVTP" and len(report["used"]) == len(state)
    assert "float16 converted to float32" in report["notes"]
    assert all(value.dtype == torch.float32 for value in tensors.values())


def test_several_deepspeed_checkpoints_are_named(vocab, tmp_path):
    for name in ("checkpoint-1", "checkpoint-2"):
        deepspeed(tmp_path / "run" / name, {"x": torch.zeros(1)})
    with pytest.raises(DataError, match=r"checkpoint-1/.*checkpoint-2/"):
        import_simvtp(tmp_path / "run")


def test_fine_tuned_repaired_drops_the_unused_weights(vocab, tmp_path):
    state = original_dual(vocab)
    torch.save({"module": state}, tmp_path / "a.pth")
    made, tensors, report = import_simvtp(tmp_path / "a.pth", tokenizer=str(vocab), variant=None, **SMALL)
    build(made).load_state_dict(tensors, strict=True)
    dead = {n for n in state if n.startswith(("video_encoder.text_embeddings.", "text_encoder.patch_embed."))}
    assert len(dead) == 7 and set(report["dropped"]) == dead


@pytest.mark.parametrize("released", [True, False])
def test_two_towers_from_the_pretrained_encoder(released, original, vocab, tmp_path):
    torch.save({"model": original}, tmp_path / "a.pth")
    made, tensors, report = import_dual(
        tmp_path / "a.pth", tokenizer=str(vocab), variant="released" if released else None, heads=4, frames=4, size=32
    )
    model = build(made)
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert not unexpected
    got, _ = DUAL.to_theirs(model.state_dict())
    for tower in ("video_encoder", "text_encoder"):
        assert torch.equal(got[f"{tower}.blocks.1.attn.q_bias"], original["encoder.blocks.1.attn.q_bias"])
        norm = model.encoders[tower[:-8]].tower
        if released:
            assert torch.equal(norm.fc_norm.weight, torch.ones(96)) and norm.norm is None
        else:
            assert torch.equal(norm.norm.weight, original["encoder.norm.weight"]) and norm.fc_norm is None
    assert bool(missing) == released and all("unused" in name or "fc_norm" in name for name in missing)
    assert {"mask_token", "decoder.head.bias", "text_cls.bias", "vtm_head.bias"} <= set(report["dropped"])
    assert ("encoder.norm.weight" in report["dropped"]) == released


def test_two_towers_from_a_vtp_checkpoint(vocab, tmp_path):
    model = build(spec(vocab))
    save_weights(tmp_path / "run", model)
    made, tensors, _ = import_dual(tmp_path / "run")
    towers = build(made)
    towers.load_state_dict(tensors, strict=True)
    assert torch.equal(towers.encoders["video"].tower.norm.weight, model.encoders["fusion"].norm.weight)
    assert towers.encoders["text"].tower.blocks[0].attn.heads == 4


@pytest.mark.parametrize("given", ["", "checkpoints/last", "the folder of model.safetensors"])
def test_two_towers_remember_what_the_shared_model_was_trained_on(given, vocab, tmp_path):
    stages = [{"stage": "pre-training", "media": ["webvid:a"]}, {"stage": "mine", "media": ["msrvtt:video7010"]}]
    step = tmp_path / "run/checkpoints/step_00000002" if "model" not in given else tmp_path / "run"
    with DirectoryTransaction(step, 0) as folder:
        save_weights(folder, build(spec(vocab)), {"stages": stages})
        for name in ("optimizer.safetensors", "trainer.json", "rng.json"):  # what a run's checkpoint has besides
            (folder / name).touch()
    if given == "checkpoints/last":
        (step.parent / "last").symlink_to(step.name)
    source = tmp_path / "run" / ("" if "model" in given else given)  # the folder of weights, of a run, or a pointer
    assert main(["import", "simvtp_dual", str(source), str(tmp_path / "towers")]) == 0
    assert recorded(tmp_path / "towers") == stages
    with pytest.raises(DataError, match="LEAK: 1 of 1 test clips were in training .stage mine"):
        check_leaks(recorded(tmp_path / "towers"), ["msrvtt:video7010"])


def test_of_a_foreign_checkpoint_nothing_is_known(original, vocab, tmp_path):
    torch.save({"model": original}, tmp_path / "a.pth")
    assert main(["import", "simvtp", str(tmp_path / "a.pth"), str(tmp_path / "o"), f"tokenizer={vocab}", *FLAGS]) == 0
    assert check_leaks(recorded(tmp_path / "o"), ["msrvtt:video7010"]).unknown == ("o",)


def test_command_writes_a_checkpoint_that_loads(original, vocab, tmp_path, capsys):
    torch.save({"model": original, "args": argparse.Namespace()}, tmp_path / "a.pth")
    out = tmp_path / "out"
    assert main(["import", "simvtp", str(tmp_path / "a.pth"), str(out), f"tokenizer={vocab}", *FLAGS]) == 0
    shown = capsys.readouterr().out
    assert "58 tensors used, 342,314 parameters" in shown
    assert json.loads((out / "import_report.json").read_text())["kind"] == "pre-trained SimVTP"
    vocab.unlink()  # the checkpoint keeps its tokenizer
    model = load_model(out, lookup_in(host().registry))
    assert torch.equal(PRETRAIN.to_theirs(model.state_dict())[0]["vtm_head.bias"], original["vtm_head.bias"])
    assert load_weights(out, model).missing == []


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["import", "simvtp", "nowhere.pth", "out"], "does not exist"),
        (["import", "simvtp", "a.pth"], "NAME FILE OUT"),
        (["import", "simvt", "a.pth", "out"], "simvtp"),
    ],
)
def test_command_explains_mistakes(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert words in capsys.readouterr().err


def test_command_never_overwrites(original, vocab, tmp_path, capsys):
    torch.save(original, tmp_path / "a.pth")
    (tmp_path / "out").mkdir()
    assert main(["import", "simvtp", str(tmp_path / "a.pth"), str(tmp_path / "out")]) == 2
    assert "exists already" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_described(original, vocab, tmp_path, capsys):
    broken = dict(original)
    del broken["encoder.blocks.1.mlp.fc2.bias"]
    broken["text_cls.bias"] = torch.zeros(7)
    torch.save(broken, tmp_path / "a.pth")
    assert main(["import", "simvtp", str(tmp_path / "a.pth"), str(tmp_path / "o"), f"tokenizer={vocab}", *FLAGS]) == 2
    message = capsys.readouterr().err
    assert "1 tensors of the model are not in the file: encoders.fusion.blocks.1.mlp.fc2.bias" in message
    assert "objectives.mlm.head.0.bias has shape (7,) in the file, (120,) in the model" in message
    assert not (tmp_path / "o").exists()


class Payload:
    def __reduce__(self):
        return (print, ("executed",))


WRONG = {
    "code": (lambda f: torch.save({"model": {"a": torch.zeros(1)}, "x": Payload()}, f), "would have to be executed"),
    "garbage": (lambda f: f.write_bytes(b"not a checkpoint"), "is not a checkpoint that PyTorch can read"),
    "pickle": (lambda f: f.write_bytes(pickle.dumps({"a": Payload()})), "print|not a checkpoint"),
    "empty": (lambda f: torch.save({"model": {}}, f), "holds no tensors"),
    "list": (lambda f: torch.save([torch.zeros(1)], f), "holds a list"),
    "other": (lambda f: torch.save({"conv1.weight": torch.zeros(2, 3, 7, 7)}, f), "neither a SimVTP nor a VideoMAE"),
    "image": (
        lambda f: torch.save(
            {"patch_embed.proj.weight": torch.zeros(64, 3, 16, 16), "blocks.0.attn.qkv.weight": torch.zeros(192, 64)}, f
        ),
        "Conv3d weight",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_files_get_a_clear_error(kind, tmp_path, capsys):
    write, words = WRONG[kind]
    write(tmp_path / "a.pth")
    with pytest.raises(DataError, match=words):
        import_simvtp(tmp_path / "a.pth")
    assert "executed" not in capsys.readouterr().out


def test_heads_are_asked_for_where_the_width_does_not_tell(original, vocab, tmp_path):
    torch.save(original, tmp_path / "a.pth")
    with pytest.raises(DataError, match="heads="):
        import_simvtp(tmp_path / "a.pth", tokenizer=str(vocab), frames=4, size=32)


def hugging_face():
    from transformers import VideoMAEConfig

    return VideoMAEConfig(
        image_size=32, patch_size=8, num_frames=4, tubelet_size=2, hidden_size=48, num_hidden_layers=2,
        num_attention_heads=4, intermediate_size=192, decoder_num_attention_heads=2, decoder_hidden_size=24,
        decoder_num_hidden_layers=1, decoder_intermediate_size=96, use_mean_pooling=False, layer_norm_eps=1e-6,
    )  # fmt: skip


def randomised(module):
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return module.eval()


@pytest.mark.parametrize("naming", ["now", "before"])
def test_videomae_of_transformers_computes_the_same(naming, tmp_path):
    """Loss and prediction of transformers' own VideoMAE are the oracle; both names of the biases are read."""
    from transformers import VideoMAEForPreTraining

    theirs = randomised(VideoMAEForPreTraining(hugging_face()))
    theirs.save_pretrained(tmp_path)
    if naming == "before":
        state = {
            k.replace("query.bias", "q_bias").replace("value.bias", "v_bias"): v for k, v in theirs.state_dict().items()
        }
        (tmp_path / "model.safetensors").unlink()
        torch.save(state, tmp_path / "pytorch_model.bin")
    made, tensors, report = import_simvtp(tmp_path)
    assert report["kind"] == "pre-trained VideoMAE" and report["dropped"] == {}
    model = build(made)
    model.load_state_dict(tensors, strict=True)
    model.eval()

    batch = random_batch(2)
    del batch.inputs["text"], batch.present["text"]
    ctx = ForwardContext(model, batch)
    mvm = model.objectives["mvm"]
    mask = ctx.inputs("video", ctx.masked("video"))["mask"]
    frames = (batch.inputs["video"]["frames"] / 255 - mvm.mean) / mvm.std
    with torch.no_grad():
        want = theirs(frames.permute(0, 1, 4, 2, 3), bool_masked_pos=mask)
        torch.testing.assert_close(mvm.predict(ctx), want.logits, atol=2e-5, rtol=0)
        assert mvm(ctx).loss.item() == pytest.approx(want.loss.item(), rel=1e-5)


def test_videomae_in_its_own_naming(original, tmp_path):
    names = ("encoder.", "decoder.", "encoder_to_decoder.", "mask_token")
    torch.save({"model": {k: v for k, v in original.items() if k.startswith(names)}}, tmp_path / "a.pth")
    made, tensors, report = import_simvtp(tmp_path / "a.pth", **SMALL)
    assert report["kind"] == "pre-trained VideoMAE" and set(made["encoders"]) == {"video", "fusion"}
    build(made).load_state_dict(tensors, strict=True)


def test_videomae_with_the_words_of_a_bert(original, vocab, tmp_path):
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=120, hidden_size=96, num_hidden_layers=1, num_attention_heads=4, intermediate_size=8,
        max_position_embeddings=64,
    )  # fmt: skip
    bert = randomised(BertModel(config))
    bert.save_pretrained(tmp_path / "bert")
    names = ("encoder.", "decoder.", "encoder_to_decoder.", "mask_token")
    torch.save({"model": {k: v for k, v in original.items() if k.startswith(names)}}, tmp_path / "a.pth")
    made, tensors, report = import_simvtp(
        tmp_path / "a.pth", tokenizer=str(vocab), bert=str(tmp_path / "bert"), **SMALL
    )
    model = build(made).eval()
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert not unexpected and {name.split(".")[1] for name in missing} == {"mlm", "vtm"}
    batch = random_batch(2)
    ids = batch.inputs["text"]["token_ids"]
    with torch.no_grad():
        got = ForwardContext(model, batch).tokens("text").x
        torch.testing.assert_close(got, bert.embeddings(ids), atol=1e-6, rtol=0)


def test_videomae_classifier_becomes_a_video_tower(tmp_path):
    from transformers import VideoMAEForVideoClassification

    config = hugging_face()
    config.use_mean_pooling = True
    theirs = randomised(VideoMAEForVideoClassification(config))
    theirs.save_pretrained(tmp_path)
    made, tensors, report = import_simvtp(tmp_path)
    assert report["kind"] == "VideoMAE encoder" and set(report["dropped"]) == {"classifier.weight", "classifier.bias"}
    model = build(made)
    model.load_state_dict(tensors, strict=True)
    batch = random_batch(2)
    del batch.inputs["text"], batch.present["text"]
    frames = (batch.inputs["video"]["frames"] / 255 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor(
        [0.229, 0.224, 0.225]
    )
    seen = []
    theirs.classifier.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    with torch.no_grad():
        theirs(frames.permute(0, 1, 4, 2, 3))
        got = ForwardContext(model.eval(), batch).pooled("video")
    # transformers' last norm has eps 1e-5, VideoMAE's own code and ours 1e-6
    torch.testing.assert_close(got, seen[0], atol=1e-4, rtol=0)


def test_options_of_a_wrong_type_are_one_line(tmp_path, capsys):
    file = tmp_path / "a.pth"
    file.touch()
    assert main(["import", "simvtp", str(file), str(tmp_path / "out"), "heads=many", "frame=4", "legacy=true"]) == 2
    told = capsys.readouterr().err.splitlines()
    assert told[0].endswith("3 problems:") and told[1].strip() == "heads: expected int or null, got 'many'"
    assert "simvtp has no option 'frame'. Did you mean 'frames'? Options: tokenizer, bert, heads" in told[2]
    assert told[3].strip() == "legacy is now variant=released"


def test_videomae_classifier_in_its_own_naming(original, tmp_path):
    state = {k.removeprefix("encoder."): v for k, v in original.items() if k.startswith("encoder.")}
    state |= {f"fc_norm.{k}": state.pop(f"norm.{k}") for k in ("weight", "bias")} | {"head.weight": torch.zeros(9, 96)}
    torch.save({"module": state}, tmp_path / "a.pth")
    made, tensors, report = import_simvtp(tmp_path / "a.pth", **SMALL)
    assert report["dropped"] == {"head.weight": "no part of the model"}
    assert set(report["used"]) == set(state) - {"head.weight"}
    model = build(made)
    model.load_state_dict(tensors, strict=True)
    assert torch.equal(model.encoders["video"].tower.fc_norm.weight, state["fc_norm.weight"])


def test_a_checkpoint_with_an_old_option_says_what_it_is_now(vocab, tmp_path):
    save_weights(tmp_path / "run", build(spec(vocab)))
    file = tmp_path / "run" / "config.json"
    config = json.loads(file.read_text())
    config["spec"]["encoders"]["fusion"]["legacy"] = True
    file.write_text(json.dumps(config))
    with pytest.raises(DataError, match=r"cannot be built here .*: encoder\.fusion\.legacy is now variant=released$"):
        load_model(tmp_path / "run", lookup_in(host().registry))
