"""vtp export: ONNX through onnxruntime, what goes in, what is refused."""

from __future__ import annotations

import contextlib
import io
import json
import sys

import numpy as np
import pytest
import torch

import vtp
from vtp.cli.export import _left_out
from vtp.cli.main import main
from vtp.errors import ConfigError
from vtp.run.check import contrast, lacks

pytestmark = [pytest.mark.usefixtures("in_process"), pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def libraries():
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="export needs it")


@pytest.fixture(scope="module")
def exported(libraries, dual_folder, tmp_path_factory):
    """The folder that `vtp export` wrote of the small dual model."""
    out = tmp_path_factory.mktemp("export") / "out"
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert main(["export", str(dual_folder), str(out)]) == 0
    assert "audio  is in the space of atc: --objective atc exports it\n" in said.getvalue()
    return out


@pytest.mark.slow
def test_onnxruntime_gives_the_embeddings_of_the_model_at_other_batches(exported, dual):
    import onnxruntime

    about = json.loads((exported / "export.json").read_text())
    assert set(about["towers"]) == {"video", "text"} and about["objective"] == "vtc"
    video, text = about["towers"]["video"], about["towers"]["text"]
    assert video["frames"] == 2 and video["size"] == 32 and len(video["mean"]) == len(video["std"]) == 3
    frames = np.random.default_rng(0).integers(0, 256, (5, 2, 32, 32, 3), dtype=np.uint8)
    pixels = ((frames / 255 - video["mean"]) / video["std"]).transpose(0, 1, 4, 2, 3).astype(np.float32)
    got = onnxruntime.InferenceSession(exported / video["file"]).run(None, {"video": pixels})[0]
    want = dual.encode(videos=list(frames)).videos
    np.testing.assert_allclose(got, want, atol=1e-5)

    ids = dual.module.specs()["text"].tokenize(["a red ball", "two"])
    length = max(map(len, ids))
    token_ids = np.array([row + [text["pad_id"]] * (length - len(row)) for row in ids])
    mask = np.arange(length) < np.array([[len(row)] for row in ids])
    session = onnxruntime.InferenceSession(exported / text["file"])
    got = session.run(None, {"token_ids": token_ids, "attention_mask": mask})[0]
    want = dual.encode(texts=["a red ball", "two"], objective="vtc").texts
    np.testing.assert_allclose(got, want, atol=1e-5)
    assert (exported / text["tokenizer"] / "tokenizer.json").is_file()


@pytest.mark.slow
@pytest.mark.usefixtures("libraries")
def test_a_tower_that_does_not_export_is_named_and_the_others_are_written(dual_folder, tmp_path, monkeypatch, capsys):
    whole = torch.onnx.export

    def only_text(program, *arguments, **named):
        if named["input_names"] == ["video"]:
            raise RuntimeError("no rule for aten::strange\nand much more")
        return whole(program, *arguments, **named)

    monkeypatch.setattr(torch.onnx, "export", only_text)
    assert main(["export", str(dual_folder), str(tmp_path / "out")]) == 1
    assert "video  does not export: RuntimeError: no rule for aten::strange\n" in capsys.readouterr().out
    assert sorted(p.name for p in (tmp_path / "out").glob("*.onnx")) == ["text.onnx"]
    told = json.loads((tmp_path / "out" / "export.json").read_text())["towers"]["video"]
    assert told["error"].endswith("aten::strange") and "file" not in told and told["frames"] == 2

    assert main(["export", str(dual_folder), str(tmp_path / "none"), "--tower", "video"]) == 1
    assert capsys.readouterr().out.endswith("nothing is written\n") and not (tmp_path / "none").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("libraries")
def test_sounds_in_the_space_that_has_them(dual_folder, dual, clips, tmp_path, capsys):
    import onnxruntime

    assert main(["export", str(dual_folder), str(tmp_path / "out"), "--tower", "video"]) == 0
    assert "--objective" not in capsys.readouterr().out
    assert main(["export", str(dual_folder), str(tmp_path / "heard"), "--objective", "atc", "--tower", "audio"]) == 0
    about = json.loads((tmp_path / "heard" / "export.json").read_text())["towers"]["audio"]
    sound = np.random.default_rng(0).uniform(-0.3, 0.3, about["inputs"]["waveform"][1]).astype(np.float32)
    given = {"waveform": sound[None], "lengths": np.array([len(sound)])}
    got = onnxruntime.InferenceSession(tmp_path / "heard" / about["file"]).run(None, given)[0]
    want = dual.encode(audios=[(sound, about["sample_rate"])], objective="atc").audios
    np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("libraries")
