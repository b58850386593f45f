"""What every encoder and every fusion encoder promises."""

from __future__ import annotations

import inspect
import pickle
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vtp.contracts import Encoder, Fusion, Part, member
from vtp.model.build import BuildContext
from vtp.testing.checks import (
    Check,
    ContractError,
    backward,
    close,
    construct,
    expect,
    keeps_members,
    run,
    same_origin,
    some,
)
from vtp.testing.inputs import TEXTS, arguments, slot_of
from vtp.types import Fused, TextSpec, Tokens

__all__ = ["check_encoder", "check_fusion"]

ROWS = 3


def check_encoder(
    cls: Callable[..., nn.Module],
    options: Mapping[str, Any] | None = None,
    *,
    texts: Sequence[str] = TEXTS,
    skip: Mapping[str, str] | None = None,
) -> None:
    """Check an encoder of text, video or audio.

    Args:
        cls: the class; its ``spec`` tells the modality.
        options: keyword arguments that make it tiny.
        texts: what a tokenizer is trained on, and what is encoded.
        skip: checks to leave out, with the reason.

    Checks: members, shapes, pooled, determinism, gradients, neighbours, padding, missing, masks, restore, workers,
    words, checkpointing, layers, autocast.

    Raises:
        ContractError: with every check that failed.

    Example::

        def test_my_video_encoder():
            check_encoder(MyVideo, {"width": 16, "depth": 1, "frames": 4, "size": 32})
    """
    _Unimodal(cls, options or {}, texts).run(skip)


def check_fusion(
    cls: Callable[..., nn.Module],
    options: Mapping[str, Any] | None = None,
    *,
    widths: Mapping[str, int] | None = None,
    skip: Mapping[str, str] | None = None,
) -> None:
    """Check a fusion encoder.

    Args:
        cls: the class.
        options: keyword arguments that make it tiny.
        widths: D of the tokens per modality that it is to join; by default three different ones.
        skip: checks to leave out, with the reason.

    Checks: members, shapes (also of every subset of the modalities), pooled, determinism, gradients, neighbours,
    padding, missing, many, restore, checkpointing, layers, autocast.

    Raises:
        ContractError: with every check that failed.

    Example::

        def test_my_fusion_encoder():
            check_fusion(MyFusion, {"width": 16, "depth": 1})
    """
    _Joint(cls, options or {}, widths or {"video": 12, "audio": 16, "text": 8}).run(skip)


