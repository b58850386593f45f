"""What vtp asks of a component: one class per kind, with every member that is read and the default of those that may be
left out.

A component needs no base class (an objective has one for other reasons, :class:`vtp.model.objective.Objective`): it has
the members that carry no default here, and whichever of the others it wants to say something about. Whoever reads a
member asks :func:`member`, the one place that looks whether it is there; whoever builds a component asks
:func:`unfit`, which finds a member that is lacking or misspelt. ``None`` as a default means "it cannot".

Nothing heavy is imported here: a plugin module may use this file.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from vtp.members import Read, joined_reads, lacking, member, members, misspelt, offers, reads_of, unfit

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from vtp.data.mixture import Mixture
    from vtp.eval.evaluator import Evaluator
    from vtp.eval.figures import Strip
    from vtp.eval.recount import Recount
    from vtp.eval.task import TaskResult
    from vtp.media.info import MediaInfo, VideoInfo
    from vtp.media.request import Wanted
    from vtp.model.context import ForwardContext
    from vtp.model.model import VTPModel
    from vtp.types import (
        AudioSpec,
        Clip,
        Fused,
        LossOutput,
        MediaRef,
        Sample,
        Space,
        StepDone,
        TextSpec,
        Tokens,
        VideoSpec,
    )

__all__ = [
    "CONTRACTS",
    "Component",
    "Dataset",
    "Decoder",
    "Encoder",
    "Fusion",
    "Importer",
    "Objective",
    "Part",
    "Read",
    "Sampler",
    "Table",
    "Task",
    "Transform",
    "contract_of",
    "joined_reads",
    "lacking",
    "member",
    "members",
    "misspelt",
    "offers",
    "reads_of",
    "unfit",
]


class Component(Protocol):
    """What every component may have, whatever its kind."""

    renamed: ClassVar[Mapping[str, str]] = {}
    """Options that are gone, or ``option=value`` for a choice that is gone, and what to write now."""

    nested: ClassVar[Callable[[Mapping[str, Any]], Iterable[tuple[str, str, Any, Sequence[str]]]] | None] = None
    """``nested(options)``, a static method of the class: the nodes of other components among its options, so that they
    are checked with it before anything is built. Of each its place below the own node, its kind in the registry, the
    node with ``name``, and what it will be passed besides."""


class Part(Component, Protocol):
    """What every part of a model may have: encoders, fusion encoders and objectives, all of them ``nn.Module``."""

    variants: Sequence[str] = ()
    """Which variants it knows, ``("released",)`` where ``variant=released`` (``context.variant``) changes what it
    computes."""

    save_assets: Callable[[Path], None] | None = None
    """``save_assets(folder)`` writes the files that a checkpoint keeps beside the tensors, such as a tokenizer;
    ``context.assets_of("encoders/text")`` gives the folder back to the constructor."""

    origin: Callable[[], Mapping[str, Any]] | None = None
    """``origin()`` tells what it was made of besides its options and its tensors, such as the hash of a vocabulary:
    plain JSON, which the report of a run and its checkpoints name. A part that is restored from its assets tells the
    same."""

    after_step: Callable[[StepDone], None] | None = None
    """``after_step(done)`` runs once after every update of the weights, without gradients, on whole weights whatever
    the strategy; what it writes into parameters and buffers is kept. Any module inside may have this too."""

    after_step_on_shards: bool = False
    """Whether ``after_step`` may be given parameters as they are, shards under fsdp2, which spares gathering them."""

    def no_weight_decay(self) -> Iterable[str]:
        """Names of its parameters that weight decay leaves alone, besides biases and norms. Any module inside may have
        this too."""
        return ()


class _Layers(Part, Protocol):
    """What encoders and fusion encoders have in common."""

    width: int
    """D, the width of its tokens."""

    depth: int | None = None
    """Number of its layers; with ``layer_of`` for learning rates that fall towards its input (train.layer_decay)."""

    layer_of: Callable[[str], int] | None = None
    """``layer_of(parameter name)``: 0 is the input, 1 to ``depth`` the layers, ``depth + 1`` the output."""

    gradient_checkpointing_enable: Callable[[], None] | None = None
    """Switches on that activations are computed again in the backward pass."""

    @property
    def pooled_width(self) -> int:
        """Width of what ``pool`` gives, by default ``width``."""
        return self.width

    def pool(self, tokens: Tokens) -> Tensor:
        """Its tokens (B, N, D) -> one vector per row (B, ``pooled_width``), by default the mean over real tokens."""
        return tokens.pooled()


class Encoder(_Layers, Protocol):
    """Of text, video or audio: an ``nn.Module`` from the tensors of a batch to tokens."""

    spec: VideoSpec | AudioSpec | TextSpec
    """The input that it wants; the loader follows it."""

    @abstractmethod
    def forward(self, **inputs: Tensor) -> Tokens:
        """``video``, or ``waveform`` and ``lengths``, or ``token_ids`` and ``attention_mask``, as
        :meth:`vtp.model.context.ForwardContext.inputs` says, and ``mask`` if it can leave tokens out."""
        ...

    embed: Callable[..., Tokens] | None = None
    """``embed(**inputs)``, its embedding layer alone, for fusion encoders that consume that."""

    view_inputs: Sequence[str] = ()
    """Tensors of a masked view that ``forward`` takes besides ``mask``."""

    grid: tuple[int, ...] | None = None
    """Tokens per axis of a whole input, (T', H', W') for video, where its tokens lie on a grid."""

    patches: Callable[..., tuple[Tensor, Tensor]] | None = None
    """Of sound: ``patches(waveform, lengths)`` -> (B, N, P) values behind each token of a whole input, and bool (B, N),
    True = real. What mvm predicts."""

    space: Space | None = None
    """Where what ``pool`` gives lies, if the encoder was trained together with that of another slot: objectives compare
    the vectors of encoders with equal ones as they are, at their own temperature."""

    padded: bool = True
    """Whether some tokens may be padding; False saves the attention mask where a row has no other modality."""


class Fusion(_Layers, Protocol):
    """An ``nn.Module`` that joins the tokens of several modalities."""

    @abstractmethod
    def forward(self, tokens: Mapping[str, Tokens]) -> Fused:
        """Tokens per modality, any subset of those that the model has -> Fused."""
        ...

    unimodal: bool = False
    """Whether the features of a single modality pass through it as well."""

    takes_many: bool = False
    """Whether ``forward`` also takes a list of such mappings and gives the list of results. Not if it draws random
    numbers while training: GradCache repeats some of the passes alone, and they must draw the same."""

    consumes: Mapping[str, Literal["encoded", "embedded"]] = {}
    """Modality -> ``embedded`` where it reads the embedding layer of that encoder (``Encoder.embed``) instead of its
    output."""


class Objective(Part, Protocol):
    """A training loss: a subclass of :class:`vtp.model.objective.Objective`, which has all of these but the last
    three."""

    needs: frozenset[Any] = frozenset()
    """Modalities without which a row takes no part."""

    slots: frozenset[Any] | None = None
    """Modalities that the model must have an encoder for; None: those of ``needs``. More, where a row may lack one that
    the objective uses where it is there; fewer, where it makes do without."""

    embeds: Mapping[str, tuple[str, ...]] = {}
    """What ``embed(ctx, modality)`` reads, ``{"video": ("video", "audio")}``: retrieval and multiple choice show the
    model these and withhold the rest. Empty: the modalities of ``needs``."""

    needs_fusion: bool = False
    """Whether the model must have a fusion encoder."""

    reads: frozenset[str] | Mapping[str, Any] = frozenset()
    """What ``batch.extra`` must hold besides ``video_id`` and ``text``: keys of ``Sample.extra``, or ``texts`` for all
    texts of a sample. A list of B Python objects each, None where a sample lacks it. A dict says how: None is such a
    list, a :class:`vtp.types.Field` or a function from the B values gives tensors in ``batch.fields``."""

    contrastive: bool = False
    """Whether rows are compared with each other: it has ``features`` and ``loss_from_features``, as
    :class:`vtp.model.objective.ContrastiveObjective`."""

    @abstractmethod
    def rows(self, ctx: ForwardContext) -> Tensor:
        """bool (B,), rows that have every modality of ``needs``."""
        ...

    @abstractmethod
    def count(self, ctx: ForwardContext) -> Tensor:
        """How many items will take part, without running an encoder; equals the ``weight`` of what it gives."""
        ...

    @abstractmethod
    def plan(self, ctx: ForwardContext) -> None:
        """Announces the fusion passes that ``forward`` will ask for."""
        ...

    @abstractmethod
    def forward(self, ctx: ForwardContext) -> LossOutput:
        """The mean over the items of one micro-batch that take part."""
        ...

    features: Callable[[ForwardContext], dict[str, Tensor]] | None = None
    """Of a contrastive one: tensors with a row per row of the batch."""

    loss_from_features: Callable[[dict[str, Tensor]], LossOutput] | None = None
    """Of a contrastive one: the loss over the features of all micro-batches and processes."""

    embed: Callable[..., Tensor] | None = None
    """``embed(ctx, modality)`` -> (B, E) of unit length, for retrieval by embeddings; (B, n, E) of a modality with n
    vectors per row, which are compared by log-sum-exp over them."""

    similarity: Callable[[ForwardContext, str, str], Tensor] | None = None
    """``similarity(ctx, rows, columns)`` -> (B, B) between two modalities, for drawing hard negatives."""

    match_logits: Callable[..., Tensor] | None = None
    """``match_logits(ctx, rows)`` -> (R, 2), no match and match, or one score each, (R, 1) or (R,): for re-ranking, and
    for retrieval over all pairs."""

    logits: Callable[[ForwardContext], Tensor] | None = None
    """``logits(ctx)`` -> (B, A), a number per answer, for question answering."""


class Dataset(Component, Protocol):
    """A data set: which samples there are and where their media lie. No tensors, no decoding, and nothing filtered: the
    loader finds that a file is missing, and accounts for it."""

    @abstractmethod
    def samples(self, kind: str, split: str) -> Sequence[Sample]:
        """The table of a kind and split, empty where there is no such split; see :class:`Table` for what it may do in
        bulk. DataError if its files are missing."""
        ...

    @property
    def name(self) -> str:
        """For messages, reports and protocols; by default the name that it is registered under."""
        return type(self).__name__.lower()

    kinds: Sequence[str] = ("caption", "retrieval", "qa")
    """Which tables it has: ``caption``, ``retrieval``, ``qa``, ``mc``, or any kind that a task reads."""

    def splits(self, kind: str) -> Sequence[str]:
        """Splits that exist by definition, by default train, val and test."""
        return ("train", "val", "test")

    def origin(self) -> dict[str, Any]:
        """What was read, for the record of a run: ``files`` as a list of ``{"path", "bytes", ...}`` and whatever else
        tells one copy of the data from another; by default the name alone."""
        return {"name": member(self, Dataset, "name")}

    @property
    def media_namespace(self) -> str:
        """Clips of data sets with one namespace are the same clips where their names are the same, which is how leaks
        are found; by default the name. Empty where the names begin with ``namespace:`` already."""
        name: str = member(self, Dataset, "name")
        return name

    by_file: bool = False
    """Whether its clips are told apart by their files, as in data of one's own, and not by names that everybody uses.
    Two clips that are one file, byte for byte, are then one clip wherever leaks are looked for; of published lists,
    whose names are official, that is a warning."""


class Table(Component, Protocol):
    """What ``samples`` gives: any sequence of :class:`vtp.types.Sample` (a list will do). Tables of millions of rows
    answer some questions in bulk, without making a sample for each."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, row: int) -> Sample: ...

    def select(self, rows: npt.NDArray[np.int64] | Sequence[int]) -> Sequence[Sample]:
        """Some of its rows, in that order; by default a list."""
        return [self[int(row)] for row in rows]

    def all_texts(self) -> Iterator[str]:
        """The texts of all rows."""
        return (text for row in range(len(self)) for text in self[row].texts)

    video_ids: Callable[[], Iterable[str]] | None = None
    """The clip that each row is about, as :func:`vtp.data.table.media_id` names it, in bulk."""

    media_numbers: Callable[[], npt.NDArray[np.int64]] | None = None
    """int64 (N,), equal for rows about the same media: the first such row."""

    epoch_order: Callable[[np.random.Generator], npt.NDArray[np.integer[Any]]] | None = None
    """A random order of its rows in which those that lie near each other on the disk are read together."""

    mixture: Mixture | None = None
    """Of a table that joins others: whose rows come how often in an epoch. Losses of files, shares of bad samples and
    what a checkpoint remembers are then told for each of them."""


class Task(Component, Protocol):
    """What is trained for and how it is measured. Its constructor takes ``dataset`` (a built data set), the keys under
    ``task:``, and ``seed`` and ``val_share`` if it asks for them."""

    name: str
    """Of the benchmark, for messages and the report."""

    kind: str
    """Which table of the data set it reads: ``retrieval``, ``qa``, ``mc`` or another form that a plugin offers."""

    split: str = "test"
    """The split that is reported."""

    monitor: tuple[str, Literal["max", "min"]]
    """The metric to select and stop by, and its direction."""

    metrics: Sequence[str] = ()
    """Names that ``evaluate(..., detail=False)`` gives; ``train.monitor`` is held against them before step 1."""

    watched: str | None = None
    """A split that is also scored during training when no checkpoint is chosen by a score."""

    selection: str = "last"
    """How the checkpoint is chosen, one of :data:`vtp.eval.task.SELECTION_RULES`; recorded in the report."""

    answers: Sequence[str] = ()
    """The answer list of a classifier, most frequent training answer first."""

    def use_answers(self, answers: Sequence[str]) -> None:
        """Take the answer list of a checkpoint instead of counting the training answers."""

    @abstractmethod
    def train_samples(self) -> Sequence[Sample]:
        """What is trained on, less what cannot be learnt (answers outside the list), which is counted and reported."""
        ...

    @abstractmethod
    def samples(self, split: str) -> Sequence[Sample]:
        """What is evaluated on in a split, ``val`` or ``test``; empty where there is no such split."""
        ...

    def texts(self) -> Iterable[str]:
        """All training texts, for a tokenizer built from scratch."""
        texts: Iterable[str] = member(self.train_samples(), Table, "all_texts")()
        return texts

    def labels(self, sample: Sample) -> Mapping[str, int | float | Sequence[int] | Sequence[float]]:
        """What the loader puts into ``batch.labels`` for a sample: by name a number, or a list that is as long in every
        sample (which of the tags apply). They become int64 or float32 of B rows; -100 = none, NaN among floats."""
        return {}

    def check(self, model: VTPModel) -> None:
        """ConfigError where the model cannot be scored by this task: an objective that is not there, a head for another
        answer list. Called once the model is built and before the first step, wherever the run will score."""

    def check_split(self, split: str) -> None:
        """DataError where items of a split cannot be scored, such as questions without an answer. Called before the
        first step for every split that the run will score; that there are items at all is looked at besides."""

    reads: frozenset[str] | Mapping[str, Any] = frozenset()
    """What ``batch.extra`` must hold besides, in training and evaluation: see :attr:`Objective.reads`."""

    def known_list(self) -> str | None:
        """Name of the published training list (``train.9k``) that the training clips are exactly, or None."""
        return None

    def further_tests(self) -> Iterable[tuple[Sequence[Sample], Any]]:
        """Further tables that are scored and must not hold training clips, each with its data set."""
        return ()

    @abstractmethod
    def evaluate(self, evaluator: Evaluator, split: str = "test", *, detail: bool = True) -> TaskResult:
        """Score the split. ``detail=False`` is for evaluation during training: the headline metrics without baselines,
        ablations and intervals."""
        ...

    @abstractmethod
    def predict(self, evaluator: Evaluator, split: str = "test") -> TaskResult:
        """Predictions without labels; ``metrics`` is empty."""
        ...

    recount: Callable[[Sequence[Mapping[str, Any]], Mapping[str, Any]], Recount] | None = None
    """``recount(lines, facts)``, a static method: metrics, intervals and bounds once more from the lines of
    predictions.jsonl and the report's ``facts``, without data set and model. ``vtp verify`` and ``vtp compare`` need
    it."""

    def examples(self, evaluator: Evaluator, result: TaskResult, count: int = 4) -> Sequence[Strip]:
        """Frames of a few test items with what was asked and answered, for the figure."""
        return ()


class Importer(Component, Protocol):
    """A function that reads a foreign checkpoint; parameters after the first are options of ``vtp import``."""

    @abstractmethod
    def __call__(self, path: Path, /, **options: Any) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Any]]:
        """File -> specification of the model, its tensors by name, and a report: ``used`` names, ``dropped`` and
        ``missing`` with reasons, ``notes``, ``kind``."""
        ...


class Decoder(Protocol):
    """What ``media.backend`` chooses: a class without constructor arguments. Whatever is wrong with a file, its methods
    raise :class:`vtp.media.MediaError` and nothing else."""

    name: str
    """As it is registered; failures are listed under it."""

    @abstractmethod
    def probe(self, ref: MediaRef) -> MediaInfo:
        """What is in the file, without decoding more than a frame."""
        ...

    @abstractmethod
    def read(self, ref: MediaRef, wanted: Wanted) -> Clip:
        """As :func:`vtp.media.read_clip`. ``wanted.times`` may be called more than once, if the first list of frames
        turns out to be wrong."""
        ...


class Sampler(Protocol):
    """What ``data.sampler`` chooses: a function that runs in loader workers and can be pickled, as any function of a
    module can."""

    @abstractmethod
    def __call__(
        self, info: VideoInfo, *, frames: int, stride: int | None, generator: np.random.Generator | None
    ) -> npt.NDArray[Any]:
        """Choose ``frames`` frames of the stream that ``info`` describes, (frames,): floats are seconds and mean the
        frame on screen then, integers are positions in the span. A function of its arguments alone; ``stride`` is that
        of the encoder's input, and without ``generator``, as in evaluation, nothing is random. With data.train_clips
        one that has a parameter ``clips`` gives that many windows, (clips * frames,), one after the other; any other is
        asked for clips * frames frames, which are cut into windows in their order."""
        ...


class Transform(Component, Protocol):
    """What ``data.transforms`` chooses for frames, sound or texts: a class whose instances change one row. It runs in
    loader workers and can be pickled. Its constructor gets the ``spec`` of the encoder if it asks for it."""

    evaluation: bool = False
    """Whether it is applied in evaluation too; without, it is for training alone, and off with data.augment=false."""

    before_crop: bool = False
    """Of frames: whether it gets them as they were decoded, and may change their size, or as the encoder takes them."""

    @abstractmethod
    def __call__(self, value: Any, /, *, generator: np.random.Generator | None) -> Any:
        """Frames uint8 (T, H, W, 3) -> the same; sound float32 (S,) in [-1, 1] at the encoder's rate -> (S',); a text
        -> a text. ``value`` may be changed in place. Random choices are drawn from ``generator`` alone, which depends
        on seed, epoch, row and the transform's name; in evaluation it is None."""
        ...


CONTRACTS: dict[str, type] = {
    "encoder": Encoder,
    "encoder/fusion": Fusion,
    "objective": Objective,
    "dataset": Dataset,
    "task": Task,
    "importer": Importer,
    "decoder": Decoder,
    "sampler": Sampler,
    "transform": Transform,
}


def contract_of(kind: str) -> type:
    """The contract of a kind of the registry, ``encoder/video`` or ``task``; :class:`Component` where there is none."""
    return CONTRACTS.get(kind) or CONTRACTS.get(kind.partition("/")[0], Component)
