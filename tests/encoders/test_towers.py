"""Two towers by name against the library's own embeddings of real clips and sounds."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
import transformers as hf
from torch.nn.functional import cosine_similarity, normalize
from tower_models import LENGTH, MODELS, TEXTS, options_of, save

import vtp
from vtp.errors import ConfigError
from vtp.media import MediaReader
from vtp.media.request import Wanted
from vtp.media.sampling import uniform
from vtp.model.build import BuildContext
from vtp.types import MediaRef
from vtp_encoders.clip import CLIP
from vtp_encoders.transformers_text import TransformersText


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("towers")

    def make(name):
        if not (root / name).exists():
            save(root / name, name)
        return root / name

    return make


@pytest.fixture(scope="module")
def real(shared_data):
    """Of two real films each four clips: frames as they are stored, uint8 (4, H, W, 3), and sounds of 48 kHz."""
    reader, found = MediaReader(isolate=False), []
    for file in sorted((shared_data / "videos" / "vggsound").glob("*.mp4"))[:2]:
        for second in (0.0, 2.0, 4.0, 6.0):
            wanted = Wanted(times=partial(uniform, frames=4, stride=None, generator=None), sample_rate=48_000)
            found.append(reader.read(MediaRef(str(file), second, second + 1.0 - second / 10), wanted))
    return [clip.frames for clip in found], [clip.waveform[0] for clip in found]


def middle(video):
    """The middle square of frames (T, H, W, 3)."""
    side = min(video.shape[1:3])
    top, left = ((length - side) // 2 for length in video.shape[1:3])
    return video[:, top : top + side, left : left + side].copy()


def library(folder, name, videos, sounds):
    """The library's own embeddings: its processor, its tokenizer with padding, its model."""
    if name == "qwen3_vl_embedding":
        return embedded_by_qwen(folder, videos)
    model = hf.AutoModel.from_pretrained(folder).eval()
    padded = {"siglip2": {"max_length": LENGTH}, "videoprism": {"max_length": LENGTH}}.get(name, {})
    given = hf.AutoTokenizer.from_pretrained(folder)(
        TEXTS, padding="max_length" if padded else True, return_tensors="pt", **padded
    )
    mask = {} if name == "siglip2" else {"attention_mask": given["attention_mask"]}  # SigLIP was trained without
    with torch.no_grad():
        if name != "pe_av":
            written = model.get_text_features(given["input_ids"], **mask).pooler_output
        if name == "clap":
            extractor = hf.AutoFeatureExtractor.from_pretrained(folder)
            heard = extractor([*sounds], sampling_rate=48_000, return_tensors="pt")["input_features"]
            return model.get_audio_features(heard, is_longer=torch.zeros(len(heard), 1)).pooler_output, written
        if name == "pe_av":  # its get_video_features is a function inside of __init__ in transformers 5.23
            pixels = hf.AutoVideoProcessor.from_pretrained(folder)([*videos], return_tensors="pt")
            out = model(given["input_ids"], pixels["pixel_values_videos"], given["attention_mask"])
            return out.video_embeds, out.text_video_embeds
        if name == "videoprism":
            pixels = hf.AutoVideoProcessor.from_pretrained(folder)([*videos], return_tensors="pt")
            return model.get_video_features(pixels["pixel_values_videos"]).pooler_output[:, 0], written
        processor = hf.AutoImageProcessor.from_pretrained(folder)
        if name == "xclip":
            pixels = processor([list(video) for video in videos], return_tensors="pt")
            return model.get_video_features(**pixels).pooler_output, written
        pixels = processor([frame for video in videos for frame in video], return_tensors="pt")
        seen = model.get_image_features(**pixels).pooler_output.unflatten(0, (len(videos), -1))
        return normalize(seen, dim=-1).mean(1), written


def embedded_by_qwen(folder, videos):
    """The last token behind instruction and clip, or text, in the model's own chat template, of unit length."""
    model, processor = hf.AutoModel.from_pretrained(folder).eval(), hf.AutoProcessor.from_pretrained(folder)

    def prompts(contents):
        said = "Represent the user's input."
        turns = [[("system", {"type": "text", "text": said}), ("user", content)] for content in contents]
        chats = [[{"role": role, "content": [part]} for role, part in turn] for turn in turns]
        return processor.apply_chat_template(chats, tokenize=False, add_generation_prompt=True)

    about = [{"total_num_frames": 4, "fps": 2, "frames_indices": [0, 1, 2, 3]} for _ in videos]
    given = {"videos": [torch.from_numpy(video).movedim(-1, 1) for video in videos], "video_metadata": about}
    clips = processor(text=prompts([{"type": "video"}] * len(videos)), **given, do_sample_frames=False)
    texts = processor(text=prompts([{"type": "text", "text": text} for text in TEXTS]), padding=True)
    assert not all(map(all, texts["attention_mask"]))
    with torch.no_grad():  # padded on the left, so that the last token is that of every row
        states = [model(**inputs.convert_to_tensors("pt")).last_hidden_state[:, -1] for inputs in (clips, texts)]
    return tuple(normalize(state, dim=-1) for state in states)