def test_other_numbers_than_those_of_torch_are_a_failure(dual_folder, tmp_path, monkeypatch, capsys):
    from vtp.use import export

    monkeypatch.setattr(export, "TOLERANCE", 1e-12)
    assert main(["export", str(dual_folder), str(tmp_path / "out"), "--tower", "text"]) == 1
    assert "text   does not export: onnxruntime gives other numbers" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.usefixtures("libraries")
def test_a_size_that_does_not_move_is_a_failure(dual_folder, tmp_path, monkeypatch, capsys):
    """torch.onnx.export alone would write a model for batches of two, and say nothing."""
    from vtp_encoders.tiny_text import TinyText

    forward = TinyText.forward

    def of_two(self, token_ids, attention_mask, **more):
        assert token_ids.shape[0] == 2 or not torch.compiler.is_exporting()
        return forward(self, token_ids, attention_mask, **more)

    monkeypatch.setattr(TinyText, "forward", of_two)
    assert main(["export", str(dual_folder), str(tmp_path / "out"), "--tower", "text"]) == 1
    assert "text   does not export: " in capsys.readouterr().out


@pytest.mark.usefixtures("libraries")
def test_mistakes_are_one_line(dual_folder, tmp_path, capsys):
    assert main(["export", str(dual_folder), str(tmp_path)]) == 2
    assert main(["export", str(dual_folder), str(tmp_path / "out"), "--objective", "vtx"]) == 2
    assert main(["export", str(dual_folder), str(tmp_path / "out"), "--tower", "audio"]) == 2
    assert main(["export", str(tmp_path / "nowhere"), str(tmp_path / "out")]) == 2
    assert main(["export", str(dual_folder), "/proc/out", "--tower", "text"]) == 2
    there, objective, tower, nowhere, proc = capsys.readouterr().err.splitlines()
    assert "is there already" in there
    assert objective.endswith(
        "--objective vtx is none that embeds, answers or matches. Those of this model that do: vtc, atc."
    )
    assert "vtc has video and text to export, and no audio. --objective atc has." in tower and "nowhere" in nowhere
    assert proc.startswith("vtp export: /proc/out: no folder can be made there")


@pytest.mark.parametrize("more", [("--tower", "text"), ("--objective", "vtc"), ("--opset", "20")])
def test_what_is_of_onnx_is_refused_for_a_whole_model(dual_folder, tmp_path, capsys, more):
    assert main(["export", str(dual_folder), str(tmp_path / "out"), "--format", "vtp", *more]) == 2
    assert "are of --format onnx" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("config", "option"),
    [
        ("{}", "encoder/video=NAME,encoder.video.model={}"),
        ('{"model_type": "clip"}', "model=clip,encoder.video.model={}"),
        ('{"model_type": "clap"}', "model=clap,encoder.audio.model={}"),
        ('{"model_type": "siglip"}', "model=siglip2,encoder.video.model={}"),
    ],
)
def test_a_folder_of_transformers_is_no_damaged_checkpoint(tmp_path, capsys, config, option):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(config)
    assert main(["export", str(folder), str(tmp_path / "out"), "--format", "vtp"]) == 2
    assert f"encoder: {option.format(folder)}" in capsys.readouterr().err


def test_format_vtp_replaces_nothing(tmp_path, capsys):
    (tmp_path / "out").mkdir()
    assert main(["export", str(tmp_path / "model"), str(tmp_path / "out"), "--format", "vtp"]) == 2
    assert "is there already. Name a new folder." in capsys.readouterr().err


def test_what_goes_in_is_told_whole(dual):
    from vtp.use.export import _preparing

    video, text = _preparing(dual, "video"), _preparing(dual, "text")
    assert (video["sampler"], video["eval_clips"], video["eval_resize"]) == ("auto", 1, None)
    assert text["example"]["token_ids"] == dual.module.specs()["text"].tokenize([text["example"]["text"]])[0]


def test_a_missing_library_is_one_line(dual_folder, tmp_path, capsys, monkeypatch):
    for package in ("onnx", "onnxscript"):
        monkeypatch.setitem(sys.modules, package, sys)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(["export", str(dual_folder), str(tmp_path / "out")]) == 2
    (missing,) = capsys.readouterr().err.splitlines()
    assert "needs the package onnxruntime" in missing and "pip install onnx onnxscript onnxruntime" in missing


def test_format_vtp_is_a_folder_that_loads(dual_folder, dual, tmp_path):
    assert main(["export", str(dual_folder), str(tmp_path / "out"), "--format", "vtp"]) == 0
    again = vtp.load(tmp_path / "out", device="cpu", workers=0)
    both = [model.encode(texts=["a"], objective="vtc").texts for model in (again, dual)]
    assert (both[0] == both[1]).all()


