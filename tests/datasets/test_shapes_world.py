"""Questions tell nothing about their answers, and the sound nothing about the picture: counted over whole splits."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import Counter, defaultdict
from itertools import product

import numpy as np
import pytest

from vtp_datasets.shapes.annotations import SIZES, Blueprint, annotation_files
from vtp_datasets.shapes.world import CATEGORIES, KINDS, SILENT_EVERY, Scene, captions, questions, scenes

PICTURE = ("colors", "shape", "move", "count", "place", "light")
SOUND = ("sound", "rhythm", "silence")


@pytest.fixture(scope="module")
def asked():
    """Size -> split -> questions."""

    def of(size):
        files = annotation_files(Blueprint(size, 0))
        return {split: json.loads(files[f"{split}_qa.json"]) for split in SIZES[size]}

    return {"small": of("small"), "medium": of("medium")}


def kind_of(question):
    return next(i for i, kind in enumerate(KINDS) if question in kind.texts)


def right_by_question_alone(train, test, key):
    """For each test question, whether the most frequent training answer of its ``key`` is right."""
    counts = defaultdict(Counter)
    for item in train:
        counts[key(item)][item["answer"]] += 1
    return np.array([counts[key(item)].most_common(1)[0][0] == item["answer"] for item in test])


@pytest.mark.parametrize("size", ["small", "medium"])
@pytest.mark.parametrize("key", ["question", "category_id", "kind"])
def test_no_answer_can_be_guessed_from_the_question(asked, size, key):
    train, test = asked[size]["train"], asked[size]["test"]
    right = right_by_question_alone(train, test, lambda x: kind_of(x["question"]) if key == "kind" else x[key])
    assert right.mean() < 0.40
    kinds = np.array([kind_of(item["question"]) for item in test])
    for i, kind in enumerate(KINDS):
        n, chance = (kinds == i).sum(), 1 / len(kind.answers)
        tolerance = 4 * math.sqrt(chance * (1 - chance) / n)  # four standard errors of a guess
        assert right[kinds == i].mean() <= chance + tolerance, kind.texts


def test_each_kind_of_question_has_all_its_answers_equally_often(asked):
    for split, items in asked["small"].items():
        for i, kind in enumerate(KINDS):
            counts = Counter(item["answer"] for item in items if kind_of(item["question"]) == i)
            assert set(counts) == set(kind.answers), (split, kind.texts)
            # Exactly balanced over all clips; the one in sixteen without sound takes a few answers away.
            slack = 2 if kind.category != "sound" else 2 + SIZES["small"][split] / SILENT_EVERY
            assert max(counts.values()) - min(counts.values()) <= slack, (split, kind.texts)


def information(a, b):
    """Mutual information of two columns in bits."""
    n = len(a)
    joint, left, right = Counter(zip(a, b, strict=True)), Counter(a), Counter(b)
    return sum(c / n * math.log2(c * n / (left[x] * right[y])) for (x, y), c in joint.items())


def test_sound_and_picture_know_nothing_of_each_other():
    heard = [s for s in Blueprint("medium", 0).scenes("train") if s.sound is not None]
    for sound, picture in product(SOUND, PICTURE):
        a, b = [getattr(s, sound) for s in heard], [getattr(s, picture) for s in heard]
        # Of independent columns this is chi-square / (2 n ln 2): bound it far in the tail.
        freedom = (len(set(a)) - 1) * (len(set(b)) - 1)
        bound = (freedom + 4 * math.sqrt(2 * freedom) + 8) / (2 * len(heard) * math.log(2))
        assert information(a, b) < bound < 0.01, (sound, picture)


def test_a_predictor_that_knows_the_whole_picture_is_at_chance_on_sound():
    plan = Blueprint("medium", 0)
    train, test = ([s for s in plan.scenes(split) if s.sound is not None] for split in ("train", "test"))
    for sound in SOUND:
        values = {getattr(s, sound) for s in train}
        for seen in [(p,) for p in PICTURE] + list(product(PICTURE, PICTURE)) + [PICTURE]:
            counts = defaultdict(Counter)
            for s in train:
                counts[tuple(getattr(s, p) for p in seen)][getattr(s, sound)] += 1
            fallback = Counter(getattr(s, sound) for s in train)
            right = [
                (counts.get(tuple(getattr(s, p) for p in seen)) or fallback).most_common(1)[0][0] == getattr(s, sound)
                for s in test
            ]
            chance = 1 / len(values)
            tolerance = 4.5 * math.sqrt(chance * (1 - chance) / len(test))  # 129 predictors are tried
            assert np.mean(right) <= chance + tolerance, (sound, seen)


def test_factors_of_the_picture_are_independent_too():
    drawn = Blueprint("medium", 0).scenes("train")
    for a, b in product(PICTURE, PICTURE):
        if a < b:
            freedom = (len({getattr(s, a) for s in drawn}) - 1) * (len({getattr(s, b) for s in drawn}) - 1)
            bound = (freedom + 4 * math.sqrt(2 * freedom) + 8) / (2 * len(drawn) * math.log(2))
            assert information([getattr(s, a) for s in drawn], [getattr(s, b) for s in drawn]) < bound


def test_one_clip_in_sixteen_is_mute_and_is_not_asked_about_sound():
    drawn = scenes(160, np.random.default_rng(0))
    mute = [s for s in drawn if s.sound is None]
    assert len(mute) == 160 // SILENT_EVERY
    for scene in drawn:
        categories = [CATEGORIES[q.category] for q in questions(scene, np.random.default_rng(0))]
        assert ("sound" in categories) == (scene.sound is not None)
        assert len(categories) == (len(KINDS) if scene.sound else len(KINDS) - 3)
        assert (scene.sound is None) == (scene.rhythm is None) == (scene.silence is None)


def test_questions_begin_with_the_words_of_msrvtt_qa_and_have_one_word_answers():
    assert {text.split()[0] for kind in KINDS for text in kind.texts} == {"what", "who", "how", "where", "when"}
    assert all(len(answer.split()) == 1 for kind in KINDS for answer in kind.answers)
    assert {kind.category for kind in KINDS} == set(CATEGORIES)


def test_captions_tell_what_is_in_the_scene_and_the_first_tells_clips_apart():
    scene = Scene(("red", "blue"), "star", "up", "two", "sea", "end", "siren", "slow", "middle")
    first, *others = captions(scene)
    for word in ("red", "blue", "star", "up", "two", "sea", "end", "siren", "slow", "middle"):
        assert word in first.replace(",", "").split()
    assert len(others) == 4 and all(set(text.split()) <= set(" ".join(captions(scene)).split()) for text in others)
    drawn = Blueprint("small", 0).scenes("test")
    assert len({captions(s)[0] for s in drawn}) == len(drawn)


def test_one_dot_and_no_sound_are_said_properly():
    scene = Scene(("red", "blue"), "star", "up", "one", "sea", "end", None, None, None)
    assert "one white dot," in captions(scene)[0] and "no sound" in captions(scene)[0]


def test_equal_plans_are_equal_in_another_process_and_seeds_differ():
    program = (
        "from vtp_datasets.shapes.annotations import *; import hashlib, json;"
        "print(hashlib.sha256(json.dumps(annotation_files(Blueprint('tiny', 3))).encode()).hexdigest())"
    )
    hashes = [
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": salt}, capture_output=True, text=True, check=True
        ).stdout
        for salt in ("1", "2")
    ]
    assert hashes[0] == hashes[1] != ""
    assert annotation_files(Blueprint("tiny", 3)) != annotation_files(Blueprint("tiny", 4))


def test_clips_and_questions_are_numbered_through():
    files = annotation_files(Blueprint("tiny", 0))
    ids = [item["id"] for split in SIZES["tiny"] for item in json.loads(files[f"{split}_qa.json"])]
    assert ids == list(range(len(ids)))
    data = json.loads(files["MSRVTT_data.json"])
    assert [v["video_id"] for v in data["videos"]] == [f"video{i}" for i in range(24)]
    assert Counter(v["split"] for v in data["videos"]) == {"train": 16, "validate": 4, "test": 4}
    assert files["MSRVTT_test.full.csv"].splitlines() == ["video_id", "video20", "video21", "video22", "video23"]
