"""Transforms of plugins: when they run, what they are given, what their randomness depends on, and who is told what."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from number_files import SPECS, fingerprint, pipeline, table, take

from vtp import plugins
from vtp.components import Choice
from vtp.data import TrainLoader
from vtp.data.keys import keyed_generator
from vtp.data.transforms import chosen_transforms, own_transforms
from vtp.errors import PluginError
from vtp.media.multi_view import InWindows, Windows
from vtp.media.sampling import dense
from vtp.media.transforms import TrainTransform
from vtp.registry import Entry, Registry

DOCS = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text(encoding="utf-8")


class Add:
    """Adds a random number to every pixel or sample."""

    def __init__(self, *, most: int = 50) -> None:
        self.most = most

    def __call__(self, value: Any, *, generator: Any) -> Any:
        value += np.asarray(generator.integers(self.most)).astype(value.dtype)
        return value


class Number:
    """Puts a random number behind a text."""

    def __call__(self, text: str, *, generator: Any) -> str:
        return f"{text} {generator.integers(100)}"


class Mirror:
    evaluation = True

    def __call__(self, frames: Any, *, generator: Any) -> Any:
        return frames[:, :, ::-1]


class Halve:
    """Leaves the upper half of the decoded picture."""

    before_crop = True

    def __init__(self, *, spec: Any) -> None:
        self.spec = spec

    def __call__(self, frames: Any, *, generator: Any) -> Any:
        return frames[:, : frames.shape[1] // 2]


class Wrong:
    def __init__(self, *, given: str = "none") -> None:
        self.given = given

    def __call__(self, value: Any, *, generator: Any) -> Any:
        return {
            "none": lambda: None,
            "float": lambda: value.astype(float),
            "small": lambda: value[..., :2, :],
            "short": lambda: value[:2],
            "empty": lambda: value[:0],
            "raises": lambda: 1 / 0,
        }[self.given]()


def own(train: bool = True, **chosen: Any) -> Any:
    """Modality -> classes, or (class, options)."""
    pairs = {m: [one if isinstance(one, tuple) else (one, {}) for one in classes] for m, classes in chosen.items()}
    choices: Any = {
        m: [
            Choice(f"data.transforms.{m}", f"transform/{m}", cls.__name__.lower(), cls, given) for cls, given in classes
        ]
        for m, classes in pairs.items()
    }
    return own_transforms(choices, SPECS, train=train)


def loader(workers: int = 0, transforms: Any = None, **options: Any) -> TrainLoader:
    transforms = own(video=[Add], audio=[Add], text=[Number]) if transforms is None else transforms
    return TrainLoader(table(12), pipeline(transforms=transforms), global_batch=4, workers=workers, **options)


def test_the_value_is_that_of_the_key() -> None:
    """Everything is drawn from (seed, transform, epoch, row): the numbers can be said beforehand."""
    plain = take(TrainLoader(table(12), pipeline(), global_batch=4), 4)
    changed = take(loader(), 4)
    for before, after in zip(plain, changed, strict=True):
        for row, name in enumerate(after.ids):
            epoch, index = after.step * 4 // 12, int(name[1:])
            drawn = {
                m: int(keyed_generator(0, f"transform/{m}/add/1", epoch, index).integers(50))
                for m in ("video", "audio")
            }
            number = int(keyed_generator(0, "transform/text/number/1", epoch, index).integers(100))
            frames = [batch.inputs["video"]["frames"][row].numpy() for batch in (before, after)]
            np.testing.assert_array_equal(frames[1], frames[0] + np.uint8(drawn["video"]))
            sound = [batch.inputs["audio"]["waveform"][row, :50].numpy() for batch in (before, after)]
            np.testing.assert_allclose(sound[1], sound[0] + drawn["audio"])
            assert after.extra["text"][row] == f"{before.extra['text'][row]} {number}"
            assert after.inputs["text"]["token_ids"][row].tolist()[3:] == [number + 10, 2]


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_and_processes_and_a_resume_change_nothing(workers: int) -> None:
    whole = [fingerprint(batch) for batch in take(loader(), 6)]
    assert [fingerprint(batch) for batch in take(loader(workers), 6)] == whole
    first = loader(workers)
    take(first, 2)
    again = loader(workers)
    again.load_state_dict(first.state_dict())
    assert [fingerprint(batch) for batch in take(again, 4)] == whole[2:]
    ranks = [take(loader(rank=rank, world_size=2), 3) for rank in range(2)]
    for step, batch in enumerate(take(loader(), 3)):
        halves = [parts[step].inputs["video"]["frames"].tolist() for parts in ranks]
        assert halves[0] + halves[1] == batch.inputs["video"]["frames"].tolist()


def test_another_transform_does_not_move_the_draws_of_the_first() -> None:
    alone, both = (
        take(loader(transforms=own(video=classes)), 1)[0].inputs["video"]["frames"].int()
        for classes in ([Add], [Mirror, Add])
    )
    assert both.flip(3).tolist() == alone.tolist()
    twice = own(video=[Add, (Add, {"most": 50})])["video"].steps
    assert [step.key for step in twice] == ["transform/video/add/1", "transform/video/add/2"]


def test_evaluation_has_only_those_that_say_so() -> None:
    chosen = own(train=False, video=[Add, Mirror], audio=[Add], text=[Number])
    assert sorted(chosen) == ["video"] and [step.name for step in chosen["video"].steps] == ["mirror"]
    sample = table(1)[0]
    plain = pipeline(train=False)(sample, 0, 0)
    mirrored = pipeline(train=False, transforms=chosen)(sample, 0, 0)
    assert plain.frames is not None and mirrored.frames is not None
    np.testing.assert_array_equal(mirrored.frames, plain.frames[:, :, ::-1])


def test_what_is_remembered_is_not_written_into() -> None:
    """In evaluation consecutive questions share the decoded clip: a transform that writes in place changes its own."""

    class Plus(Add):
        evaluation = True

        def __call__(self, value: Any, *, generator: Any) -> Any:
            value += np.uint8(1)
            return value

    eval_pipeline = pipeline(train=False, transforms=own(train=False, video=[Plus]))
    seen = [eval_pipeline(sample, 0, row).frames for row, sample in enumerate(table(3, per_file=3))]
    assert all(frames is not None and np.array_equal(frames, seen[0]) for frames in seen)
    plain = pipeline(train=False)(table(1)[0], 0, 0).frames
    assert plain is not None and seen[0] is not None
    np.testing.assert_array_equal(seen[0], plain + np.uint8(1))


def test_before_the_crop_the_picture_may_change_its_size() -> None:
    """The reader's picture has its row number added to each row, so what is cropped from the upper half is small."""
    made = pipeline(transforms=own(video=[Halve]))(table(1)[0], 0, 0).frames
    assert made is not None and made.shape == (3, 8, 8, 3)
    shown = own(video=[Halve])["video"].steps[0].apply
    assert shown.spec is SPECS["video"]  # a constructor that asks for it has the spec of its encoder
    spread = made.astype(int).max((1, 2, 3)) - made.astype(int).min((1, 2, 3))
    whole = pipeline()(table(1)[0], 0, 0).frames
    assert whole is not None and (spread <= 4).all() and (np.ptp(whole.astype(int), axis=(1, 2, 3)) > 4).any()


