"""What every encoder promises, checked for those of this package, as released and without its faults."""

from __future__ import annotations

import pytest

from vtp.testing import check_encoder, check_fusion, check_plugin
from vtp_simvtp.fusion import SharedViT
from vtp_simvtp.plugin import vtp_register_encoders
from vtp_simvtp.text import TextEmbeddings
from vtp_simvtp.towers import TextTower, VideoTower
from vtp_simvtp.video import VideoTubelets

SIZE = {"width": 24, "depth": 2}
CLIP = {"frames": 4, "size": 16, "tubelet": 2, "patch": 8}
TEXT = {"tokenizer": "texts", "positions": 16, "max_length": 16}
CASES = {
    VideoTubelets: SIZE | CLIP,
    TextEmbeddings: SIZE | TEXT,
    VideoTower: SIZE | CLIP | {"heads": 2},
    TextTower: SIZE | TEXT | {"heads": 2},
}


def test_every_encoder_is_tested():
    registered = set()
    vtp_register_encoders(lambda name, target, slot: registered.add(target.partition(":")[2]))
    assert registered == {cls.__name__ for cls in (*CASES, SharedViT)}


@pytest.mark.parametrize("cls", CASES, ids=lambda cls: cls.__name__)
def test_encoders_keep_the_contract(cls):
    check_encoder(cls, CASES[cls])


def test_the_shared_transformer_keeps_the_contract():
    check_fusion(SharedViT, SIZE | {"heads": 2})
    check_fusion(SharedViT, SIZE | {"heads": 2}, widths={"video": 24, "text": 24})


def test_the_package_keeps_its_promises():
    check_plugin("vtp_simvtp.plugin")
