"""Folders of transformers that were not copied to the end: one line that names the file."""

from __future__ import annotations

import shutil

import pytest
import torch
from transformers import ASTConfig, ASTModel, BertConfig, BertModel, BertTokenizerFast, VideoMAEConfig, VideoMAEModel

from vtp.errors import ConfigError
from vtp.model.build import BuildContext
from vtp_encoders.ast_audio import AST
from vtp_encoders.transformers_text import TransformersText
from vtp_encoders.videomae import VideoMAE

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