@pytest.mark.parametrize("name", [n if n == "clip" else pytest.param(n, marks=pytest.mark.slow) for n in MODELS])
def test_both_towers_give_the_librarys_embeddings(folder, real, name, tmp_path):
    """From options alone, in batches of one and of eight; and again from a saved folder."""
    source, (videos, sounds) = folder(name), real
    if name == "qwen3_vl_embedding":  # its processor keeps the shape of a picture; here the middle is shown
        videos = [middle(video) for video in videos]
    model = vtp.load(options_of(name, source), device="cpu", workers=0)
    media, written = library(source, name, videos, sounds)
    given = {"audios": [(sound, 48_000) for sound in sounds]} if name == "clap" else {"videos": videos}
    kind = next(iter(given))
    for batch in (1, 8):
        found = model.encode(**given, texts=TEXTS, batch_size=batch, tensors="torch")
        assert cosine_similarity(getattr(found, kind), media).min() > 0.9999
        assert cosine_similarity(found.texts, written).min() > 0.9999
    others = media.roll(1, 0), written.roll(1, 0)  # the bound tells one item from the next
    assert cosine_similarity(getattr(found, kind), others[0]).max() < 0.9999
    assert cosine_similarity(found.texts, others[1]).max() < 0.9999
    vtc = model.module.objectives["vtc"]  # the checkpoint's temperature, and no projection of its own
    assert not len(vtc.proj)
    start = -math.log(0.07) if name in ("videoprism", "qwen3_vl_embedding") else 3.5
    assert vtc.logit_scale.item() == pytest.approx(start, abs=1e-5)
    again = vtp.load(model.save(tmp_path / "saved"), device="cpu", workers=0).encode(**given, texts=TEXTS)
    assert getattr(again, kind).tobytes() == getattr(found, kind).numpy().tobytes()
    assert again.texts.tobytes() == found.texts.numpy().tobytes()


@pytest.mark.slow
def test_a_fixed_temperature_is_the_checkpoints_own_when_restored(folder, tmp_path):
    options = [*options_of("clip", folder("clip")), "objective=[vtc]", "objectives.vtc.learn_temperature=false"]
    made = vtp.load(options, device="cpu")
    again = vtp.load(made.save(tmp_path / "saved"), device="cpu")
    for one in (made, again):
        assert one.module.objectives["vtc"].logit_scale.item() == pytest.approx(3.5)


@pytest.mark.slow
def test_siglips_own_loss_is_the_librarys(folder, tmp_path):
    """From the checkpoint's temperature and bias, and again from a saved folder."""
    source = folder("siglip2")
    options = [
        *options_of("siglip2", source),
        "encoder.video.frames=1",
        "objective=[vtc]",
        "objectives.vtc.loss=sigmoid",
    ]
    made = vtp.load([*options, "objectives.vtc.mask_duplicates=false"], device="cpu", workers=0)
    pictures = torch.randint(256, (len(TEXTS), 1, 32, 32, 3), dtype=torch.uint8)
    pixels = hf.AutoImageProcessor.from_pretrained(source)([*pictures[:, 0]], return_tensors="pt")
    ids = hf.AutoTokenizer.from_pretrained(source)(TEXTS, padding="max_length", max_length=LENGTH, return_tensors="pt")
    model = hf.SiglipModel.from_pretrained(source).eval()
    with torch.no_grad():
        want = model(input_ids=ids["input_ids"], **pixels, return_loss=True).loss
    for one in (made, vtp.load(made.save(tmp_path / "saved"), device="cpu", workers=0)):
        vtc, found = one.module.objectives["vtc"], one.encode(videos=[*pictures.numpy()], texts=TEXTS, tensors="torch")
        assert vtc.logit_scale.item() == pytest.approx(3.5) and vtc.logit_bias.item() == -7.0
        features = {"video_embedding": found.videos, "text_embedding": found.texts, "rows": torch.ones(8, dtype=bool)}
        features |= {"logit_scale": vtc.logit_scale.detach(), "logit_bias": vtc.logit_bias.detach()}
        torch.testing.assert_close(vtc.loss_from_features(features).loss, want)


@pytest.mark.slow
def test_a_tower_beside_another_model_gets_a_projection(folder):
    """The same family and width are no common space."""
    options = ["model=clip", f"encoder.video.model={folder('clip')}", f"encoder.text.model={folder('xclip')}"]
    vtc = vtp.load([*options, "encoder.text.max_length=16"], device="cpu").module.objectives["vtc"]
    assert vtc.proj["video"].out_features == 128 and vtc.logit_scale.item() == pytest.approx(-math.log(0.07))


def test_pictures_of_siglip(hub):
    encoder = CLIP(context=BuildContext(), model=str(hub("siglip")), frames=1).eval()
    model = hf.SiglipModel.from_pretrained(hub("siglip")).eval()
    pictures = torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        want = model.get_image_features(pixel_values=pictures).pooler_output
        tokens = encoder(pictures[:, None])
    torch.testing.assert_close(tokens.x[:, 0], want, rtol=0, atol=1e-5)
    torch.testing.assert_close(encoder.pool(tokens), normalize(want, dim=-1), rtol=0, atol=1e-6)


def test_what_has_no_such_tower_is_refused(hub, bert):
    with pytest.raises(ConfigError, match="is a bert, whose texts share no space"):
        TransformersText(context=BuildContext(), model=str(bert), max_length=12, projected=True)
    with pytest.raises(ConfigError, match="is a vjepa2 model. Choose a CLIP or SigLIP"):
        CLIP(context=BuildContext(), model=str(hub("vjepa2")))
