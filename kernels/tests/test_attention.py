"""masked_attention against its float64 definition: outputs and all gradients, in the interpreter and on the
fallback."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn import functional

from vtp_kernels import PAD, AttnLayout, attention, masked_attention, masked_attention_reference

BACKENDS = ("triton", "torch")
RULES = {"text": ["text", "video"], "video": ["video"], "audio": ["audio", "text", "video"]}


def key_mask(*rows: str) -> torch.Tensor:
    """(B, L) from strings of 1 and 0, each repeated to span several blocks."""
    return torch.tensor([[int(c) for c in row] for row in rows]).repeat_interleave(7, 1).bool()


def segments(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    picks = torch.tensor([0, 1, 2, 31, PAD], dtype=torch.uint8)
    return picks[torch.randint(0, 5, shape, generator=torch.Generator().manual_seed(seed))].sort(-1).values


THREE = [[0, 31], [1], [], *[[]] * 28, [0, 1, 2, 31]]  # rules for segments 0, 1, 2 and 31; segment 2 sees nobody

LAYOUTS = {
    "full": lambda: AttnLayout.full(2, 33, 40),
    "one token": lambda: AttnLayout.full(1, 1),
    "packed": lambda: AttnLayout.from_lengths([37, 64, 1, 0, 20], packed=True),
    "packed cross": lambda: AttnLayout.from_lengths([37, 0, 1, 5], [5, 40, 0, 33], packed=True),
    "padded": lambda: AttnLayout.from_lengths([37, 64, 1, 0], packed=False, max_q=64),
    "padded cross": lambda: AttnLayout.from_lengths([40, 3, 0], [1, 0, 35], packed=False, max_q=40, max_k=36),
    "padding in the middle": lambda: AttnLayout.from_key_mask(key_mask("1110011", "1111111", "0000000", "0100001")),
    "little padding": lambda: AttnLayout.from_key_mask(key_mask("1111111111", "1111111110")),
    "query mask": lambda: AttnLayout.from_key_mask(
        key_mask("110011", "111111"), query_mask=key_mask("110011", "000000")
    ),
    "key mask cross": lambda: AttnLayout.from_key_mask(key_mask("110011", "100000"), n_queries=5),
    "segments": lambda: AttnLayout.from_segments(segments((2, 70)), THREE),
    "segments cross": lambda: AttnLayout.from_segments(segments((2, 35)), THREE, segments((2, 66), 1)),
    "packed segments": lambda: AttnLayout.from_segments(
        segments((101,)), THREE, within=AttnLayout.from_lengths([64, 0, 37], packed=True)
    ),
    "tri-modal": lambda: AttnLayout.tri_modal([5, 12, 0], [40, 40, 33], [30, 0, 9], RULES),
}


def inputs(
    layout: AttnLayout, dtype: torch.dtype, head_dim: int = 32, heads: int = 1, seed: int = 0
) -> tuple[torch.Tensor, ...]:
    """q, k, v and the output's gradient; with equal lengths, q, k and v are views of one projection."""
    torch.manual_seed(seed)
    if layout.packed:
        shape_q, shape_k = ((int(cu[-1]), heads, head_dim) for cu in (layout.cu_q, layout.cu_k))
    else:
        shape_q, shape_k = ((layout.batch, n, heads, head_dim) for n in (layout.max_q, layout.max_k))
    if shape_q == shape_k:
        qkv = torch.randn(*shape_q[:-2], 3, heads, head_dim).to(dtype)
        q, k, v = qkv.unbind(-3)
    else:
        q, (k, v) = torch.randn(shape_q).to(dtype), torch.randn(*shape_k[:-2], 2, heads, head_dim).to(dtype).unbind(-3)
    return q, k, v, torch.randn(shape_q).to(dtype)


def run(function, q, k, v, g):
    """Output and gradients."""
    leaves = [x.detach().requires_grad_() for x in (q, k, v)]
    o = function(*leaves)
    return o, *torch.autograd.grad(o, leaves, g)


