"""Which implementation runs, and what a user is told."""

import logging
import subprocess
import sys

import pytest
import torch

from vtp_kernels import dispatch

CPU = torch.device("cpu")


@pytest.fixture
def fresh_log(monkeypatch):
    monkeypatch.setattr(dispatch, "_logged", set())


def test_auto_on_a_cpu_falls_back_and_says_so_once(fresh_log, caplog):
    with caplog.at_level(logging.WARNING, "vtp_kernels"):
        assert [dispatch.use_triton("auto", CPU) for _ in range(3)] == [False] * 3
    assert len(caplog.records) == 1 and "PyTorch fallback" in caplog.text


def test_torch_is_silent_and_triton_insists(fresh_log, caplog, monkeypatch):
    assert not dispatch.use_triton("torch", CPU)
    assert dispatch.use_triton("triton", CPU)  # the interpreter
    monkeypatch.setattr(dispatch, "INTERPRET", False)
    with pytest.raises(RuntimeError, match="the tensors are on the CPU. Use backend='auto'"):
        dispatch.use_triton("triton", CPU)
    assert not caplog.records


def test_every_reason_has_words(monkeypatch):
    assert "no kernel for device type 'meta'" in dispatch.missing(torch.device("meta"))
    assert "float64" in dispatch.missing(CPU, torch.float64)
    assert "head dimension 160 in torch.float32" in dispatch.missing(CPU, torch.float32, 160)
    assert dispatch.missing(CPU, torch.bfloat16, 160) is None
    monkeypatch.setattr(dispatch, "triton", None)
    assert dispatch.missing(torch.device("cuda")) == "triton is not installed"


def test_unknown_backend_is_refused():
    with pytest.raises(ValueError, match="backend='cuda' must be one of auto, triton, torch"):
        dispatch.use_triton("cuda", CPU)


WITHOUT_TRITON = """
import sys
sys.modules["triton"] = None  # what an import finds where there is no wheel
import torch, vtp_kernels
from vtp_kernels import AttnLayout, gather_tubelets, masked_attention, masked_pixel_loss, tube_keep_ids
q = torch.randn(5, 1, 16, requires_grad=True)
masked_attention(q, q, q, AttnLayout.from_lengths([2, 3], packed=True)).sum().backward()
video = torch.zeros(1, 2, 16, 16, 3, dtype=torch.uint8)
keep, drop = tube_keep_ids(1, 4, 1, seed=0)
assert gather_tubelets(video, keep, (2, 8, 8)).shape == (1, 1, 384)
assert masked_pixel_loss(torch.ones(1, 3, 384), video, drop, (2, 8, 8)) == 1
assert "vtp" not in sys.modules and "transformers" not in sys.modules
"""


@pytest.mark.slow
def test_everything_runs_without_triton_and_without_the_core():
    done = subprocess.run([sys.executable, "-c", WITHOUT_TRITON], capture_output=True, text=True, check=True)
    assert done.stderr.count("vtp_kernels runs on its PyTorch fallback: triton is not installed") == 1
