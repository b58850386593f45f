"""Model: what goes in, what comes out, what is refused, and the way to a folder and back."""

from __future__ import annotations

import subprocess
import sys
import wave

import numpy as np
import pytest
import torch

import vtp
from vtp.errors import ConfigError, DataError
from vtp.media import Wanted, read_clip
from vtp.types import Batch, MediaRef

pytestmark = pytest.mark.usefixtures("in_process")


def frames_of(path):
    return read_clip(MediaRef(str(path)), Wanted()).frames


def sound_of(path):
    with wave.open(str(path)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768, file.getframerate()


def by_hand(model, frames):
    """The embedding of clips (B, 16, 32, 32, 3), written out: the middles of two halves, one forward pass."""
    chosen = torch.from_numpy(frames[:, [4, 12]])  # of 16 frames that are 1/4 s each: on screen after 1 s and 3 s
    rows = torch.ones(len(chosen), dtype=torch.bool)
    batch = Batch([str(i) for i in range(len(chosen))], {"video": {"frames": chosen}}, {"video": rows})
    with torch.no_grad():
        return model.module(batch, run=lambda ctx: model.module.objectives["vtc"].embed(ctx, "video")).numpy()


# -- encode ----------------------------------------------------------------------------------------------------------


def test_importing_vtp_imports_nothing_heavy():
    code = (
        "import sys, vtp; print(sorted({'torch', 'numpy', 'av', 'hydra', 'transformers'} & {*sys.modules}), vtp.load)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.startswith("[] <function load")


def test_names_are_offered_where_they_are_typed():
    assert {*vtp.__all__} <= {*dir(vtp)}
    with pytest.raises(AttributeError, match="has no attribute 'lod'"):
        vtp.lod  # noqa: B018


@pytest.mark.slow
def test_a_type_checker_knows_what_is_there(tmp_path):
    pytest.importorskip("mypy")
    (tmp_path / "script.py").write_text(
        "import vtp\n"
        'model = vtp.load("outputs/mine")\n'
        'found: vtp.Encoded = model.encode(videos=(name for name in ["a.mp4"]), texts=["a"])\n'
        'text: str = model.answer("a.mp4", "who").text\n'
        "model.encode(videos=3)\n"
        'vtp.lod("outputs/mine")\n'
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "script.py"]
    out = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path).stdout
    assert [line.split(" error: ")[0] for line in out.splitlines()] == ["script.py:5:", "script.py:6:"], out


def test_an_embedding_is_that_of_the_forward_pass(dual, clips):
    frames = np.stack([frames_of(clips / f"{name}.mp4") for name in "ab"])
    want = by_hand(dual, frames)
    got = dual.encode(videos=[clips / "a.mp4", str(clips / "b.mp4")]).videos
    np.testing.assert_allclose(got, want, atol=1e-6)
    assert got.dtype == np.float32 and not np.allclose(got[0], got[1])
    one_by_one = dual.encode(videos=[clips / "a.mp4", clips / "b.mp4"], batch_size=1).videos
    np.testing.assert_allclose(one_by_one, want, atol=1e-6)


def test_frames_in_memory_are_the_file(dual, clips):
    frames = frames_of(clips / "a.mp4")
    (path, array, tensor, content, ref) = dual.encode(
        videos=[
            clips / "a.mp4",
            frames,
            torch.from_numpy(frames),
            (clips / "a.mp4").read_bytes(),
            MediaRef(str(clips / "a.mp4")),
        ]
    ).videos
    for other in (array, tensor, content, ref):
        np.testing.assert_array_equal(path, other)


def test_a_span_is_the_frames_in_it(dual, clips):
    path = clips / "b.mp4"
    span, cut, rest, tail = dual.encode(
        videos=[(path, 1, 2.5), frames_of(path)[4:10], (path, 2, None), frames_of(path)[8:]]
    ).videos
    np.testing.assert_array_equal(span, cut)
    np.testing.assert_array_equal(rest, tail)
    assert not np.array_equal(span, rest)


def test_a_sound_in_memory_is_the_file(dual, clips):
    waveform, rate = sound_of(clips / "tone.wav")
    stereo = np.stack([waveform, waveform])
    first, *others = dual.encode(
        audios=[clips / "tone.wav", (waveform, rate), (stereo, rate), (torch.from_numpy(waveform.copy()), rate)]
    ).audios
    for other in others:
        np.testing.assert_allclose(first, other, atol=1e-6)
    span, cut = dual.encode(audios=[(clips / "tone.wav", 0.5, 1.5), (waveform[8000:24000], rate)]).audios
    np.testing.assert_allclose(span, cut, atol=1e-5)


def test_an_image_is_a_video_of_one_frame(dual):
    picture = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    one, other = dual.encode(videos=[picture, np.stack([picture] * 4)]).videos
    np.testing.assert_array_equal(one, other)


def test_workers_and_batches_do_not_matter(dual, dual_folder, clips):
    videos = [clips / "a.mp4", (clips / "b.mp4", 0, 2), clips / "broken.mp4", clips / "b.mp4"]
    want = dual.encode(videos=videos, on_bad="nan")
    got = vtp.load(dual_folder, device="cpu", workers=2).encode(videos=videos, on_bad="nan", batch_size=1)
    np.testing.assert_allclose(got.videos, want.videos, atol=1e-6)
    assert got.bad == want.bad and [*np.isnan(got.videos).all(1)] == [False, False, True, False]


def test_bad_files_are_named_and_keep_their_rows(dual, clips):
    given = [clips / "broken.mp4", clips / "a.mp4", (clips / "gone.mp4", 1, 2), clips / "tone.wav"]
    with pytest.raises(DataError, match=r"^3 of 4 videos cannot be used: .*broken\.mp4: .*gone\.mp4\[1-2\]: no such"):
        dual.encode(videos=given)
    found = dual.encode(videos=given, texts=["a"], on_bad="nan")
    assert [*found.bad] == [str(clips / "broken.mp4"), f"{clips / 'gone.mp4'}[1-2]", str(clips / "tone.wav")]
    np.testing.assert_array_equal(found.videos[1], dual.encode(videos=[clips / "a.mp4"]).videos[0])
    assert [*np.isnan(found.videos).any(1)] == [True, False, True, True] and np.isfinite(found.texts).all()


def test_without_a_single_good_file_it_is_an_error(dual, clips):
    with pytest.raises(DataError, match=r"^1 of 1 videos cannot be used: .*broken"):
        dual.encode(videos=[clips / "broken.mp4"], on_bad="nan")


def test_an_embedding_that_is_no_number_is_bad(dual, dual_folder, clips):
    model = vtp.load(dual_folder, device="cpu", workers=0)
    model.module.objectives["vtc"].proj["video"].weight.data.fill_(torch.nan)
    with pytest.raises(DataError, match="its embedding is no number"):
        model.encode(videos=[clips / "a.mp4"])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"videos": "a.mp4"}, r"videos='a.mp4' must be a list, of one with brackets around it"),
        ({"videos": [np.zeros((2, 4, 4, 3))]}, r"videos\[0\]=<float64 \(2, 4, 4, 3\)> must be a path, .*uint8"),
        ({"videos": [None]}, r"videos\[0\]=None must be"),
        ({"videos": [("a", 1)]}, r"videos\[0\]=\('a', 1\) must be"),
        ({"texts": ["a", 3]}, r"texts\[1\]=3 must be a string"),
        ({"audios": [(np.zeros(9, np.int16), 16000)]}, r"audios\[0\]=\(<int16 \(9,\)>, 16000\) must .* with floats"),
        ({"audios": [(np.zeros((9, 2), np.float32), 16000)]}, r"<float32 \(9, 2\)>.* or \(channels, S\)"),
        ({"audios": [(np.zeros(9, np.float32), float("inf"))]}, "Hz"),
        ({"audios": [(np.zeros(9, np.float32), 16000.5)]}, "Hz"),
        ({"audios": [(np.zeros(9, np.float32), 10**9)]}, "Hz"),
        ({"videos": [torch.zeros(2, 4, 4, 3)]}, r"videos\[0\]=<torch.float32 \(2, 4, 4, 3\)> must be"),
        ({"videos": torch.zeros(2, 4, 4, 3, dtype=torch.uint8)}, "must be a list"),  # one clip, or two pictures?
        ({"videos": [("a.mp4", float("nan"), 1)]}, "nan.* must be"),
        ({"texts": {"a", "b"}}, "must be a list"),
        ({"texts": {"a": 1}}, "must be a list"),
        ({"texts": ["a", "\ud800"]}, r"texts\[1\] has half a character in it, \\ud800"),
    ],
)
def test_what_is_no_item_is_refused(dual, given, said):
    with pytest.raises(DataError, match=said) as told:
        dual.encode(objective="vtc" if "audios" not in given else "atc", **given)
    assert "\n" not in str(told.value)