def compare(layout, dtype, backend, relative_error, limit, **shape):
    q, k, v, g = inputs(layout, dtype, **shape)
    got = run(lambda *x: masked_attention(*x, layout, backend=backend), q, k, v, g)
    want = run(lambda *x: masked_attention_reference(*x, layout), *(x.double() for x in (q, k, v, g)))
    # a query with one key has gradient 0, the difference of two equal numbers: errors count relative to the terms of
    # that difference too
    floor = 0.1 * g.double().norm().item()
    assert [relative_error(a, b, floor) < limit for a, b in zip(got, want, strict=True)] == [True] * 4
    return got


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", LAYOUTS)
def test_output_and_gradients_equal_the_definition(name, backend, relative_error, tolerance):
    layout = LAYOUTS[name]()
    got = compare(layout, torch.float32, backend, relative_error, tolerance[torch.float32])
    allowed = layout.dense_mask()
    for x, alone in zip(got, (~allowed.any(-1), ~allowed.any(-1), ~allowed.any(-2), ~allowed.any(-2)), strict=True):
        assert (x[alone] == 0).all()  # exactly 0, not small


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["packed", "segments cross"])
def test_half_precision(name, dtype, backend, relative_error, tolerance):
    compare(LAYOUTS[name](), dtype, backend, relative_error, tolerance[dtype])


@pytest.mark.parametrize("head_dim", [16, 48, 64, 80, 128, 256])
def test_head_dimensions(head_dim, relative_error, tolerance):
    layout = AttnLayout.from_lengths([33, 5], packed=True)
    dtype = torch.float32 if head_dim < 256 else torch.float16  # larger float32 tiles do not fit a GPU's registers
    compare(layout, dtype, "triton", relative_error, tolerance[dtype], head_dim=head_dim)


@pytest.mark.slow
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_layout(data, relative_error, tolerance):
    """Random lengths, segments and rules, on both implementations."""
    lengths = data.draw(st.lists(st.integers(0, 40), min_size=1, max_size=3))
    lengths_k = data.draw(
        st.one_of(st.none(), st.lists(st.integers(0, 40), min_size=len(lengths), max_size=len(lengths)))
    )
    layout = AttnLayout.from_lengths(lengths, lengths_k, packed=data.draw(st.booleans()))
    if layout.packed and data.draw(st.booleans()):
        rules = data.draw(st.lists(st.lists(st.integers(0, 2), max_size=3), min_size=3, max_size=3))
        choice = st.sampled_from([0, 1, 2, PAD])
        drawn = [
            data.draw(st.lists(choice, min_size=sum(n), max_size=sum(n)))
            for n in (lengths, lengths if lengths_k is None else lengths_k)
        ]
        seg_q, seg_k = (torch.tensor(sorted(s) if data.draw(st.booleans()) else s, dtype=torch.uint8) for s in drawn)
        layout = AttnLayout.from_segments(seg_q, rules, seg_k, within=layout)
    for backend in BACKENDS:
        compare(layout, torch.float32, backend, relative_error, tolerance[torch.float32], heads=2, head_dim=16)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_lies_in_the_padding_is_never_read(backend):
    mask = key_mask("1110011", "0111110")
    layout = AttnLayout.from_key_mask(mask, query_mask=mask)
    q, k, v, g = inputs(layout, torch.float32)
    clean = run(lambda *x: masked_attention(*x, layout, backend=backend), q, k, v, g)
    dirty = [x.masked_fill(~mask[:, :, None, None], float("nan")) for x in (q, k, v, g)]
    for a, b in zip(clean, run(lambda *x: masked_attention(*x, layout, backend=backend), *dirty), strict=True):
        assert torch.equal(a, b)


# key rows past the end, which are not stored
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("sign", [1, -1])
def test_scores_far_from_zero(sign, backend, relative_error):
    """All scores beyond 128 (in base 2): exp2(0 - lse) overflows in a key tile that is cut by the end, unless it is
    masked."""
    layout = AttnLayout.from_lengths([33], packed=True)
    q, k, v, g = inputs(layout, torch.float32)
    q, k = 5 + 0.2 * q, sign * (5 + 0.2 * k)
    assert (q.squeeze(1) @ k.squeeze(1).T * 32**-0.5).abs().min() > 128 * 0.6931
    got = run(lambda *x: masked_attention(*x, layout, backend=backend), q, k, v, g)
    want = run(lambda *x: masked_attention_reference(*x, layout), *(x.double() for x in (q, k, v, g)))
    assert [relative_error(a, b) < 2e-3 for a, b in zip(got, want, strict=True)] == [True] * 4


@pytest.mark.parametrize("backend", BACKENDS)
def test_second_backward_gives_the_same(backend):
    layout = LAYOUTS["packed segments"]()
    q, k, v, g = inputs(layout, torch.float32)
    leaves = [x.detach().requires_grad_() for x in (q, k, v)]
    o = masked_attention(*leaves, layout, backend=backend)
    first = torch.autograd.grad(o, leaves, g, retain_graph=True)
    for a, b in zip(first, torch.autograd.grad(o, leaves, g), strict=True):
        assert torch.equal(a, b)


