"""``vtp_masked`` against transformers' own ``sdpa`` on tiny random models, outputs and parameter gradients."""

import logging

import pytest
import torch

transformers = pytest.importorskip("transformers")

from vtp_kernels import AttnLayout, transformers_attention  # noqa: E402  (after the check that transformers is there)

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def bert(**change):
    config = transformers.BertConfig(vocab_size=50, max_position_embeddings=64, **SMALL, **{**NO_DROPOUT, **change})
    return transformers.BertModel(config, add_pooling_layer=False)


def bert_decoder():
    return bert(is_decoder=True, add_cross_attention=True)


def vit():
    return transformers.ViTModel(
        transformers.ViTConfig(image_size=16, patch_size=8, **SMALL, **NO_DROPOUT), add_pooling_layer=False
    )


def videomae():
    return transformers.VideoMAEModel(
        transformers.VideoMAEConfig(image_size=16, patch_size=8, num_frames=4, **SMALL, **NO_DROPOUT)
    )


def ast():
    return transformers.ASTModel(transformers.ASTConfig(num_mel_bins=32, max_length=48, **SMALL, **NO_DROPOUT))


IDS = torch.randint(0, 50, (3, 40), generator=torch.Generator().manual_seed(0))
PADDING = (torch.arange(40) < torch.tensor([40, 7, 21])[:, None]).long()
HOLES = PADDING * (torch.arange(40) % 5 != 2)
STATES = torch.randn(3, 11, 32, generator=torch.Generator().manual_seed(0))
CASES = {
    "bert": (bert, {"input_ids": IDS}),
    "bert, padded": (bert, {"input_ids": IDS, "attention_mask": PADDING}),
    "bert, padded in the middle": (bert, {"input_ids": IDS, "attention_mask": HOLES}),
    "bert decoder": (bert_decoder, {"input_ids": IDS, "encoder_hidden_states": STATES}),
    "bert decoder, padded": (
        bert_decoder,
        {
            "input_ids": IDS,
            "attention_mask": PADDING,
            "encoder_hidden_states": STATES,
            "encoder_attention_mask": PADDING[:, 5:16],
        },
    ),
    "vit": (vit, {"pixel_values": torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))}),
    "videomae": (videomae, {"pixel_values": torch.randn(2, 4, 3, 16, 16, generator=torch.Generator().manual_seed(0))}),
    "videomae, masked": (
        videomae,
        {
            "pixel_values": torch.randn(2, 4, 3, 16, 16, generator=torch.Generator().manual_seed(0)),
            "bool_masked_pos": torch.tensor([[0, 1, 1, 0] * 2] * 2).bool(),
        },
    ),
    "ast": (ast, {"input_values": torch.randn(2, 48, 32, generator=torch.Generator().manual_seed(0))}),
}


def outputs_and_gradients(model, inputs, keep):
    model.zero_grad()
    hidden = model(**inputs).last_hidden_state
    kept = hidden if keep is None else hidden[keep.bool()]
    kept.square().sum().backward()
    return kept.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    "name, backend", [*((name, "torch") for name in CASES), ("bert, padded in the middle", "triton")]
)
def test_equals_sdpa(name, backend):
    build, inputs = CASES[name]
    torch.manual_seed(0)
    model = build().train()
    assert model.config._attn_implementation == "sdpa"
    keep = inputs.get("attention_mask")
    want, want_gradients = outputs_and_gradients(model, inputs, keep)
    model.set_attn_implementation(transformers_attention.register(backend))
    got, gradients = outputs_and_gradients(model, inputs, keep)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    assert gradients.keys() == want_gradients.keys()
    for parameter, gradient in gradients.items():
        torch.testing.assert_close(gradient, want_gradients[parameter], rtol=1e-3, atol=1e-4, msg=parameter)


def count_kernel_calls(monkeypatch):
    calls = []
    original = transformers_attention.masked_attention
    monkeypatch.setattr(
        transformers_attention, "masked_attention", lambda *x, **y: calls.append(x[3]) or original(*x, **y)
    )
    return calls


def test_all_layers_share_one_layout(monkeypatch):
    """And padding does reach the kernel: equal outputs alone could come from SDPA."""
    calls = count_kernel_calls(monkeypatch)
    model = bert()
    model.set_attn_implementation(transformers_attention.register("torch"))
    model(input_ids=IDS, attention_mask=PADDING)
    assert len(calls) == 2 and calls[0] is calls[1]
    assert calls[0].dense_mask()[:, 0].int().tolist() == PADDING.tolist()


def test_cross_attention_reaches_the_kernel(monkeypatch):
    calls = count_kernel_calls(monkeypatch)
    model = bert_decoder()
    model.set_attn_implementation(transformers_attention.register("torch"))
    model(**CASES["bert decoder, padded"][1])
    assert [(layout.max_q, layout.max_k) for layout in calls] == [(40, 11)] * 2  # causal self-attention is SDPA's


def test_attention_dropout_takes_sdpa_and_says_so_once(caplog, monkeypatch):
    monkeypatch.setattr(transformers_attention, "_logged", set())
    calls = count_kernel_calls(monkeypatch)
    model = bert(attention_probs_dropout_prob=0.5).train()
    model.set_attn_implementation(transformers_attention.register("torch"))
    with caplog.at_level(logging.WARNING, "vtp_kernels"):
        model(input_ids=IDS, attention_mask=PADDING)
    (record,) = caplog.records
    assert not calls and "runs on torch's SDPA: attention dropout is on" in record.message
    model.eval()(input_ids=IDS, attention_mask=PADDING)
    assert len(calls) == 2


def test_a_row_without_any_real_token_stays_finite():
    """A missing modality, which dense SDPA turns into an average of padding."""
    model = bert()
    model.set_attn_implementation(transformers_attention.register("torch"))
    mask = PADDING.clone()
    mask[1] = 0
    assert model(input_ids=IDS, attention_mask=mask).last_hidden_state.isfinite().all()


def test_activation_checkpointing_and_fullgraph_compilation():
    torch.manual_seed(0)
    model = bert().train()
    model.set_attn_implementation(transformers_attention.register("torch"))
    inputs = {"input_ids": IDS, "attention_mask": PADDING}
    want, want_gradients = outputs_and_gradients(model, inputs, PADDING)
    # transformers 5.23 renames the method
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    _, gradients = outputs_and_gradients(model, inputs, PADDING)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, want_gradients[name])
    torch.manual_seed(0)
    model = bert()
    model.set_attn_implementation(transformers_attention.NAME)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(**inputs).last_hidden_state[PADDING.bool()], want, rtol=1e-5, atol=1e-5)


def test_masks_that_are_no_padding_stay_dense():
    from transformers.masking_utils import bidirectional_mask_function, causal_mask_function

    sizes = {
        "batch_size": 2,
        "q_length": 4,
        "kv_length": 4,
        "attention_mask": torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]]).bool(),
    }
    plain = {"mask_function": bidirectional_mask_function, "allow_is_bidirectional_skip": True}
    assert isinstance(transformers_attention._mask(**sizes, **plain), AttnLayout)
    causal = transformers_attention._mask(**sizes, mask_function=causal_mask_function)
    assert causal.shape == (2, 1, 4, 4) and not causal[0, 0, 0, 1]
    wanted_as_tensor = transformers_attention._mask(**sizes, mask_function=bidirectional_mask_function)
    assert wanted_as_tensor.shape == (2, 1, 4, 4)


def test_unknown_backend_is_refused():
    with pytest.raises(ValueError, match="backend='cuda'"):
        transformers_attention.register("cuda")
