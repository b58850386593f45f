"""One package of a stranger for each kind of component: an objective, encoders of picture and sound, a fusion encoder,
a task with its protocol and form, a command, and a method made of the others. None of them needs a trick."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from outside_packages import installed, lines_of

from vtp.cli.main import main
from vtp.model.build import lookup_in
from vtp.model.weights import load_model
from vtp.plugins import host
from vtp.testing import check_encoder, check_fusion, check_objective, check_task
from vtp.types import Tokens
from vtp_datasets.shapes import Shapes

# most lines of Python and of YAML: what strangers needed, and the lists of what the packages register
KINDS = {"siglip": 55, "swin3d": 42, "speechwaves": 39, "perceiver": 59}
KINDS |= {"clipcls": 155, "oclip": 118, "marble": 79}
TINY = ["dataset=shapes", "dataset.size=tiny", "train.steps=2", "train.epochs=null", "train.global_batch=8"]
TINY += ["train.log_every=1", "train.tensorboard=false", "data.workers=0", "threads=1"]
QA = ["task=msrvtt_qa", "data.limit_eval=4"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A folder with the packages, which are on the path, and the clips."""
    root = tmp_path_factory.mktemp("kinds")
    with installed(root / "site", tuple(KINDS)):
        yield root


def start(world: Path, name: str, *options: str) -> None:
    assert main(["run", *TINY, f"dataset.root={world / 'shapes'}", f"run_dir={world / name}", *options]) == 0


def run(world: Path, name: str, *options: str) -> dict[str, Any]:
    """The report of a run of the public command on the tiny world."""
    start(world, name, *options)
    report: dict[str, Any] = json.loads((world / name / "report.json").read_text())
    assert report["metrics"] and report["ledger"]["missing"] == 0
    return report


def losses(world: Path, name: str) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (world / name / "metrics.jsonl").read_text().splitlines()]
    return [line["losses"] for line in lines if "losses" in line]


def component(kind: str, name: str) -> Any:
    return host().registry.get(kind, name).load()


def restored(world: Path, name: str) -> Any:
    return load_model(world / name / "checkpoints" / "last", lookup_in(host().registry)).eval()


def test_they_load_and_nothing_is_wrong_with_them(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert all(lines_of(name) <= most for name, most in KINDS.items())
    assert main(["plugins", "check", *KINDS]) == 0, capsys.readouterr().out
    assert main(["--help"]) == 0
    assert "oclip-neighbours" in capsys.readouterr().out
    assert main(["protocols", "show", "clipcls_shapes"]) == 0
    assert "tagged" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options",
    [
        ["task=msrvtt_retrieval", "objective=[siglip]", "task.objective=siglip"],
        [*QA, "encoder/video=swin3d", "encoder/audio=speechwaves", "encoder/fusion=perceiver"],
        ["task=clipcls", "encoder/video=oclip"],
        ["experiment=marble/tiny"],
        ["experiment=marble/tiny", "encoder/fusion=concat"],  # nothing in the model file was meant for perceiver alone
    ],
)
def test_their_options_compose(world: Path, capsys: pytest.CaptureFixture[str], options: list[str]) -> None:
    assert main(["run", *TINY, *options, "--cfg", "job"]) == 0
    assert "name:" in capsys.readouterr().out


def test_components_keep_their_contracts(world: Path) -> None:
    check_encoder(component("encoder/video", "swin3d"), {"frames": 5})
    check_encoder(component("encoder/video", "oclip"), {"layers": 1})
    check_encoder(component("encoder/audio", "speechwaves"), {"depth": 1})
    check_fusion(component("encoder/fusion", "perceiver"))
    check_objective(component("objective", "siglip"))
    check_objective(component("objective", "trialign"))
    check_objective(component("objective", "clipcls"), labels={"tags": [[1, 0, 1], [0, 0, 1]]})
    check_task(component("task", "clipcls"), dataset=Shapes(size="tiny", root=world / "shapes"))


@pytest.mark.slow
def test_a_pairwise_loss_trains_and_is_searched_with(world: Path) -> None:
    siglip = ["task=msrvtt_retrieval", "objective=[siglip]", "task.objective=siglip", "encoder.text.dropout=0"]
    assert run(world, "siglip", *siglip)["metrics"].keys() >= {"t2v/r1", "v2t/r1"}
    run(
        world, "siglip_again", "task=msrvtt_retrieval", "mode=eval", f"checkpoint={world / 'siglip'}"
    )  # its objective, too
    run(world, "micro", *siglip, "train.accumulation=2")
    for left, right in zip(losses(world, "siglip"), losses(world, "micro"), strict=True):
        assert left["siglip"] == pytest.approx(right["siglip"], rel=1e-5)
    check_objective(component("objective", "siglip"), processes=2)