class _Checks:
    """Checks of one class; subclasses know what goes in and what comes out."""

    contract: type
    skipped: tuple[str, ...] = ()

    def __init__(self, cls: Callable[..., nn.Module], options: Mapping[str, Any]) -> None:
        self.cls = cls
        self.options = options
        torch.manual_seed(1)
        self.inputs = self.example(self.build())

    def run(self, skip: Mapping[str, str] | None) -> None:
        names = [name for name, _ in inspect.getmembers(self, inspect.ismethod) if name.startswith("check_")]
        checks: dict[str, Check] = {name.removeprefix("check_"): getattr(self, name) for name in names}
        checks = {"members": checks.pop("members")} | checks
        run(f"{self.cls.__module__}.{self.cls.__name__}", checks, skip)

    def build(self, seed: int = 0, assets: Path | None = None) -> Any:
        torch.manual_seed(seed)
        return construct(self.cls, self.options, context=self.context(assets))

    def context(self, assets: Path | None) -> BuildContext:
        raise NotImplementedError

    def example(self, encoder: Any) -> dict[str, Any]:
        raise NotImplementedError

    def call(self, encoder: Any, inputs: dict[str, Any] | None = None) -> list[Tensor]:
        """What comes out that has a meaning: real tokens, pooled vectors."""
        raise NotImplementedError

    def row(self, index: int) -> dict[str, Any]:
        raise NotImplementedError

    def check_members(self) -> None:
        keeps_members(self.build(), self.contract)

    def check_determinism(self) -> None:
        encoder = self.build().eval()
        same = all(map(torch.equal, encoder.state_dict().values(), self.build().state_dict().values()))
        expect(same, "the same seed must give the same weights: draw them with torch's global generator")
        first, second = self.call(encoder), self.call(encoder)
        expect(all(map(torch.equal, first, second)), "in eval mode the same input must give the same output")

    def check_gradients(self) -> None:
        encoder = self.build().train()
        backward(_sum(self.call(encoder)))
        trained = {n: p for n, p in encoder.named_parameters() if p.requires_grad}
        without = [n for n, p in trained.items() if p.grad is None]
        expect(not without, f"a gradient must reach every trained parameter; none reaches {some(without)}")
        wrong = [n for n, p in trained.items() if p.grad is not None and not p.grad.isfinite().all()]
        expect(not wrong, f"gradients must be finite; those of {some(wrong)} are not")

    def check_neighbours(self) -> None:
        encoder = self.build().eval()
        together, alone = self.rows(encoder, self.inputs)[1], self.rows(encoder, self.row(1))[0]
        for a, b in zip(alone, together, strict=True):
            close(a, b, "a row must not depend on the other rows of its batch")

    def rows(self, encoder: Any, inputs: dict[str, Any]) -> list[list[Tensor]]:
        """Per row what comes out that has a meaning."""
        raise NotImplementedError

    def check_restore(self) -> None:
        encoder = self.build().eval()
        with tempfile.TemporaryDirectory() as name:
            assets = Path(name)
            if (save := member(encoder, Part, "save_assets")) is not None:
                folder = assets / self.part(encoder)
                folder.mkdir(parents=True)
                save(folder)
            again = self.build(seed=5, assets=assets).eval()
            try:
                again.load_state_dict(encoder.state_dict(), strict=True)
            except RuntimeError as error:
                raise ContractError(f"state_dict must load into a new instance of the same options: {error}") from None
            self.compare_restored(encoder, again)
            same_origin(encoder, again)
            for a, b in zip(self.call(encoder), self.call(again), strict=True):
                expect(torch.equal(a, b), "an instance with the state_dict of another must compute the same")

    def part(self, encoder: Any) -> str:
        raise NotImplementedError

    def compare_restored(self, encoder: Any, again: Any) -> None:
        """What else must be the same."""

    def check_checkpointing(self) -> None:
        results = []
        for checkpointing in (False, True):
            encoder = self.build().train()
            if checkpointing:
                enable = member(encoder, Encoder, "gradient_checkpointing_enable")
                if enable is None:
                    return
                enable()
            torch.manual_seed(2)
            loss = _sum(self.call(encoder))
            backward(loss)
            results.append((loss.detach(), {n: p.grad for n, p in encoder.named_parameters()}))
        what = "gradient checkpointing must change neither output nor gradients"
        close(results[0][0], results[1][0], what)
        for name, gradient in results[0][1].items():
            again = results[1][1][name]
            expect((gradient is None) == (again is None), f"{what}; {name} has none any more")
            if gradient is not None:
                scale = float(gradient.abs().max()) + 1e-12
                close(again / scale, gradient / scale, f"{what}, of {name}")

    def check_layers(self) -> None:
        encoder = self.build()
        depth, layer_of = (member(encoder, Encoder, name) for name in ("depth", "layer_of"))
        if depth is None or layer_of is None:
            expect(depth is None or layer_of is None, "depth and layer_of belong together")
            return
        layers = {n: layer_of(n) for n, p in encoder.named_parameters() if p.requires_grad}
        outside = {n: layer for n, layer in layers.items() if not 0 <= layer <= depth + 1}
        expect(not outside, f"layers are 0 to depth + 1 = {depth + 1}, got {outside}")
        empty = sorted(set(range(1, depth + 1)) - set(layers.values()))
        shallow = not set(layers.values()) - {0}  # an embedding, whose depth is that of what comes behind it
        expect(shallow or not empty, f"every layer from 1 to depth={depth} must have parameters; none are in {empty}")

    def check_autocast(self) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            out = self.call(self.build().eval())
        expect(all(x.isfinite().all() for x in out), "the output must be finite in bfloat16")