def test_whatever_gives_items_one_by_one_is_a_list(dual):
    want = dual.encode(texts=["two", "red"], objective="vtc").texts
    for given in (iter(["two", "red"]), np.array(["two", "red"]), {"two": 0, "red": 1}.keys(), ("two", "red")):
        np.testing.assert_array_equal(dual.encode(texts=given, objective="vtc").texts, want)
    picture = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    one, other = dual.encode(videos=[[picture] * 3, np.stack([picture] * 3)]).videos  # three frames, no span
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("method", "given"),
    [
        ("encode", {"batch_size": 0}),
        ("encode", {"batch_size": 1.5}),
        ("answer", {"top": 0}),
        ("caption", {"beams": 0}),
        ("caption", {"max_length": 0}),
        ("caption", {"length_penalty": "long"}),
    ],
)
def test_numbers_that_cannot_be_are_refused(fused, method, given):
    ((name, value),) = given.items()
    items = {"encode": {"texts": ["a"]}, "answer": {"video": "a.mp4", "question": "a"}, "caption": {"video": "a.mp4"}}
    with pytest.raises(ConfigError, match=f"^{method}: {name}={value!r} must be (int|float)"):
        vtp.Model.__dict__[method](fused, **items[method], **given)


def test_texts_are_embedded_in_the_space_of_what_they_are_compared_with(dual, clips):
    both = dual.encode(texts=["two"], audios=[clips / "tone.wav"])
    np.testing.assert_array_equal(both.texts, dual.encode(texts=["two"], objective="atc").texts)
    assert not np.allclose(both.texts, dual.encode(texts=["two"], objective="vtc").texts)
    with pytest.raises(ConfigError, match="texts alone have several embeddings, by vtc: video, text; atc: audio, text"):
        dual.encode(texts=["two"])
    with pytest.raises(ConfigError, match="no objective of this model compares videos and sounds with each other"):
        dual.encode(videos=[clips / "a.mp4"], audios=[clips / "tone.wav"])
    with pytest.raises(ConfigError, match="objective='atc' does not embed videos"):
        dual.encode(videos=[clips / "a.mp4"], objective="atc")


