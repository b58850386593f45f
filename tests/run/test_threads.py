"""The number of loader workers changes no result, not even in the last bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from vtp.run import launch


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("cores", "processes", "threads"), [(2, 1, 1), (8, 1, 6), (8, 2, 2), (1, 1, 1), (64, 4, 14)])
def test_threads_depend_on_the_machine_alone(
    monkeypatch: pytest.MonkeyPatch, cores: int, processes: int, threads: int
) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    monkeypatch.setattr(launch, "cores", lambda: cores)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    for workers in (0, 1, 2, 16):
        launch._set_threads({"threads": None, "data": {"workers": workers}})
    launch._set_threads({"threads": 5, "data": {"workers": 0}})
    assert chosen == [threads] * 4 + [5]


@pytest.mark.slow
def test_losses_are_equal_bit_for_bit(
    vtp: Callable[..., int],
    table: Callable[..., str],
    losses: Callable[[str], dict[int, float]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a machine where the old rule would have taken 4, 3 and 2 threads."""
    monkeypatch.setattr(launch, "cores", lambda: 4)
    data = f"dataset.file={table('a.csv', train=range(12), test=range(12, 16))}"
    wide = ["encoder.video.width=128", "encoder.video.depth=2", "threads=null", "train.steps=6", "mode=train"]
    for workers in (0, 1, 2):
        assert vtp(data, *wide, f"data.workers={workers}", f"run_dir=w{workers}") == 0
    assert losses("w0") == losses("w1") == losses("w2")
