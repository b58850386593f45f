"""Names on the hub where the hub cannot be reached: copies from earlier are used, and nobody waits."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import NoReturn

import pytest
import transformers as hf
from huggingface_hub import constants

from vtp.errors import ConfigError
from vtp_encoders import hub
from vtp_encoders.huggingface import load

NAME = "nobody/nothing-here"


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, int]]]:
    """The libraries' own default, and what was asked of the resolver."""
    asked: list[tuple[str, int]] = []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "getproxies", dict)
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, port, *_, **__: asked.append((host, port)) or [])
    hub.settle.cache_clear()
    yield asked
    hub.settle.cache_clear()


def _unknown(*_: object, **__: object) -> NoReturn:
    raise socket.gaierror("no such host")


def test_a_hub_that_answers_is_asked_once(online: list[tuple[str, int]]) -> None:
    hub.settle()
    hub.settle()
    assert (online, constants.HF_HUB_OFFLINE) == ([("huggingface.co", 443)], False)


def test_without_network_nothing_is_tried_again(online, monkeypatch, caplog) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", _unknown)
    with pytest.raises(ConfigError, match="nobody/nothing-here.*Without network"):
        load(
            "text", "nobody/nothing-here", "configuration", lambda: hf.AutoConfig.from_pretrained("nobody/nothing-here")
        )
    assert constants.HF_HUB_OFFLINE
    assert "Retrying" not in caplog.text


def test_a_proxy_resolves_names_itself(online, monkeypatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", _unknown)
    monkeypatch.setattr(hub, "getproxies", lambda: {"https": "http://proxy.invalid:3128"})
    hub.settle()
    assert not constants.HF_HUB_OFFLINE