def test_tensors_and_similarities(dual, clips):
    found = dual.encode(videos=[clips / "a.mp4", clips / "broken.mp4"], texts=["two", "red"], on_bad="nan")
    scores = dual.similarity(found.texts, found.videos)
    np.testing.assert_allclose(scores[:, 0], [t @ found.videos[0] for t in found.texts], atol=1e-6)
    assert scores.shape == (2, 2) and np.isnan(scores[:, 1]).all()
    as_tensors = dual.encode(texts=["two", "red"], objective="vtc", tensors="torch").texts
    assert isinstance(as_tensors, torch.Tensor) and isinstance(dual.similarity(as_tensors, as_tensors), torch.Tensor)
    half = as_tensors.bfloat16().requires_grad_()
    torch.testing.assert_close(dual.similarity(half, half), half.detach().float() @ half.detach().float().T)
    with pytest.raises(DataError, match=r"got \(2, 8\) and \(2, 7\)"):
        dual.similarity(found.texts, found.texts[:, :7])
    with pytest.raises(DataError, match="got a Encoded and a str"):
        dual.similarity(found, "a")


# -- answers and captions --------------------------------------------------------------------------------------------


def test_an_answer_is_the_likeliest_of_the_list(fused, clips):
    frames = torch.from_numpy(frames_of(clips / "a.mp4")[None, [4, 12]])
    question = "what colour is the ball"
    ids = torch.tensor(fused.module.specs()["text"].tokenize([question]))
    there = torch.ones(1, dtype=torch.bool)
    inputs = {"video": {"frames": frames}, "text": {"token_ids": ids, "attention_mask": torch.ones_like(ids).bool()}}
    batch = Batch(["0"], inputs, {"video": there, "text": there})
    with torch.no_grad():
        want = fused.module(batch, run=lambda ctx: fused.module.objectives["qa"].logits(ctx))[0].softmax(0)
    answer = fused.answer(clips / "a.mp4", question, top=2)
    assert answer.text == fused.module.answers[int(want.argmax())] and len(answer.ranking) == 2
    assert answer.probability == pytest.approx(float(want.max()), abs=1e-5)
    assert answer.ranking[0] == (answer.text, answer.probability) and answer.ranking[1][1] <= answer.probability


