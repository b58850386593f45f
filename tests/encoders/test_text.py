from __future__ import annotations

import json
import multiprocessing
import pickle
import shutil

import pytest
import torch

from vtp.errors import ConfigError
from vtp.model.build import BuildContext
from vtp_encoders.tiny_text import TinyText
from vtp_encoders.transformers_text import TransformersText


def _tokenize(spec_bytes, queue):
    queue.put(pickle.loads(spec_bytes).tokenize(["the red box"]))


@pytest.mark.parametrize("kind", ["tiny", "transformers"])
def test_tokenizers_travel_to_worker_processes(build, kind):
    spec = build("text", kind).spec
    here = spec.tokenize(["the red box"])
    assert pickle.loads(pickle.dumps(spec)).tokenize(["the red box"]) == here
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=_tokenize, args=(pickle.dumps(spec), queue))
    process.start()
    assert queue.get(timeout=60) == here
    process.join()


def test_no_texts_and_no_saved_tokenizer_say_what_to_do(tmp_path):
    with pytest.raises(ConfigError, match="holds no texts.*encoder/text=transformers"):
        TinyText(context=BuildContext(texts=list))
    with pytest.raises(ConfigError, match="no training data; give a checkpoint"):
        TinyText(context=BuildContext())
    with pytest.raises(ConfigError, match="lacks its tokenizer"):
        TinyText(context=BuildContext(assets=tmp_path))


def test_embeddings_are_not_contextual(build):
    for kind in ("tiny", "transformers"):
        encoder = build("text", kind).eval()
        ids = torch.tensor(encoder.spec.tokenize(["a red ball", "a blue ball"]))
        mask = torch.ones_like(ids, dtype=torch.bool)
        embedded, encoded = encoder.embed(ids, mask).x, encoder(ids, mask).x
        torch.testing.assert_close(embedded[0, 3], embedded[1, 3])  # the same word at the same place
        assert not torch.allclose(encoded[0, 3], encoded[1, 3])