@pytest.mark.usefixtures("libraries")
def test_a_model_with_nothing_to_export_is_refused(fused, tmp_path, monkeypatch):
    from vtp.use.export import export

    monkeypatch.setattr("vtp.use.export.parts_of", lambda model: {})  # as of one that writes captions alone
    with pytest.raises(ConfigError, match=r"embeds, answers or matches. Train one with objective=\[vtc\].$"):
        export(fused, tmp_path / "out")


def test_a_size_that_torch_export_fixes_is_said_in_words():
    from vtp.use.export import _reason

    told = RuntimeError(
        'Constraints violated (batch, length)! For more information, run with TORCH_LOGS="+dynamic".\n - You'
    )
    assert _reason(told) == (
        "torch.export makes a constant of the number of rows and the length of texts, which must stay free"
    )


def test_what_can_be_exported_of_a_model(dual, fused):
    from vtp.use.export import parts_of

    assert parts_of(dual) == {"vtc": ["video", "text"], "atc": ["audio", "text"]}
    assert parts_of(fused) == {"qa": ["fused"]}
    told = _left_out({"vtc": ["video", "text"], "vtm": ["fused"], "atc": ["audio", "text"], "qa": ["fused"]})
    assert told == [
        "fused  with the head of vtm: --objective vtm exports it",
        "audio  is in the space of atc: --objective atc exports it",
        "fused  with the head of qa: --objective qa exports it",
    ]


@pytest.mark.slow
@pytest.mark.usefixtures("libraries")
def test_the_fused_model_answers_as_the_model_does(fused, tmp_path):
    import onnxruntime

    from vtp.use.export import export

    (one,) = export(fused, tmp_path / "out")
    assert one.part == "fused" and not one.error and one.difference < 1e-5
    about = json.loads((tmp_path / "out" / "export.json").read_text())["towers"]["fused"]
    assert about["answers"] == ["red", "two", "blue"] and about["output"] == "logits"
    assert [*about["inputs"]] == ["video", "token_ids", "attention_mask"]
    seen, read = about["reads"]["video"], about["reads"]["text"]
    frames = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    pixels = ((frames / 255 - seen["mean"]) / seen["std"]).transpose(0, 3, 1, 2).astype(np.float32)
    ids = np.array([fused.module.specs()["text"].tokenize(["what colour is the ball"])[0]])
    given = {"video": pixels[None], "token_ids": ids, "attention_mask": np.ones_like(ids, bool)}
    got = onnxruntime.InferenceSession(tmp_path / "out" / about["file"]).run(["logits"], given)[0][0]
    want = dict(fused.answer(frames, "what colour is the ball", top=3).ranking)
    probabilities = np.exp(got - got.max()) / np.exp(got - got.max()).sum()
    np.testing.assert_allclose(probabilities, [want[answer] for answer in about["answers"]], atol=1e-5)
    assert (tmp_path / "out" / read["tokenizer"] / "tokenizer.json").is_file()


@pytest.mark.slow
@pytest.mark.usefixtures("libraries")
def test_weights_that_a_file_does_not_hold_lie_beside_it(dual_folder, dual, tmp_path, monkeypatch):
    import onnxruntime

    from vtp.use import export

    monkeypatch.setattr(export, "WHOLE", 1000)
    assert main(["export", str(dual_folder), str(tmp_path / "made"), "--tower", "text"]) == 0
    folder = (tmp_path / "made").rename(tmp_path / "moved")
    text = json.loads((folder / "export.json").read_text())["towers"]["text"]
    whole = sum(tensor.nbytes for tensor in dual.module.encoders["text"].state_dict().values())
    assert text["data"] == "text.onnx.data" and (folder / text["data"]).stat().st_size >= 0.9 * whole
    ids = np.array([dual.module.specs()["text"].tokenize(["a red ball"])[0]])
    given = {"token_ids": ids, "attention_mask": np.ones_like(ids, bool)}
    got = onnxruntime.InferenceSession(folder / text["file"]).run(None, given)[0]
    np.testing.assert_allclose(got, dual.encode(texts=["a red ball"], objective="vtc").texts, atol=1e-5)


def test_what_is_advised_fits_the_model():
    assert lacks("embeds", None, [], ["audio", "text"]).endswith(
        "Train one with objective=[vtc] objectives.vtc.modalities=[audio,text]."
    )
    assert contrast(["video", "audio", "text"]) == contrast(["video"]) == "objective=[vtc]"
    assert contrast(["video", "audio"]) == "objective=[vtc] objectives.vtc.modalities=[video,audio]"
