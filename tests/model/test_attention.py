from __future__ import annotations

import pytest
import torch

from vtp.errors import ConfigError
from vtp.model import kernels as module
from vtp.model.attention import attention
from vtp.model.kernels import Backend, register_backend, set_kernels


@pytest.fixture(autouse=True)
def _restored(monkeypatch):
    monkeypatch.setattr(module, "_backends", {})
    monkeypatch.setattr(module, "_selected", "auto")
    monkeypatch.setattr(module, "_looked", True)  # nothing is offered but what a test registers


def by_formula(q, k, v, key_mask=None, scale=None):
    """Softmax attention in float64, one query at a time over its allowed keys only."""
    out = torch.zeros(*q.shape[:3], v.shape[-1], dtype=torch.float64)
    for b in range(q.shape[0]):
        keys = torch.arange(k.shape[2]) if key_mask is None else key_mask[b].nonzero()[:, 0]
        if len(keys):
            logits = q[b].double() @ k[b][:, keys].double().mT * (scale or q.shape[-1] ** -0.5)
            out[b] = logits.softmax(-1) @ v[b][:, keys].double()
    return out


@pytest.mark.parametrize("queries, keys, width", [(1, 1, 4), (5, 7, 8), (16, 33, 12)])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_attention_is_the_formula(queries, keys, width, scale):
    q, k, v = torch.randn(3, 2, queries, width), torch.randn(3, 2, keys, width), torch.randn(3, 2, keys, width)
    mask = torch.rand(3, keys) < 0.6
    mask[0] = False  # a row that may look at nothing
    mask[1] = True
    torch.testing.assert_close(
        attention(q, k, v, scale=scale).double(), by_formula(q, k, v, None, scale), rtol=0, atol=2e-6
    )
    out = attention(q, k, v, key_mask=mask, scale=scale)
    torch.testing.assert_close(out.double(), by_formula(q, k, v, mask, scale), rtol=0, atol=2e-6)


def test_row_without_keys_is_zero_and_sends_no_gradient():
    q, k, v = (torch.randn(2, 2, 4, 8, requires_grad=True) for _ in range(3))
    mask = torch.tensor([[False] * 4, [True, True, False, False]])
    out = attention(q, k, v, key_mask=mask)
    assert (out[0] == 0).all() and out.isfinite().all()
    out.square().sum().backward()
    for tensor in (q, k, v):
        assert tensor.grad.isfinite().all()
        assert (tensor.grad[0] == 0).all()
    assert (k.grad[1, :, 2:] == 0).all() and (v.grad[1, :, 2:] == 0).all()  # what is masked has no influence
    assert (v.grad[1, :, :2] != 0).any()


@pytest.mark.parametrize("length", [95, 96, 160, 191, 192])
def test_gradients_are_those_of_the_formula_however_it_is_computed(length):
    qkv = [torch.randn(2, 3, length, 8, requires_grad=True) for _ in range(3)]
    exact = [t.detach().double().requires_grad_() for t in qkv]
    weight = torch.randn(2, 3, length, 8)
    out = attention(*qkv, scale=0.4)
    want = (exact[0] @ exact[1].mT * 0.4).softmax(-1) @ exact[2]
    torch.testing.assert_close(out.double(), want, rtol=0, atol=2e-6)
    (out * weight).sum().backward()
    (want * weight).sum().backward()
    for found, expected in zip(qkv, exact, strict=True):
        torch.testing.assert_close(found.grad.double(), expected.grad, rtol=0, atol=1e-5)


def test_sdpa_is_left_out_only_where_training_on_a_cpu_is_faster_without_it(monkeypatch):
    class Called(Exception):
        pass

    def sdpa(*args, **kwargs):
        raise Called

    monkeypatch.setattr("vtp.model.attention.scaled_dot_product_attention", sdpa)
    attention(*torch.randn(3, 1, 1, 128, 8, requires_grad=True).unbind(0))
    for q, k, v in [
        torch.randn(3, 1, 1, 128, 8),  # nobody wants a gradient
        torch.randn(3, 1, 1, 95, 8, requires_grad=True),
        torch.randn(3, 1, 1, 192, 8, requires_grad=True),
        torch.randn(3, 1, 1, 128, 8, requires_grad=True).bfloat16(),  # its logits would be rounded
    ]:
        with pytest.raises(Called):
            attention(q, k, v)
    with pytest.raises(Called):  # a mask
        attention(
            *torch.randn(3, 1, 1, 128, 8, requires_grad=True).unbind(0), key_mask=torch.ones(1, 128, dtype=torch.bool)
        )


def test_strides_do_not_matter():
    qkv = torch.randn(2, 6, 3, 2, 8)  # (B, L, 3, H, D), as one projection gives it
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    assert not q.is_contiguous()
    same = attention(*(t.contiguous() for t in (q, k, v)), key_mask=None)
    torch.testing.assert_close(attention(q, k, v), same)


def test_a_registered_kernel_is_taken_where_it_says_it_can():
    def seven(q, k, v, key_mask, scale):
        return torch.full_like(q, 7.0)

    register_backend("fake", Backend(seven, lambda q, k, v, key_mask: q.shape[-1] == 8))
    eight, four = torch.randn(3, 1, 1, 2, 8), torch.randn(3, 1, 1, 2, 4)
    assert (attention(*eight) == 7).all()
    assert not (attention(*four) == 7).any()
    set_kernels("torch")
    assert not (attention(*eight) == 7).any()
    set_kernels("fake")
    assert (attention(*four) == 7).all()  # asked for by name: no silent replacement


def test_unknown_kernels_say_what_there_is():
    with pytest.raises(ConfigError, match="kernels=triton.*available: auto, torch.*vtp-kernels"):
        set_kernels("triton")
    with pytest.raises(ConfigError, match="kernels=tritn.*Choose one of: auto, torch"):
        set_kernels("tritn")
    with pytest.raises(ConfigError, match="taken by vtp"):
        register_backend("torch", Backend(lambda *a: a[0], lambda *a: True))
