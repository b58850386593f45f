"""Folders of transformers that were not copied to the end, are another model, or hold code: one line that says it."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import torch
from transformers import (
    ASTConfig,
    ASTModel,
    BertConfig,
    BertModel,
    BertTokenizerFast,
    VideoMAEConfig,
    VideoMAEImageProcessor,
    VideoMAEModel,
)

from vtp.errors import ConfigError
from vtp.model.build import BuildContext
from vtp_encoders.ast_audio import AST
from vtp_encoders.clip import CLIP
from vtp_encoders.transformers_text import TransformersText
from vtp_encoders.videomae import VideoMAE
from vtp_encoders.xclip import XCLIP

ENCODERS = {"text": TransformersText, "audio": AST, "video": VideoMAE}
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
WHOLE, INDEX, SHARD = "model.safetensors", "model.safetensors.index.json", "model-00002-of-"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """{(kind, in shards): folder written by save_pretrained}"""
    root = tmp_path_factory.mktemp("models")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c"]
    (root / "vocab.txt").write_text("\n".join(words))
    torch.manual_seed(0)
    models = {
        "text": BertModel(BertConfig(vocab_size=len(words), max_position_embeddings=64, **SMALL)),
        "audio": ASTModel(ASTConfig(max_length=64, **SMALL)),
        "video": VideoMAEModel(VideoMAEConfig(image_size=32, num_frames=4, **SMALL)),
    }
    found = {}
    for kind, model in models.items():
        for sharded in (False, True):
            found[kind, sharded] = folder = root / f"{kind}{sharded}"
            model.save_pretrained(folder, max_shard_size="5KB" if sharded else "1GB")
            if kind == "text":
                BertTokenizerFast(str(root / "vocab.txt")).save_pretrained(folder)
    return found


def cut(file):
    file.write_bytes(file.read_bytes()[:-200])


FAULTS = {  # what happens to which file, in a folder of shards or not, and what is told
    "weights cut": (WHOLE, cut, False, rf"cannot load the weights of .*{WHOLE} of [\d,]+ bytes is cut off"),
    "weights empty": (WHOLE, lambda file: file.write_bytes(b""), False, f"{WHOLE} of 0 bytes is cut off"),
    "weights missing": (WHOLE, lambda file: file.unlink(), False, f"no file named {WHOLE}"),
    "shard missing": (SHARD, lambda file: file.unlink(), True, rf"{SHARD}\d+.safetensors is missing: 1 of \d+ files"),
    "shard cut": (SHARD, cut, True, rf"{SHARD}\d+.safetensors of [\d,]+ bytes is cut off"),
    "index missing": (
        INDEX,
        lambda file: file.unlink(),
        True,
        f"{INDEX} is missing, which tells what is in model-00001",
    ),
    "index cut": (INDEX, cut, True, f"{INDEX} is cut off"),
    "configuration missing": ("config.json", lambda file: file.unlink(), False, "lacks config.json"),
    "configuration cut": ("config.json", cut, False, "config.json' is not a valid JSON file"),
}


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("fault", FAULTS)
def test_the_file_is_named_in_one_line(folders, tmp_path, kind, fault):
    name, damage, sharded, words = FAULTS[fault]
    folder = shutil.copytree(folders[kind, sharded], tmp_path / "model")
    (file,) = [
        path for path in folder.iterdir() if path.name.startswith(name) and (name == INDEX or path.name != INDEX)
    ]
    damage(file)
    with pytest.raises(ConfigError, match=words) as told:
        ENCODERS[kind](context=BuildContext(), model=str(folder))
    assert "\n" not in str(told.value) and str(folder) in str(told.value)


@pytest.mark.parametrize("kind", ["audio", "video"])
def test_without_its_configuration_no_base_model_is_built(folders, tmp_path, kind):
    """pretrained=false takes sizes alone: those of another model would have been a silent exchange."""
    folder = shutil.copytree(folders[kind, False], tmp_path / "model")
    (folder / "config.json").unlink()
    with pytest.raises(ConfigError, match="lacks config.json"):
        ENCODERS[kind](context=BuildContext(), model=str(folder), pretrained=False)


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("sharded", [False, True])
def test_whole_folders_load_and_need_no_settings_of_a_preprocessor(folders, kind, sharded):
    assert not (folders[kind, sharded] / "preprocessor_config.json").exists()
    assert ENCODERS[kind](context=BuildContext(), model=str(folders[kind, sharded])).width == 16


# -- what is no model of the kind, or would like to run something ------------------------------------------------------


class Runs:
    """Written as a pickle it makes a folder when it is read."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("kind", ["text", "clip"])
def test_code_beside_a_model_is_never_run_and_nobody_is_asked(folders, tmp_path, kind, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *prompt: "y")  # somebody who says yes to everything
    folder = shutil.copytree(folders["text", False], tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "theirs", "auto_map": {"AutoConfig": "theirs.Theirs", "AutoModel": "theirs.Theirs"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "theirs.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'ran')!r})\n")
    with pytest.raises(ConfigError, match="it comes with code of its own, which is never run") as told:
        {**ENCODERS, "clip": CLIP}[kind](context=BuildContext(), model=str(folder))
    assert "\n" not in str(told.value) and not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_pickle_is_not_run_and_nobody_is_told_how_to(folders, tmp_path, kind):
    folder = shutil.copytree(folders[kind, False], tmp_path / "model")
    (folder / WHOLE).unlink()
    torch.save({"weight": Runs(tmp_path / "ran")}, folder / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="a pickle that holds more than tensors") as told:
        ENCODERS[kind](context=BuildContext(), model=str(folder))
    assert "weights_only" not in str(told.value) and not (tmp_path / "ran").exists()


def test_a_model_of_another_family_is_named(folders):
    with pytest.raises(ConfigError, match="is a audio-spectrogram-transformer model. Choose a videomae model"):
        VideoMAE(context=BuildContext(), model=str(folders["audio", False]))
    with pytest.raises(ConfigError, match="is a bert model. Choose a xclip model"):
        XCLIP(context=BuildContext(), model=str(folders["text", False]))


def test_weights_of_other_sizes_are_a_line_without_a_table(folders, tmp_path, capfd):
    folder = shutil.copytree(folders["text", False], tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 48}))
    with pytest.raises(ConfigError, match="do not fill the model: 0 missing and 3 of another shape") as told:
        TransformersText(context=BuildContext(), model=str(folder))
    assert "\n" not in str(told.value) and capfd.readouterr().err == ""


def test_settings_that_are_not_there_are_told(folders, tmp_path, caplog):
    VideoMAE(context=BuildContext(), model=str(folders["video", False]))
    assert "nor video_preprocessor_config.json, so that the middle of a frame at ImageNet's mean" in caplog.text
    caplog.clear()
    folder = shutil.copytree(folders["video", False], tmp_path / "model")
    VideoMAEImageProcessor().save_pretrained(folder)
    VideoMAE(context=BuildContext(), model=str(folder))
    assert "preprocessor" not in caplog.text