@pytest.mark.slow
def test_encoders_and_a_fusion_take_the_places_of_the_default_ones(world: Path) -> None:
    run(world, "qa", *QA, "encoder/video=swin3d", "encoder/audio=speechwaves", "encoder/fusion=perceiver")
    model = restored(world, "qa")
    sound, picture = model.encoders["audio"], model.encoders["video"]
    assert len(sound.model.encoder.layers) == sound.depth == 2  # of its own option file, whatever the default model has
    assert picture.spec.frames == 5 and picture(torch.zeros(1, 5, 3, 32, 32)).x.shape == (1, 3 * 4 * 4, 32)
    assert picture.spec.mean[2] == 0.4


@pytest.mark.slow
def test_a_fusion_of_a_stranger_takes_the_losses_of_the_crossformer(world: Path) -> None:
    pytest.importorskip("vtp_crossformer")
    trained = [
        "experiment=crossformer/tiny_pretrain",
        "encoder/fusion=perceiver",
        "~encoder.fusion.preset",
        "task.zero_shot=null",
    ]
    start(world, "tri-modal", *trained)
    (step, *_) = losses(world, "tri-modal")
    assert step.keys() == {"mlm", "mvm", "mam", "match", "joint", "vt", "at", "av"}
    assert all(value > 0 for value in step.values())


@pytest.mark.slow
def test_rows_lose_a_modality_in_training_alone(world: Path) -> None:
    run(world, "dropped", *QA, "encoder/fusion=perceiver", "encoder.fusion.modality_dropout=0.5")
    fusion = restored(world, "dropped").encoders["fusion"]
    there = torch.ones(400, 3, dtype=torch.bool)
    silent = there.clone()
    silent[:100] = False  # these rows have no sound: then they keep the picture
    tokens = {"video": Tokens(torch.zeros(400, 3, 96), there), "audio": Tokens(torch.zeros(400, 3, 96), silent)}
    assert all(mask.equal(tokens[m].attention_mask) for m, mask in fusion.kept(tokens).items())
    kept = {m: mask.any(1) for m, mask in fusion.train().kept(tokens).items()}
    assert (kept["video"] | kept["audio"]).all() and kept["video"][:100].all()
    assert 0.5 < kept["video"][100:].float().mean() < 0.95


@pytest.mark.slow
def test_a_task_of_its_own_form(world: Path) -> None:
    report = run(world, "tags", "task=clipcls")
    assert report["protocol"]["official"] and report["protocol"]["counts"] == {"videos": 4, "tagged": 4}
    assert report["metrics"].keys() == {"map", "accuracy"}
    assert report["rows"].keys() == {"without video", "without audio"}
    again = run(world, "again", "task=clipcls", "mode=eval", f"checkpoint={world / 'tags'}")
    assert again["metrics"] == pytest.approx(report["metrics"])
    start(world, "predicted", "task=clipcls", "mode=predict", f"checkpoint={world / 'tags'}")
    assert len((world / "predicted" / "predictions.jsonl").read_text().splitlines()) == 4
    limited = run(world, "limited", "task=clipcls", "mode=eval", f"checkpoint={world / 'tags'}", "data.limit_eval=2")
    assert not limited["protocol"]["official"]  # two of four clips


@pytest.mark.slow
def test_a_command_with_a_trained_encoder(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(world, "frames", *QA, "encoder/video=oclip", "train.layer_decay=0.5")
    clips = [str(world / "shapes" / "videos" / f"video{k}.mp4") for k in (3, 4, 3)]
    capsys.readouterr()
    assert main(["oclip-neighbours", str(world / "frames" / "checkpoints" / "last"), *clips]) == 0
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [name for _, name in shown] == clips
    assert float(shown[0][0]) == float(shown[2][0]) == pytest.approx(1.0, abs=1e-4) and float(shown[1][0]) < 1


@pytest.mark.slow
@pytest.mark.parametrize("fusion", ["marble", "concat"])
def test_a_method_of_other_packages(world: Path, fusion: str) -> None:
    report = run(world, f"marble_{fusion}", "experiment=marble/tiny", f"encoder/fusion={fusion}", "task.subsets=all")
    assert report["metrics"].keys() >= {"t2v/r1", "v2t/r1"}
    heard = "cut sound: 3 of 4 videos, 3 of 4 queries"  # of msrvtt_1ka, whose protocol the experiment names
    assert report["rows"].keys() == {heard, "only video+text", "only audio+text"}
    model = restored(world, f"marble_{fusion}")
    assert getattr(model.encoders["fusion"], "modality_dropout", None) == {"marble": 0.4, "concat": None}[fusion]
