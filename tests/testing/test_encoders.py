"""A good encoder passes, and for every check there is a faulty one that it catches."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vtp.model.build import BuildContext
from vtp.testing import ContractError, check_encoder, check_fusion
from vtp.testing.inputs import TinyAudio, TinyFusion, TinyText, TinyVideo
from vtp.types import Fused, TextSpec, Tokens, VideoSpec

WORDS = 20


class Vocabulary:
    """Words of the training texts; picklable."""

    def __init__(self, texts: list[str]) -> None:
        self.ids = {word: 5 + i for i, word in enumerate(sorted({w for text in texts for w in text.split()}))}

    def __call__(self, texts: list[str]) -> list[list[int]]:
        return [[2, *(self.ids.get(word, 1) for word in text.split()), 3] for text in texts]


class Text(nn.Module):
    """A text encoder that keeps the contract: attention over real tokens, assets, layers, checkpointing."""

    width = 8
    depth = 1

    def __init__(self, *, context: BuildContext, width: int = 8) -> None:
        super().__init__()
        self.width = width
        self.tokenizer = self.vocabulary(context)
        self.spec = TextSpec(self.tokenizer, 0, 4, 2, 3, (0, 1, 2, 3, 4), WORDS, 12)
        self.words = nn.Embedding(WORDS, width)
        self.layer = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.checkpointing = False

    def vocabulary(self, context: BuildContext) -> Vocabulary:
        folder = context.assets_of("encoders/text")
        if folder is None:
            return Vocabulary(list(context.texts()))
        return Vocabulary((folder / "words.txt").read_text().splitlines())

    def save_assets(self, folder) -> None:
        (folder / "words.txt").write_text("\n".join(self.tokenizer.ids))

    def mix(self, x: Tensor, real: Tensor) -> Tensor:
        mean = (x * real[..., None]).sum(1) / real.sum(1).clamp(min=1)[:, None]
        return self.layer(x + mean[:, None]).tanh()

    def forward(self, token_ids: Tensor, attention_mask: Tensor) -> Tokens:
        x = self.words(token_ids)
        if self.checkpointing:
            x = checkpoint(self.mix, x, attention_mask, use_reentrant=False)
        else:
            x = self.mix(x, attention_mask)
        return Tokens(self.norm(x), attention_mask)

    def layer_of(self, name: str) -> int:
        return {"words": 0, "layer": 1, "norm": 2}[name.split(".")[0]]

    def gradient_checkpointing_enable(self) -> None:
        self.checkpointing = True


class Misspelt(Text):
    pooled_widht = 8


class TwoDimensional(Text):
    def forward(self, token_ids, attention_mask):
        out = super().forward(token_ids, attention_mask)
        return Tokens(out.x[..., :4], attention_mask)


class PoolsToAnotherWidth(Text):
    pooled_width = 4

    def pool(self, tokens):
        return tokens.pooled()


class Restless(Text):
    def forward(self, token_ids, attention_mask):
        out = super().forward(token_ids, attention_mask)
        return Tokens(out.x + torch.rand(()), attention_mask)


class Unused(Text):
    def __init__(self, *, context, width: int = 8):
        super().__init__(context=context, width=width)
        self.spare = nn.Linear(2, 2)

    def layer_of(self, name):
        return 0 if name.startswith("spare") else super().layer_of(name)


class Neighbours(Text):
    def mix(self, x, real):
        return super().mix(x - x.mean(0), real)


class SeesPadding(Text):
    def mix(self, x, real):
        return super().mix(x, torch.ones_like(real))


class BreaksOnEmptyRows(Text):
    def mix(self, x, real):
        return self.layer(x + ((x * real[..., None]).sum(1) / real.sum(1)[:, None])[:, None]).tanh()


class ForgetsItsWords(Text):
    def vocabulary(self, context):
        return Vocabulary(["another", "text"] if context.assets else list(context.texts()))


class TellsOfAnotherOrigin(Text):
    def __init__(self, *, context):
        super().__init__(context=context)
        self.made_of = {"words": WORDS} if context.assets is None else {}

    def origin(self):
        return self.made_of


class TellsNoJson(Text):
    def origin(self):
        return {"words": {1, 2}}


def letters(text):
    return [(letter, [5]) for letter in text]


class Splits(Text):
    def __init__(self, *, context: BuildContext, width: int = 8) -> None:
        super().__init__(context=context, width=width)
        self.spec = replace(self.spec, words=letters)


class Numbers(Text):
    def __init__(self, *, context: BuildContext, width: int = 8) -> None:
        super().__init__(context=context, width=width)
        self.spec = replace(self.spec, detokenize=list)


class Lambda(Text):
    def vocabulary(self, context):
        found = super().vocabulary(context)
        call = lambda texts: found(texts)  # noqa: E731
        call.ids = found.ids
        return call


class CheckpointsWrongly(Text):
    def forward(self, token_ids, attention_mask):
        out = super().forward(token_ids, attention_mask)
        return Tokens(out.x.detach() * self.norm.weight if self.checkpointing else out.x, attention_mask)


class TooDeep(Text):
    depth = 3


class Overflows(Text):
    def mix(self, x, real):
        return self.layer(x).to(x.dtype) * (torch.inf if torch.is_autocast_enabled("cpu") else 1.0)


@pytest.mark.parametrize(
    "check, cls, words",
    [
        ("members", Misspelt, "`pooled_widht`.*`pooled_width`"),
        ("shapes", TwoDimensional, r"tokens must be \(B, N, width\)"),
        ("pooled", PoolsToAnotherWidth, r"pool must give \(B, pooled_width\) = \(3, 4\), got \(3, 8\)"),
        ("determinism", Restless, "in eval mode the same input must give the same output"),
        ("gradients", Unused, "none reaches spare.weight, spare.bias"),
        ("neighbours", Neighbours, "a row must not depend on the other rows"),
        ("padding", SeesPadding, "padding must have no influence"),
        ("missing", BreaksOnEmptyRows, "must be finite"),
        ("restore", ForgetsItsWords, "a restored tokenizer must give the same ids"),
        (
            "restore",
            TellsOfAnotherOrigin,
            r"origin\(\) must tell the same after save_assets: {\"words\": 20}, and then {}",
        ),
        ("restore", TellsNoJson, r"origin\(\) must be plain JSON: Object of type set"),
        ("workers", Lambda, "must travel to loader workers by pickle"),
        ("words", Splits, "must have the ids of tokenize without the special tokens around"),
        ("words", Numbers, "detokenize must give a string, got list"),
        ("checkpointing", CheckpointsWrongly, "must change neither output nor gradients"),
        ("layers", TooDeep, r"none are in \[3\]"),
        ("autocast", Overflows, "finite in bfloat16"),
    ],
)
def test_a_faulty_text_encoder_is_caught(check, cls, words):
    with pytest.raises(ContractError) as error:
        check_encoder(cls)
    told = str(error.value)
    assert told.startswith(f"{__name__}.{cls.__name__} does not keep its contract")
    assert re.search(rf"^  (?:[\w, -]+, )?{check}(?:, [\w, -]+)?: .*{words}", told, re.M), told


def test_a_good_text_encoder_passes():
    check_encoder(Text, {"width": 16})


class HidesOthers(TinyVideo):
    def forward(self, video, mask=None):
        return super().forward(video, None if mask is None else ~mask)


class SlowGrid(TinyVideo):
    def __init__(self):
        super().__init__()
        self.grid = (2, 2, 3)


@pytest.mark.parametrize("cls", [TinyVideo, TinyAudio, TinyText])
def test_the_encoders_that_objectives_are_tried_with_keep_the_contract(cls):
    check_encoder(cls)


def test_a_mask_that_hides_the_wrong_tokens_is_caught():
    with pytest.raises(ContractError, match="masks: index must be the ascending places where mask is False"):
        check_encoder(HidesOthers)


def test_an_option_of_another_type_is_caught():
    with pytest.raises(ContractError, match="width: expected int, got 'wide'"):
        check_encoder(Text, {"width": "wide"})


def test_a_check_is_left_out_with_a_reason_only():
    check_encoder(PoolsToAnotherWidth, skip={"pooled": "it is a test"})
    with pytest.raises(ValueError, match="expected a reason"):
        check_encoder(Text, skip={"pooled": ""})
    with pytest.raises(ValueError, match="for one of members"):
        check_encoder(Text, skip={"pooling": "no such check"})


# -- fusion ------------------------------------------------------------------------------------------------------------


class Fusion(nn.Module):
    """A fusion encoder that keeps the contract, and takes many passes at once."""

    takes_many = True
    unimodal = True

    def __init__(self, *, context: BuildContext, width: int = 8) -> None:
        super().__init__()
        self.width = width
        self.proj = nn.ModuleDict({m: nn.Linear(e.width, width) for m, e in context.encoders.items()})
        self.mix = nn.Linear(width, width)

    def forward(self, tokens):
        return [self.one(each) for each in tokens] if isinstance(tokens, list) else self.one(tokens)

    def one(self, tokens):
        x = torch.cat([self.proj[m](t.x) for m, t in tokens.items()], 1)
        mask = torch.cat([t.attention_mask for t in tokens.values()], 1)
        pooled = self.mix(self.mean(x, mask)).tanh()
        pieces = (x + pooled[:, None]).split([t.x.shape[1] for t in tokens.values()], 1)
        return Fused({m: Tokens(p, tokens[m].attention_mask) for m, p in zip(tokens, pieces, strict=True)}, pooled)

    def mean(self, x, mask):
        return Tokens(x, mask).pooled()


class NeedsEverything(Fusion):
    def one(self, tokens):
        return super().one({m: tokens[m] for m in self.proj})


class FusedNeighbours(Fusion):
    def mean(self, x, mask):
        return super().mean(x - x.mean(0), mask)


class FusesPadding(Fusion):
    def mean(self, x, mask):
        return x.mean(1)


class LosesARow(Fusion):
    def mean(self, x, mask):
        return super().mean(x, mask) / mask[:, :4].any(1, keepdim=True)


class MixesPasses(Fusion):
    def forward(self, tokens):
        out = super().forward(tokens)
        if isinstance(out, list):
            out[0].pooled = out[0].pooled + 1
        return out


@pytest.mark.parametrize(
    "check, cls, words",
    [
        ("shapes", NeedsEverything, "KeyError"),
        ("neighbours", FusedNeighbours, "a row must not depend on the other rows"),
        ("padding", FusesPadding, "tokens that are padding must have no influence"),
        ("missing", LosesARow, "must come out finite"),
        ("many", MixesPasses, "passes made in one call must give what they give alone"),
    ],
)
def test_a_faulty_fusion_encoder_is_caught(check, cls, words):
    with pytest.raises(ContractError) as error:
        check_fusion(cls)
    assert re.search(rf"^  (?:[\w, -]+, )?{check}(?:, [\w, -]+)?: .*{words}", str(error.value), re.M), str(error.value)


def test_good_fusion_encoders_pass():
    check_fusion(Fusion, {"width": 12})
    check_fusion(TinyFusion, widths={"video": 8, "text": 8})


class GivesATensor(nn.Module):
    width, spec = 8, VideoSpec(frames=2, size=16)

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 8)

    def forward(self, video):
        return self.head(video.mean(dim=(3, 4)))


def test_the_cause_comes_before_what_follows_from_it():
    with pytest.raises(ContractError) as error:
        check_encoder(GivesATensor)
    told = str(error.value).splitlines()[1:]
    assert told[0] == "  shapes: forward must give vtp.types.Tokens, got Tensor" and len(told) <= 3