def test_gradient_of_a_sum_comes_expanded(relative_error, tolerance):
    """``o.sum().backward()`` hands over a tensor whose strides are all 0."""
    layout = LAYOUTS["packed"]()
    q, k, v, _ = inputs(layout, torch.float32)
    got, want = (x.detach().clone().requires_grad_() for x in (v, v))
    masked_attention(q, k, got, layout, backend="triton").sum().backward()
    masked_attention_reference(q, k, want, layout).sum().backward()
    assert relative_error(got.grad, want.grad) < tolerance[torch.float32]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("change", ["transposed", "sliced", "expanded"])
def test_strides(change, backend, relative_error, tolerance):
    layout = AttnLayout.from_lengths([35, 9], packed=False, max_q=36)
    torch.manual_seed(0)
    x = {
        "transposed": lambda: torch.randn(2, 3, 36, 16).transpose(1, 2),  # (B, H, L, D) as transformers has it
        "sliced": lambda: torch.randn(2, 40, 5, 64)[:, 2:38, 1:4, 16:32],
        "expanded": lambda: torch.randn(2, 36, 1, 16).expand(2, 36, 3, 16),
    }[change]()
    got = masked_attention(x, x, x, layout, backend=backend)
    assert relative_error(got, masked_attention_reference(x, x, x, layout)) < tolerance[torch.float32]


def test_offsets_beyond_32_bits(relative_error, tolerance):
    torch.utils.deterministic.fill_uninitialized_memory = False  # 4 GB of address space, of which two rows are touched
    memory = torch.empty(2**31 + 16, dtype=torch.float16)
    for layout, shape, strides in (
        (AttnLayout.full(1, 2), (1, 2, 1, 16), (1, 2**31, 16, 1)),
        (AttnLayout.from_lengths([2, 1], packed=True), (3, 1, 16), (2**30, 16, 1)),  # start of a sample times stride
    ):
        far = memory.as_strided(shape, strides)
        far.copy_(torch.randn(shape))
        got = run(lambda *x, layout=layout: masked_attention(*x, layout, backend="triton"), far, far, far, far)
        want = run(lambda *x, layout=layout: masked_attention_reference(*x, layout), *[far.double()] * 4)
        assert all(relative_error(a, b, 1.0) < tolerance[torch.float16] for a, b in zip(got, want, strict=True))


def test_scale_is_used(relative_error, tolerance):
    layout = AttnLayout.full(1, 20)
    q, k, v, _ = inputs(layout, torch.float32)
    want = functional.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v)), scale=0.7).transpose(1, 2)
    for backend in BACKENDS:
        assert (
            relative_error(masked_attention(q, k, v, layout, scale=0.7, backend=backend), want)
            < tolerance[torch.float32]
        )


def test_no_mask_is_left_to_sdpa(relative_error, tolerance, monkeypatch):
    monkeypatch.setattr(attention, "_attention_forward", None)
    compare(AttnLayout.full(2, 20, 30), torch.float32, "auto", relative_error, tolerance[torch.float32])
    with pytest.raises(
        TypeError
    ):  # a layout with lengths is ours, and so is an empty key sequence, which SDPA makes NaN
        layout = AttnLayout.full(1, 2, 0)
        masked_attention(*inputs(layout, torch.float32)[:3], layout)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_keys_at_all(backend):
    layout = AttnLayout.full(1, 2, 0)
    got = run(lambda *x: masked_attention(*x, layout, backend=backend), *inputs(layout, torch.float32))
    assert [x.shape[1] for x in got] == [2, 2, 0, 0] and not got[0].any() and not got[1].any()


def test_float64_takes_the_fallback(relative_error, tolerance):
    compare(LAYOUTS["tri-modal"](), torch.float64, "auto", relative_error, tolerance[torch.float64])
    layout = AttnLayout.full(1, 3)
    with pytest.raises(RuntimeError, match="head dimension 256 in torch.float32"):
        masked_attention(*inputs(layout, torch.float32, head_dim=256)[:3], layout, backend="triton")
    with pytest.raises(RuntimeError, match="float64"):
        masked_attention(*inputs(layout, torch.float64)[:3], layout, backend="triton")