def test_before_the_crop_windows_come_one_by_one() -> None:
    shapes = []

    class Seen(Halve):
        def __call__(self, frames: Any, *, generator: Any) -> Any:
            shapes.append(frames.shape)
            return super().__call__(frames, generator=generator)

    windows = pipeline(
        transforms=own(video=[Seen]),
        sampler=Windows(2, dense),
        transform=InWindows(TrainTransform(8), 2),
        clips=2,
        views=2,
    )
    made = windows(table(1)[0], 0, 0).frames
    assert shapes == [(3, 9, 9, 3)] * 2 and made is not None and made.shape == (2, 3, 8, 8, 3)


def test_several_views_come_one_by_one_with_the_same_draws() -> None:
    shapes = []

    class Seen(Add):
        def __call__(self, value: Any, *, generator: Any) -> Any:
            shapes.append(value.shape)
            return super().__call__(value, generator=generator)

    clips = np.zeros((2, 3, 8, 8, 3), np.uint8)
    found = own(video=[Seen])["video"].frames(clips, lambda name: np.random.default_rng(5), before_crop=False)
    assert shapes == [(3, 8, 8, 3)] * 2 and not clips.any()
    np.testing.assert_array_equal(found, np.full_like(clips, np.random.default_rng(5).integers(50)))