def test_a_caption_is_what_the_decoder_writes(fused, clips):
    frames = torch.from_numpy(frames_of(clips / "b.mp4")[None, [4, 12]])
    batch = Batch(["0"], {"video": {"frames": frames}}, {"video": torch.ones(1, dtype=torch.bool)})
    with torch.no_grad():
        ids = fused.module(batch, run=lambda ctx: fused.module.objectives["caption"].generate(ctx, max_length=6)[0])
    want = fused.module.specs()["text"].detokenize(ids[0].tolist())
    assert fused.caption(clips / "b.mp4", beams=1, max_length=6) == want and want


def test_what_a_model_cannot_do_is_said(dual, fused, clips):
    with pytest.raises(ConfigError, match=r"no objective that embeds videos \(it has: qa, caption\)"):
        fused.encode(videos=[clips / "a.mp4"])
    with pytest.raises(ConfigError, match=r"no objective that answers questions \(it has: vtc, atc\)"):
        dual.answer(clips / "a.mp4", "who")
    with pytest.raises(ConfigError, match="no objective that writes captions"):
        dual.caption(clips / "a.mp4")
    with pytest.raises(DataError, match=r"1 of 1 videos cannot be used: .*broken\.mp4"):
        fused.answer(clips / "broken.mp4", "who")
    with pytest.raises(DataError, match="question=None must be a string"):
        fused.answer(clips / "a.mp4", None)


# -- to a folder and back --------------------------------------------------------------------------------------------


def test_a_folder_gives_the_same_model_to_the_last_bit(dual, fused, clips, tmp_path):
    again = vtp.load(dual.save(tmp_path / "dual"), device="cpu", workers=0)
    given = {"videos": [clips / "a.mp4"], "texts": ["two blue stars"]}
    first, second = dual.encode(**given), again.encode(**given)
    assert first.videos.tobytes() == second.videos.tobytes() and first.texts.tobytes() == second.texts.tobytes()
    assert again.fingerprint == dual.fingerprint != fused.fingerprint
    asked = fused.answer(clips / "a.mp4", "who")
    assert vtp.load(fused.save(tmp_path / "fused"), device="cpu").answer(clips / "a.mp4", "who") == asked


def test_a_saved_folder_is_replaced_and_nothing_else_is(dual, tmp_path):
    folder = dual.save(tmp_path / "model")
    (folder / "README.md").write_text("mine")  # people write in their card
    assert vtp.load(folder, device="cpu").fingerprint == dual.fingerprint
    dual.save(folder)
    other = tmp_path / "photos"
    other.mkdir()
    (other / "cat.jpg").write_bytes(b"x")
    with pytest.raises(ConfigError, match="holds something else than a saved model"):
        dual.save(other)
    assert (other / "cat.jpg").exists()


def test_how_a_model_was_shown_its_clips_is_kept(write, dual, clips, tmp_path):
    config = {"data": {"eval_clips": 2, "workers": 7, "cache": "/nowhere"}}
    folder = write(tmp_path / "two", dual.module.spec, {"config": config})
    model = vtp.load(folder, device="cpu", workers=0)
    frames = frames_of(clips / "a.mp4")
    views = [frames[[2, 10]], frames[[6, 14]]]  # of four quarters the first clip has the first and the third
    batch = Batch(["0"], {"video": {"frames": torch.from_numpy(np.stack([views]))}}, {"video": torch.ones(1).bool()})
    with torch.no_grad():
        want = model.module(batch, run=lambda ctx: model.module.objectives["vtc"].embed(ctx, "video")).numpy()
    np.testing.assert_allclose(model.encode(videos=[clips / "a.mp4"]).videos, want, atol=1e-6)
    again = vtp.load(model.save(tmp_path / "saved"), device="cpu", workers=0)
    np.testing.assert_array_equal(again.encode(videos=[clips / "a.mp4"]).videos, want)
    assert again.fingerprint == model.fingerprint != dual.fingerprint  # the tensors are those of dual


def test_tasks_are_the_methods_that_a_model_can_do(dual, fused):
    assert dual.tasks == ("encode",) and fused.tasks == ("answer", "caption")