def test_autocast_computes_in_its_type():
    layout = AttnLayout.full(1, 20)
    q, k, v, g = inputs(layout, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        o, dq, _, _ = run(lambda *x: masked_attention(*x, layout, backend="triton"), q, k, v, g.bfloat16())
    assert (o.dtype, dq.dtype) == (torch.bfloat16, torch.float32)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", [pytest.param("padded", marks=pytest.mark.slow), "segments"])
def test_operators_are_registered_soundly(name, backend):
    """torch's own checks: schema, fake tensors, autograd, and tracing."""
    layout = {
        "padded": AttnLayout.from_lengths([3, 0], [2, 5], packed=False),
        "segments": AttnLayout.from_segments(
            segments((9,)), THREE, within=AttnLayout.from_lengths([4, 5], packed=True)
        ),
    }[name]
    q, k, v, g = inputs(layout, torch.float32, head_dim=16)
    q, k, v = (x.contiguous().requires_grad_() for x in (q, k, v))
    tensors = (layout.cu_q, layout.cu_k, layout.len_q, layout.len_k, layout.see, layout.bit)
    visits = [layout.visits(kernel, 16, q.dtype, backend) for kernel in ("forward", "dkdv", "dq")]
    numbers = (layout.max_q, layout.max_k, layout.batch, 0.25, backend)
    torch.library.opcheck(attention._attention_forward, (q, k, v, *tensors, *visits, *numbers))
    plain = [x.detach() for x in (q, k, v)]
    o, lse = attention._attention_forward(*plain, *tensors, *visits, *numbers)
    torch.library.opcheck(attention._attention_backward, (g, *plain, o, lse, *tensors, *visits[1:], *numbers))


@pytest.mark.parametrize("backend", BACKENDS)
def test_compiles_without_graph_breaks(backend):
    """Layout and block lists are built inside the compiled function, as in a training step."""
    mask = key_mask("10011")
    q, k, v, g = inputs(AttnLayout.from_key_mask(mask), torch.float32)

    def forward(q, k, v, mask):
        return masked_attention(q, k, v, AttnLayout.from_key_mask(mask), backend=backend)

    compiled = torch.compile(forward, fullgraph=True, backend="aot_eager")
    got = run(lambda *x: compiled(*x, mask), q, k, v, g)
    for a, b in zip(got, run(lambda *x: forward(*x, mask), q, k, v, g), strict=True):
        assert torch.equal(a, b)


def test_no_gradient_asks_for_no_backward_lists():
    layout = AttnLayout.from_key_mask(key_mask("110011"))
    q, k, v, _ = inputs(layout, torch.float32)
    masked_attention(q, k, v, layout, backend="triton")
    assert [key[0] for key in layout._visits] == ["forward"]


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda q, k, v, x: (q.double(), k, v, x), "one floating-point type"),
        (lambda q, k, v, x: (q[..., :8], k[..., :8], v[..., :8], x), "multiple of 16"),
        (lambda q, k, v, x: (q[:, :5], k, v, x), "do not fit the padded layout of 2 samples, 33 queries, 40 keys"),
        (lambda q, k, v, x: (q, k, v, AttnLayout.from_lengths([3], packed=True)), "packed q"),
    ],
)
def test_errors_name_the_shapes(change, message):
    layout = LAYOUTS["full"]()
    with pytest.raises(ValueError, match=message):
        masked_attention(*change(*inputs(layout, torch.float32)[:3], layout))


def test_flop_counter_knows_the_operations():
    """2 n m k per product: 2 products forward, 5 backward; packed samples as samples of mean length."""
    from torch.utils.flop_counter import FlopCounterMode

    q, k, v = (torch.randn(2, length, 3, 16, requires_grad=True) for length in (5, 7, 7))
    with FlopCounterMode(display=False) as counter:
        masked_attention(q, k, v, AttnLayout.from_key_mask(torch.ones(2, 7).bool(), n_queries=5), backend="torch")
    assert counter.get_total_flops() == 2 * 2 * (2 * 5 * 7) * 3 * 16
    with FlopCounterMode(display=False) as counter:
        layout = AttnLayout.from_key_mask(torch.ones(2, 7).bool(), n_queries=5)
        masked_attention(q, k, v, layout, backend="torch").sum().backward()
    assert counter.get_total_flops() == (2 + 5) * 2 * (2 * 5 * 7) * 3 * 16
    packed = torch.randn(12, 3, 16)
    with FlopCounterMode(display=False) as counter:
        masked_attention(packed, packed, packed, AttnLayout.from_lengths([6, 6], packed=True), backend="torch")
    assert counter.get_total_flops() == 2 * 2 * (2 * 6 * 6) * 3 * 16