class _Unimodal(_Checks):
    contract = Encoder

    def __init__(self, cls: Callable[..., nn.Module], options: Mapping[str, Any], texts: Sequence[str]) -> None:
        self.texts = texts
        super().__init__(cls, options)

    def context(self, assets: Path | None) -> BuildContext:
        def texts() -> Sequence[str]:
            expect(assets is None, "the training texts must not be read when a checkpoint is restored")
            return self.texts

        return BuildContext(texts=texts, assets=assets)

    def example(self, encoder: Any) -> dict[str, Any]:
        return arguments(encoder, ROWS, self.texts)

    def part(self, encoder: Any) -> str:
        return f"encoders/{slot_of(encoder.spec)}"

    def call(self, encoder: Any, inputs: dict[str, Any] | None = None) -> list[Tensor]:
        out = encoder(**(inputs or self.inputs))
        return [out.x[out.attention_mask]]

    def row(self, index: int) -> dict[str, Any]:
        return {name: tensor[index : index + 1] for name, tensor in self.inputs.items()}

    def rows(self, encoder: Any, inputs: dict[str, Any]) -> list[list[Tensor]]:
        out = encoder(**inputs)
        return [[x[real]] for x, real in zip(out.x, out.attention_mask, strict=True)]

    def check_shapes(self) -> None:
        encoder = self.build().eval()
        out = encoder(**self.inputs)
        expect(isinstance(out, Tokens), f"forward must give vtp.types.Tokens, got {type(out).__name__}")
        expect(out.x.dtype == torch.float32, f"tokens must be float32, got {out.x.dtype}")
        mask = out.attention_mask
        expect(mask.dtype == torch.bool and mask.shape[:1] == (ROWS,), "attention_mask must be bool (B, N)")
        shape = (*mask.shape, encoder.width)
        expect(tuple(out.x.shape) == shape, f"tokens must be (B, N, width) = {shape}, got {tuple(out.x.shape)}")
        expect(out.x.isfinite().all(), "tokens must be finite")
        expect(mask.any(1).all(), "every row must have real tokens")
        expect(out.index is None, "index must be None when no mask is given")
        count = torch.Size(out.grid).numel() if out.grid is not None else mask.shape[1]
        expect(count == mask.shape[1], f"grid {out.grid} has {count} tokens, x has {mask.shape[1]}")
        if slot_of(encoder.spec) != "video":
            expect(not mask.all(), "attention_mask must be False for what is only padding")

    def check_pooled(self) -> None:
        _check_pooled(self.build().eval(), self.build().eval()(**self.inputs))

    def check_padding(self) -> None:
        encoder = self.build().eval()
        before, changed = self.call(encoder), {k: v.clone() for k, v in self.inputs.items()}
        if "token_ids" in changed:
            changed["token_ids"][~changed["attention_mask"]] = encoder.spec.vocab_size - 1
        elif "waveform" in changed:
            past = torch.arange(changed["waveform"].shape[1]) >= changed["lengths"][:, None]
            changed["waveform"][past] = 0.7
        for a, b in zip(before, self.call(encoder, changed), strict=True):
            close(a, b, "padding must have no influence on real tokens", rtol=0, atol=1e-5)

    def check_missing(self) -> None:
        encoder = self.build().train()
        inputs = {k: v.clone() for k, v in self.inputs.items()}
        for tensor in inputs.values():
            tensor[1] = 0  # what a loader gives for a modality that the row lacks: zeros and padding
        out = encoder(**inputs)
        expect(out.x.isfinite().all(), "the tokens of a row without the modality must be finite")
        backward((out.x * out.attention_mask[..., None]).square().sum())
        finite = all(p.grad.isfinite().all() for p in encoder.parameters() if p.grad is not None)
        expect(finite, "a row without the modality must leave the gradients finite")
        if slot_of(encoder.spec) != "video":
            expect(not out.attention_mask[1].any(), "a row without sound or words must have no real tokens")

    def check_masks(self) -> None:
        encoder = self.build().eval()
        if "mask" not in inspect.signature(encoder.forward).parameters:
            return
        everything = encoder(**self.inputs)
        n = everything.x.shape[1]
        mask = torch.stack([torch.randperm(n) < n // 2 for _ in range(ROWS)])
        visible = encoder(**self.inputs, mask=mask)
        shape = (ROWS, n - n // 2, encoder.width)
        expect(tuple(visible.x.shape) == shape, f"with a mask only visible tokens come out, {shape}")
        expect(visible.index is not None, "with a mask, index must tell the places of the visible tokens")
        places = [[i for i in range(n) if not mask[row, i]] for row in range(ROWS)]
        expect(visible.index.tolist() == places, "index must be the ascending places where mask is False")
        real = everything.attention_mask.gather(1, visible.index)
        expect(torch.equal(visible.attention_mask, real), "attention_mask must be that of the visible tokens")
        open_ = encoder(**self.inputs, mask=torch.zeros(ROWS, n, dtype=torch.bool))
        real = everything.attention_mask
        close(open_.x[real], everything.x[real], "a mask that hides nothing must change nothing")

    def compare_restored(self, encoder: Any, again: Any) -> None:
        if isinstance(encoder.spec, TextSpec):
            texts = list(self.texts)
            same = encoder.spec.tokenize(texts) == again.spec.tokenize(texts)
            expect(same, "a restored tokenizer must give the same ids: write it in save_assets, read context.assets_of")
            facts = ("pad_id", "mask_id", "cls_id", "sep_id", "special_ids", "vocab_size", "max_length")
            wrong = [fact for fact in facts if getattr(encoder.spec, fact) != getattr(again.spec, fact)]
            expect(not wrong, f"a restored spec must be the same; {some(wrong)} differ")

    def check_workers(self) -> None:
        spec = self.build().spec
        try:
            again = pickle.loads(pickle.dumps(spec))
        except Exception as error:
            raise ContractError(f"spec must travel to loader workers by pickle ({error}): no lambda in it") from None
        if isinstance(spec, TextSpec):
            texts = list(self.texts)
            expect(spec.tokenize(texts) == again.tokenize(texts), "tokenize must give the same in a loader worker")
            for name in ("words", "detokenize"):
                there = (getattr(spec, name) is None) == (getattr(again, name) is None)
                expect(there, f"spec.{name} must travel to a loader worker")
        else:
            expect(again == spec, "spec must come out of pickle as it went in")

    def check_words(self) -> None:
        """Of texts, where the tokenizer has word boundaries or can turn ids into text."""
        spec = self.build().spec
        if not isinstance(spec, TextSpec):
            return
        long = " ".join(self.texts)
        for text in (*self.texts, long, " ".join([long] * spec.max_length), ""):
            ids = spec.tokenize([text])[0]
            if spec.words is not None:
                content = [token for _, found in spec.words(text) for token in found]
                want = [token for token in ids if token not in (spec.cls_id, spec.sep_id)]
                expect(
                    content == want,
                    f"words({text[:40]!r}) must have the ids of tokenize without the special tokens around",
                )
                lost = [word for word, found in spec.words(text) if word not in text or not found]
                expect(not lost, f"words must stand in the text and have ids; {some(lost)} does not")
            if spec.detokenize is not None:
                told = spec.detokenize(ids)
                expect(isinstance(told, str), f"detokenize must give a string, got {type(told).__name__}")


class _Joint(_Checks):
    contract = Fusion

    def __init__(self, cls: Callable[..., nn.Module], options: Mapping[str, Any], widths: Mapping[str, int]) -> None:
        self.widths = widths
        super().__init__(cls, options)

    def context(self, assets: Path | None) -> BuildContext:
        return BuildContext(encoders={m: _Width(width) for m, width in self.widths.items()}, assets=assets)

    def example(self, encoder: Any) -> dict[str, Any]:
        return {m: self._tokens(4 + i, width) for i, (m, width) in enumerate(self.widths.items())}

    def _tokens(self, count: int, width: int) -> Tokens:
        mask = torch.ones(ROWS, count, dtype=torch.bool)
        mask[1, 2:] = False
        return Tokens(torch.randn(ROWS, count, width), mask)

    def part(self, encoder: Any) -> str:
        return "encoders/fusion"

    def call(self, encoder: Any, inputs: dict[str, Any] | None = None) -> list[Tensor]:
        out = encoder(inputs or self.inputs)
        return [out.pooled, *(t.x[t.attention_mask] for t in out.tokens.values())]

    def row(self, index: int) -> dict[str, Any]:
        return {m: tokens.take(torch.tensor([index])) for m, tokens in self.inputs.items()}

    def rows(self, encoder: Any, inputs: dict[str, Any]) -> list[list[Tensor]]:
        out = encoder(inputs)
        return [
            [out.pooled[row], *(t.x[row][t.attention_mask[row]] for t in out.tokens.values())]
            for row in range(len(out.pooled))
        ]

    def check_shapes(self) -> None:
        encoder = self.build().eval()
        for names in _subsets(list(self.inputs)):
            given = {m: self.inputs[m] for m in names}
            out = encoder(given)
            expect(isinstance(out, Fused), f"forward must give vtp.types.Fused, got {type(out).__name__}")
            expect(set(out.tokens) == set(names), f"of {names} it gives tokens of {list(out.tokens)}")
            for m, tokens in out.tokens.items():
                shape = (*given[m].x.shape[:2], encoder.width)
                expect(tuple(tokens.x.shape) == shape, f"{m} of {names} must be (B, N, width) = {shape}")
                same = torch.equal(tokens.attention_mask, given[m].attention_mask)
                expect(same, "the attention_mask of every modality must stay as it is")
            expect(out.pooled.shape[:1] == (ROWS,) and out.pooled.dim() == 2, "pooled must be (B, D)")
            expect(all(x.isfinite().all() for x in self.call(encoder, given)), f"fusing {names} must be finite")

    def check_pooled(self) -> None:
        encoder = self.build().eval()
        if member(encoder, Fusion, "unimodal"):
            for m in self.inputs:
                _check_pooled(encoder, encoder({m: self.inputs[m]}).tokens[m])

    def check_padding(self) -> None:
        encoder = self.build().eval()
        changed = {m: Tokens(t.x.clone(), t.attention_mask) for m, t in self.inputs.items()}
        for tokens in changed.values():
            tokens.x[~tokens.attention_mask] = 1e3
        for a, b in zip(self.call(encoder), self.call(encoder, changed), strict=True):
            close(a, b, "tokens that are padding must have no influence", rtol=0, atol=1e-5)

    def check_missing(self) -> None:
        encoder = self.build().train()
        first = next(iter(self.inputs))
        lacking = {m: Tokens(t.x, t.attention_mask.clone()) for m, t in self.inputs.items()}
        lacking[first].attention_mask[1] = False
        out = self.call(encoder, lacking)
        expect(all(x.isfinite().all() for x in out), "a row that lacks a modality must come out finite")
        backward(_sum(out))
        finite = all(p.grad.isfinite().all() for p in encoder.parameters() if p.grad is not None)
        expect(finite, "a row that lacks a modality must leave the gradients finite")

    def check_many(self) -> None:
        encoder = self.build().eval()
        if not member(encoder, Fusion, "takes_many"):
            return
        passes = [self.inputs, {m: self.inputs[m] for m in list(self.inputs)[:1]}]
        together = encoder(passes)
        for given, out in zip(passes, together, strict=True):
            alone = encoder(given)
            close(out.pooled, alone.pooled, "passes made in one call must give what they give alone")
            for m in given:
                real = given[m].attention_mask
                close(out.tokens[m].x[real], alone.tokens[m].x[real], "passes made in one call, tokens")


class _Width(nn.Module):
    """Stands for an encoder of which only the width is asked."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width


def _check_pooled(encoder: Any, tokens: Tokens) -> None:
    pooled = member(encoder, Encoder, "pool")(tokens)
    shape = (ROWS, member(encoder, Encoder, "pooled_width"))
    expect(tuple(pooled.shape) == shape, f"pool must give (B, pooled_width) = {shape}, got {tuple(pooled.shape)}")
    expect(pooled.isfinite().all(), "pool must be finite")


def _subsets(names: list[str]) -> Iterator[list[str]]:
    for number in range(1, 2 ** len(names)):
        yield [name for i, name in enumerate(names) if number >> i & 1]


def _sum(out: list[Tensor]) -> Tensor:
    return torch.stack([x.square().sum() for x in out]).sum()