def test_transformers_output_is_that_of_the_model(bert):
    from transformers import BertModel

    encoder = TransformersText(context=BuildContext(), model=str(bert), max_length=12).eval()
    reference = BertModel.from_pretrained(bert).eval()
    ids = torch.tensor(encoder.spec.tokenize(["a red ball moves", "two blue boxes stand"]))
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[1, 3:] = False
    expected = reference(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    torch.testing.assert_close(encoder(ids, mask).x[mask], expected[mask], rtol=0, atol=1e-6)
    torch.testing.assert_close(encoder.embed(ids, mask).x, reference.embeddings(input_ids=ids), rtol=0, atol=0)


def test_pooling(bert):
    for pooling in ("mean", "cls"):
        encoder = TransformersText(context=BuildContext(), model=str(bert), pooling=pooling).eval()
        ids = torch.tensor(encoder.spec.tokenize(["a red ball moves"]))
        tokens = encoder(ids, torch.tensor([[True] * 4 + [False] * 2]))
        expected = tokens.x[:, :4].mean(1) if pooling == "mean" else tokens.x[:, 0]
        torch.testing.assert_close(encoder.pool(tokens), expected)


def test_not_pretrained_takes_the_architecture_only(bert):
    torch.manual_seed(3)
    encoder = TransformersText(context=BuildContext(), model=str(bert), pretrained=False)
    loaded = TransformersText(context=BuildContext(), model=str(bert))
    assert encoder.width == 16 and encoder.spec.vocab_size == loaded.spec.vocab_size
    name = "model.encoder.layer.0.attention.self.query.weight"
    assert not torch.equal(encoder.state_dict()[name], loaded.state_dict()[name])


@pytest.mark.parametrize(
    "model, hint",
    [
        (
            "no-such-model",
            "download it elsewhere .*hf download no-such-model.*choose the encoder 'tiny'",
        ),
        ("/no/such/folder", "There is no folder /no/such/folder"),
        ("./nor/this", "There is no folder ./nor/this"),
    ],
)
def test_a_model_that_is_not_there_says_what_to_do(model, hint):
    with pytest.raises(ConfigError, match=f"(?s)cannot load the tokenizer of '{model}'.*{hint}"):
        TransformersText(context=BuildContext(), model=model)


def test_a_folder_without_weights(bert, tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(bert, folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="cannot load the weights.*check that it holds the weights"):
        TransformersText(context=BuildContext(), model=str(folder))


def test_weights_that_do_not_fill_the_model_are_refused(bert, tmp_path):
    """from_pretrained only warns, and leaves the rest at random values."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "half"
    shutil.copytree(bert, folder)
    tensors = load_file(folder / "model.safetensors")
    left = {name: tensor for name, tensor in tensors.items() if "layer.1" not in name}
    save_file(left, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match="do not fill the model: 16 missing"):
        TransformersText(context=BuildContext(), model=str(folder))


def test_a_tokenizer_without_its_vocabulary_is_refused(bert, tmp_path):
    """transformers 5 builds one that turns every word into [UNK], without a word."""
    folder = tmp_path / "mute"
    shutil.copytree(bert, folder)
    for name in ("vocab.txt", "tokenizer.json"):
        (folder / name).unlink(missing_ok=True)
    with pytest.raises(ConfigError, match="tokenizer"):
        TransformersText(context=BuildContext(), model=str(folder))
    vocabulary = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4}
    content = json.loads((bert / "tokenizer.json").read_text())
    content["model"]["vocab"] = vocabulary
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="turns every word into the same ids: its vocabulary was not found"):
        TransformersText(context=BuildContext(), model=str(folder))


def test_special_ids_come_from_the_tokenizer(bert):
    spec = TransformersText(context=BuildContext(), model=str(bert)).spec
    assert (spec.pad_id, spec.cls_id, spec.sep_id, spec.mask_id) == (0, 2, 3, 4)
    assert spec.special_ids == (0, 1, 2, 3, 4)
    assert spec.tokenize([]) == []


@pytest.mark.parametrize("family", ["clip", "t5", "roberta", "mpnet"])
def test_other_families(bert, tmp_path, family):
    """The text half of CLIP, the encoder of T5, and two more encoders: load, train, save, restore."""
    import transformers as hf

    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    small |= {"vocab_size": 26, "max_position_embeddings": 64}
    torch.manual_seed(0)
    if family == "clip":
        vision = {**small, "image_size": 8, "patch_size": 4}
        text = {**small, "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
        model = hf.CLIPModel(hf.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))
    elif family == "t5":
        model = hf.T5Model(hf.T5Config(vocab_size=26, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2))
    elif family == "roberta":
        model = hf.RobertaModel(hf.RobertaConfig(**small, pad_token_id=0))
    else:
        model = hf.MPNetModel(hf.MPNetConfig(**small, pad_token_id=0))
    folder = tmp_path / family
    hf.AutoTokenizer.from_pretrained(bert).save_pretrained(folder)
    model.save_pretrained(folder)

    encoder = TransformersText(context=BuildContext(), model=str(folder)).train()
    ids = torch.tensor(encoder.spec.tokenize(["a red ball moves", "two blue boxes stand"]))
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[1, 4:] = False
    tokens = encoder(ids, mask)
    assert tokens.x.shape == (*ids.shape, 16) and encoder.depth == 2
    (tokens.x * mask[..., None]).square().sum().backward()
    assert [n for n, p in encoder.named_parameters() if p.grad is None] == []

    saved = tmp_path / "assets" / "encoders" / "text"
    saved.mkdir(parents=True)
    encoder.save_assets(saved)
    again = TransformersText(context=BuildContext(assets=tmp_path / "assets"), model="gone").eval()
    again.load_state_dict(encoder.state_dict(), strict=True)
    assert torch.equal(again(ids, mask).x, encoder.eval()(ids, mask).x)