@pytest.mark.parametrize(
    ("modality", "given", "words"),
    [
        ("video", "none", r"returned NoneType, expected uint8 \(3, height, width, 3\)\.$"),
        ("video", "float", r"returned float64 \(3, 8, 8, 3\), expected uint8 \(3, height"),
        ("video", "short", r"returned uint8 \(2, 8, 8, 3\), expected uint8 \(3, height"),
        ("video", "small", r"returned uint8 \(3, 8, 2, 3\), expected uint8 \(3, 8, 8, 3\), the size that the encoder"),
        ("audio", "float", r"returned float64 \(50,\), expected float32 \(samples,\)\.$"),
        ("audio", "empty", r"returned float32 \(0,\), expected float32 \(samples,\)\.$"),
        ("text", "none", r"returned NoneType, expected a string\.$"),
    ],
)
def test_what_is_no_value_is_refused_with_its_name(modality: str, given: str, words: str) -> None:
    chosen: dict[str, Any] = {modality: [(Wrong, {"given": given})]}
    wrong = pipeline(transforms=own(True, **chosen))
    with pytest.raises(PluginError, match=f"^transform.{modality}=wrong {words}"):
        wrong(table(1)[0], 0, 0)


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry()
    for name in ("Add", "Mirror", "Halve", "Wrong"):
        registry.add(Entry("transform/video", name.lower(), f"{__name__}:{name}", "mine", "my-dist"))
    host = plugins.Host([])
    host.registry = registry
    monkeypatch.setattr(plugins, "host", lambda: host)


@pytest.mark.usefixtures("offered")
def test_names_and_options_are_written_in_three_ways() -> None:
    for written in (["mirror", {"name": "add", "most": 3}], {"mirror": None, "add": {"most": 3}}):
        problems: list[str] = []
        chosen = chosen_transforms({"video": written, "audio": [], "text": None}, problems)
        assert not problems and list(chosen) == ["video"]
        assert [(one.name, dict(one.options)) for one in chosen["video"]] == [("mirror", {}), ("add", {"most": 3})]
    assert [one.name for one in chosen_transforms({"video": "add"}, [])["video"]] == ["add"]
    assert [one.name for one in chosen_transforms({"video": {"name": "add", "most": 2}}, [])["video"]] == ["add"]


@pytest.mark.usefixtures("offered")
@pytest.mark.parametrize(
    ("written", "words"),
    [
        (["miror"], r"^data.transforms.video: no plugin offers transform/video 'miror'. Did you mean 'mirror'\?"),
        ({"add": {"moost": 3}}, r"^data.transforms.video: add has no option 'moost'. Did you mean 'most'"),
        ({"add": {"most": "x"}}, r"^data.transforms.video.most: expected int, got 'x'$"),
        ({"add": 3}, r"^data.transforms.video.add: expected a mapping of options, got 3$"),
        ([3], r"^data.transforms.video: expected names, or options with a name.* got 3$"),
        ([{"most": 3}], r"^data.transforms.video: expected names, or options with a name"),
        ([["add"]], r"^data.transforms.video: expected names, or options with a name"),
    ],
)
def test_a_wrong_choice_is_one_line(written: Any, words: str) -> None:
    problems: list[str] = []
    chosen_transforms({"video": written}, problems)
    (line,) = problems
    assert re.search(words, line)


def test_the_example_of_the_docs_hides_at_most_its_share() -> None:
    made: dict[str, Any] = {}
    exec(next(block for block in re.findall(r"```python\n(.*?)```", DOCS, re.S) if "HideStretches" in block), made)
    hide = made["HideStretches"](stretches=1, share=0.5)
    hidden = []
    for seed in range(200):
        silent = hide(np.ones(100, np.float32), generator=np.random.default_rng(seed)) == 0
        assert np.diff(np.r_[0, silent, 0]).astype(bool).sum() <= 2  # one stretch
        hidden.append(int(silent.sum()))
    assert max(hidden) < 50 and 20 < np.mean(hidden) < 30  # uniform in [0, 50)
