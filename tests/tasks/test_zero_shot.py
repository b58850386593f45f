from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vtp.errors import ConfigError, RunError
from vtp.types import MediaRef, Sample
from vtp_tasks.classification import Classification
from vtp_tasks.zero_shot import class_words

CLASSES = ("PlayingGuitar", "apply_eye_makeup", "golf")
PROMPTS = ["a video of {}.", "{} is shown"]


def item(number, label):
    media = MediaRef(f"clip{number}.mp4")
    return Sample(f"i{number}", media, media, ("",), {"answer": label}, {"video_id": f"clip{number}"})


ITEMS = [item(i, CLASSES[i % 3]) for i in range(6)]


def comparing(clips, texts, seen=None):
    """An objective that embeds by tables: clips by number, texts by what they say."""

    def embed(ctx, modality):
        samples = ctx.batch.extra["sample"]
        keys = [s.texts[0] if modality == "text" else int(s.id[1:]) for s in samples]
        if seen is not None:
            seen.extend(keys)
        return torch.tensor(np.array([(texts if modality == "text" else clips)[key] for key in keys], np.float32))

    return SimpleNamespace(embed=embed, needs=frozenset({"video", "text"}))


@pytest.fixture
def task(fake_dataset):
    return Classification(dataset=fake_dataset(train=ITEMS, test=ITEMS), objective="vtc", prompts=PROMPTS)


def unit(rng, *shape):
    x = rng.standard_normal(shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_a_clip_is_compared_with_the_mean_of_the_prompts_of_each_class(task, fake_model, make_evaluator):
    rng, seen = np.random.default_rng(0), []
    words = [class_words(name) for name in task.answers]
    texts = {prompt.replace("{}", word): unit(rng, 8) for word in words for prompt in PROMPTS}
    clips = unit(rng, 6, 8)
    result = task.evaluate(make_evaluator(fake_model(vtc=comparing(clips, texts, seen)), task))
    means = np.array([np.mean([texts[p.replace("{}", word)] for p in PROMPTS], 0) for word in words])
    best = (clips @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T).argmax(1)
    right = [task.answers[best[i]] == CLASSES[i % 3] for i in range(6)]
    assert 0 < sum(right) < 6 and result.metrics["top1"] == pytest.approx(100 * np.mean(right))
    assert [line["prediction"] for line in result.predictions] == [task.answers[j] for j in best]
    assert seen.count("a video of playing guitar.") == 1 and len(seen) == 6 + 6
    assert result.facts["prompts"] == PROMPTS and "without looking" not in result.rows
    counted = task.recount(result.predictions, result.facts)
    assert counted.metrics == {name: result.metrics[name] for name in counted.metrics}


def test_a_clip_that_is_not_there_is_a_miss(task, fake_model, make_evaluator):
    eye = np.eye(3)
    texts = {p.replace("{}", class_words(n)): eye[i] for i, n in enumerate(task.answers) for p in PROMPTS}
    clips = [eye[task.answers.index(CLASSES[i % 3])] for i in range(6)]
    evaluator = make_evaluator(fake_model(vtc=comparing(clips, texts)), task, broken=("clip2.mp4",))
    result = task.evaluate(evaluator)
    assert result.metrics["top1"] == pytest.approx(500 / 6) and dict(result.ledger.missing) == {
        "i2": "moov atom not found"
    }
    texts["a video of golf."] = np.full(3, np.nan)
    with pytest.raises(RunError, match=r"the embedding of a class is not a finite number \(first: 'golf'\)"):
        task.evaluate(evaluator)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ApplyEyeMakeup", "apply eye makeup"), ("apply_eye_makeup", "apply eye makeup"), ("YoYo", "yo yo"),
        ("golf", "golf"), ("dog barking", "dog barking"), ("TVShow", "tv show"), ("Food/Drink", "food drink"),
    ],
)  # fmt: skip
def test_names_of_classes_become_words(name, words):
    assert class_words(name) == words


@pytest.mark.parametrize("prompts", [[], ["a video"], ["{} and {}"]])
def test_a_prompt_has_one_place_for_the_class(prompts, fake_dataset):
    with pytest.raises(ConfigError, match=r"task.prompts: .*one \{\} where the class goes"):
        Classification(dataset=fake_dataset(test=ITEMS), prompts=prompts)


def test_nothing_is_trained_and_the_model_must_embed(task, fake_model, make_evaluator):
    with pytest.raises(ConfigError, match="classifies without training. Use mode=eval checkpoint=RUN"):
        task.train_samples()
    with pytest.raises(ConfigError, match=r"no 'vtc' that does.*objective=\[vtc\]"):
        task.check(fake_model(classification=SimpleNamespace(logits=None)))
    sounds = SimpleNamespace(embed=len, needs=frozenset({"audio", "text"}))
    with pytest.raises(ConfigError, match="compares audio with text"):
        task.check(fake_model(vtc=sounds))
    task.use_answers(["of", "another", "task"])
    assert set(task.answers) == set(CLASSES)
