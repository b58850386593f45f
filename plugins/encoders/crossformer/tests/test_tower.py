"""Towers: rows that are there, features of frozen encoders once."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from vtp.contracts import Encoder, member
from vtp.errors import ConfigError
from vtp.model.build import BuildContext
from vtp.testing import check_encoder
from vtp.testing.inputs import arguments
from vtp.types import Tokens
from vtp_crossformer.tower import AudioTower, TextTower, VideoTower
from vtp_encoders.tiny_audio import TinyAudio

AUDIO = {"name": "tiny", "width": 16, "depth": 1, "heads": 2}
VIDEO = {"name": "tiny", "width": 16, "depth": 1, "heads": 2, "frames": 2, "size": 32}
TEXT = {"name": "tiny", "width": 16, "depth": 1, "heads": 2}
TOWERS: list[tuple[type, dict[str, Any]]] = [(AudioTower, AUDIO), (VideoTower, VIDEO), (TextTower, TEXT)]


def tower(cls: type, encoder: dict[str, Any], **options: Any) -> Any:
    torch.manual_seed(0)
    return cls(context=BuildContext(texts=lambda: ["a red ball moves", "what moves?"]), encoder=encoder, **options)


def half_silent(encoder: Any) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    given = arguments(encoder, 4)
    given["lengths"][[1, 2]] = 0
    given["waveform"][[1, 2]] = 0
    return given


@pytest.mark.parametrize(("cls", "encoder"), TOWERS)
def test_the_contract(cls: Any, encoder: dict[str, Any]) -> None:
    check_encoder(cls, {"encoder": encoder})


def test_rows_without_sound_are_not_encoded() -> None:
    wrapped = tower(AudioTower, AUDIO)
    given = half_silent(wrapped)
    want = wrapped.tower(**given)
    found = wrapped(**given)
    assert wrapped.computed == 2
    for row in (0, 3):
        real = want.attention_mask[row]
        torch.testing.assert_close(found.x[row][real], want.x[row][real], rtol=0, atol=1e-6)
    assert found.attention_mask.equal(want.attention_mask) and not found.x[[1, 2]].any()


def test_an_exported_graph_encodes_all_rows_and_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    wrapped = tower(AudioTower, AUDIO, frozen=True, remember=4)
    given = half_silent(wrapped)
    want = wrapped(**given)
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    found = wrapped(**given)
    assert found.attention_mask.equal(want.attention_mask) and not found.x[[1, 2]].any()
    real = found.attention_mask
    torch.testing.assert_close(found.x[real], want.x[real], rtol=0, atol=1e-6)


def test_visible_tokens_keep_their_places() -> None:
    wrapped = tower(AudioTower, AUDIO)
    given = half_silent(wrapped)
    count = wrapped.grid[0]
    mask = torch.stack([torch.randperm(count) < 5 for _ in range(4)])
    want, found = wrapped.tower(**given, mask=mask), wrapped(**given, mask=mask)
    assert found.index.equal(want.index)
    for row in (0, 3):
        torch.testing.assert_close(found.x[row], want.x[row], rtol=0, atol=1e-6)


def test_nobody_has_sound() -> None:
    wrapped = tower(AudioTower, AUDIO).train()
    given = half_silent(wrapped)
    given = {"waveform": given["waveform"] * 0, "lengths": given["lengths"] * 0}
    out = wrapped(**given)
    assert not out.attention_mask.any() and not out.x.any()
    out.x.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in wrapped.parameters())


@pytest.mark.parametrize(("cls", "encoder"), TOWERS)
@pytest.mark.parametrize("tokens", ["all", "pooled"])
def test_a_frozen_encoder_runs_once_per_input(cls: Any, encoder: dict[str, Any], tokens: str) -> None:
    frozen = tower(cls, encoder | {"dropout": 0.5}, frozen=True, tokens=tokens).train()
    torch.manual_seed(1)
    given = arguments(frozen, 3)
    first = frozen(**given)
    again = frozen(**{name: value[[2, 0]] for name, value in given.items()})
    assert frozen.computed == 3 and not any(p.requires_grad for p in frozen.parameters())
    for place, row in enumerate((2, 0)):
        assert torch.equal(first.x[row][first.attention_mask[row]], again.x[place][again.attention_mask[place]])
    pooled = member(frozen.tower, Encoder, "pool")(frozen.tower(**given))
    torch.testing.assert_close(frozen.pool(first), pooled, rtol=0, atol=1e-6)
    changed = {name: value + 1 if value.is_floating_point() else value for name, value in given.items()}
    changed |= {"token_ids": given["token_ids"].flip(0)} if "token_ids" in given else {}
    frozen(**changed)
    assert frozen.computed > 3


def test_silence_is_not_remembered() -> None:
    frozen = tower(AudioTower, AUDIO, frozen=True)
    given = half_silent(frozen)
    found = frozen(**given)
    want: Tokens = frozen.tower(**given)
    assert frozen.computed == 2 and found.attention_mask.equal(want.attention_mask)


def test_memory_is_bounded() -> None:
    frozen = tower(AudioTower, AUDIO, frozen=True, remember=1)
    given = arguments(frozen, 3)
    frozen(**given)
    frozen(**given)
    assert frozen.computed == 5


def test_weights_are_those_of_the_encoder() -> None:
    wrapped = tower(AudioTower, AUDIO)
    alone = TinyAudio(**{name: value for name, value in AUDIO.items() if name != "name"})  # type: ignore[arg-type]
    assert set(wrapped.state_dict()) == {f"tower.{name}" for name in alone.state_dict()}


def test_mistakes_are_told() -> None:
    for encoder, said in (({"name": "tini"}, "tini"), ({"name": "tiny", "wide": 3}, "no option 'wide'")):
        with pytest.raises(ConfigError, match=said):
            tower(AudioTower, encoder)
    with pytest.raises(ConfigError, match="cannot stand in a tower"):
        tower(AudioTower, {"name": "tower", "encoder": AUDIO})
