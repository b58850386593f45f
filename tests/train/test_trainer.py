"""The loop: continuing is exact, watching changes nothing, and trouble stops it without harm."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_training import ToyLoader, evaluate, history, toy_model

from vtp.errors import ConfigError, RunError
from vtp.storage import verify_directory
from vtp.train import Callback, Interrupted, TrainConfig, Trainer
from vtp.train.callbacks import Progress
from vtp.train.ema import Average


def trainer(run_dir, *, steps=12, model=None, callbacks=(), judge=evaluate, best_by=("accuracy", "max"), **options):
    built = {k: options.pop(k) for k in ("objectives", "poison", "dropout", "seed") if k in options}
    config = TrainConfig(
        **{"steps": steps, "lr": 0.01, "global_batch": 16, "tensorboard": False, "log_every": 1, **options}
    )
    return Trainer(
        model or toy_model(**built), ToyLoader(), config, run_dir, evaluate=judge,
        monitor=best_by if judge else None, callbacks=callbacks, device="cpu",
    )  # fmt: skip


class StopAfter(Callback):
    """Ends the process's training after a step, as a crash would: nothing is saved."""

    def __init__(self, step: int) -> None:
        self.at = step

    def on_step_end(self, trainer, *, step, **facts):
        if step == self.at:
            raise KeyError("crash")


class SignalAfter(Callback):
    def __init__(self, step: int, number: int = signal.SIGTERM) -> None:
        self.at, self.number = step, number

    def on_step_start(self, trainer, *, step, **facts):
        if step == self.at:
            os.kill(os.getpid(), self.number)


def weights(t: Trainer) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in t.model.named_parameters()}


def assert_equal(a, b):
    assert all(torch.equal(a[name], b[name]) for name in a)


VARIANTS = {
    "plain": {},
    "dropout": {"dropout": 0.3},
    "gradcache": {"dropout": 0.3, "accumulation": 4},
    "average": {"dropout": 0.3, "ema_decay": 0.9, "schedule": "linear"},
    "window": {"dropout": 0.3, "log_every": 5, "eval_every": 3},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_crashed_run_continues_exactly(tmp_path, variant):
    options = {"save_every": 3, **VARIANTS[variant]}
    whole = trainer(tmp_path / "whole", **options)
    whole.fit()
    with pytest.raises(KeyError):
        trainer(tmp_path / "parts", callbacks=[StopAfter(8)], **options).fit()
    second = trainer(tmp_path / "parts", seed=5, **options)  # other initial weights: they must not matter
    assert second.resume("auto")
    assert second.step == 6  # in the middle of an epoch of 4 steps
    second.fit()
    assert history(tmp_path / "parts") == history(tmp_path / "whole")
    assert_equal(weights(second), weights(whole))
    if second._average is not None:
        assert_equal(second._average.tensors, whole._average.tensors)


def test_a_run_that_ended_before_its_evaluation_makes_up_for_it(tmp_path):
    class NoEvaluation(Callback):
        def on_evaluate_start(self, trainer, *, step, **facts):
            if step == 8:
                raise KeyError("killed while evaluating")

    trainer(tmp_path / "whole", dropout=0.3).fit()
    with pytest.raises(KeyError):
        trainer(tmp_path / "parts", dropout=0.3, callbacks=[NoEvaluation()]).fit()
    second = trainer(tmp_path / "parts", dropout=0.3)
    second.resume("auto")
    assert second.step == 8
    second.fit()
    assert history(tmp_path / "parts") == history(tmp_path / "whole")


def test_resuming_a_finished_run_does_nothing(tmp_path):
    trainer(tmp_path).fit()
    before = (tmp_path / "metrics.jsonl").read_text()
    again = trainer(tmp_path)
    assert again.resume("auto")
    assert again.fit().steps == 12
    assert (tmp_path / "metrics.jsonl").read_text() == before


def test_evaluating_and_saving_do_not_change_training(tmp_path):
    busy = trainer(tmp_path / "busy", dropout=0.3, eval_every=1, save_every=1)
    busy.fit()
    calm = trainer(tmp_path / "calm", dropout=0.3, judge=None, save_every=0, eval_every=0)
    calm.fit()
    assert_equal(weights(busy), weights(calm))
    assert [e["loss"] for e in history(tmp_path / "calm")] == [
        e["loss"] for e in history(tmp_path / "busy") if "loss" in e
    ]


@pytest.mark.parametrize("accumulation", [2, 4])
def test_a_run_does_not_depend_on_accumulation(tmp_path, accumulation):
    one = trainer(tmp_path / "one", judge=None)
    many = trainer(tmp_path / "many", judge=None, accumulation=accumulation)
    one.fit()
    many.fit()
    for a, b in zip(history(tmp_path / "one"), history(tmp_path / "many"), strict=True):
        assert a["losses"] == pytest.approx(b["losses"], rel=2e-5)  # measured 2e-6 after 12 steps
        assert a["items"] == b["items"]
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=2e-4)


def test_it_learns(tmp_path):
    result = trainer(tmp_path, steps=80, lr=0.02, objectives=("qa",)).fit()
    lines = [line for line in history(tmp_path) if "loss" in line]
    assert lines[0]["loss"] > 1.2  # ln 4 = 1.39 is chance
    assert lines[-1]["loss"] < 0.7
    assert result.evaluations[-1]["metrics"]["accuracy"] > 0.4


def test_learning_rates_reach_the_groups(tmp_path):
    t = trainer(tmp_path, steps=4, warmup=0, schedule="constant", group_lr={"encoders": 0.1}, judge=None)
    t.fit()
    assert sorted({group["lr"] for group in t._optimizer.param_groups}) == pytest.approx([0.001, 0.01])
    assert history(tmp_path)[-1]["lr"] == 0.01


def test_frozen_parameters_stay(tmp_path):
    t = trainer(tmp_path, steps=3, group_lr={"encoders.audio.layers": 0.0}, judge=None)
    before = weights(t)
    t.fit()
    changed = {name for name, value in weights(t).items() if not torch.equal(value, before[name])}
    assert changed and not any("layers" in name for name in changed)


def test_the_norm_of_the_gradient_is_clipped(tmp_path):
    """AdamW hides the size of a gradient, so this reads the gradient that the optimizer is given."""
    norms = []

    class Look(Callback):
        def on_fit_start(self, trainer, **facts):
            step = trainer._precision.step

            def spy(optimizer):
                grads = [p.grad for group in optimizer.param_groups for p in group["params"]]
                norms.append(float(torch.cat([g.flatten() for g in grads]).norm()))
                step(optimizer)

            trainer._precision.step = spy

    trainer(tmp_path, steps=3, clip_norm=0.01, judge=None, callbacks=[Look()]).fit()
    assert norms == pytest.approx([0.01] * 3, rel=1e-4)
    assert all(line["grad_norm"] > 0.1 for line in history(tmp_path))  # logged before clipping


# -- trouble -----------------------------------------------------------------------------------------------------------


def test_nan_names_objective_and_step_and_saves_nothing(tmp_path):
    t = trainer(tmp_path, poison=6, log_every=5, save_every=4, keep=1)
    with pytest.raises(RunError, match=r"Step 7: the loss of objective poison is nan.*step_00000004") as caught:
        t.fit()
    assert caught.value.exit_code == 1
    assert [p.name for p in (tmp_path / "checkpoints").glob("step_*")] == ["step_00000004"]
    assert verify_directory(tmp_path / "checkpoints" / "last") is None


def test_nan_is_noticed_before_a_checkpoint_even_without_a_log_line(tmp_path):
    with pytest.raises(RunError, match="Step 1: .* no checkpoint yet"):
        trainer(tmp_path, poison=0, log_every=100, save_every=2).fit()
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_ends_with_the_shells_code(tmp_path, number):
    trainer(tmp_path / "whole", dropout=0.3).fit()
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=r"after step 6; saved .*step_00000006.*resume=auto") as caught:
        trainer(tmp_path / "parts", dropout=0.3, callbacks=[SignalAfter(6, number)]).fit()
    assert caught.value.exit_code == 128 + number
    assert signal.getsignal(number) is before
    second = trainer(tmp_path / "parts", dropout=0.3)
    assert second.resume("auto") and second.step == 6
    second.fit()
    assert history(tmp_path / "parts") == history(tmp_path / "whole")


@pytest.mark.parametrize("step", [4, 12])
def test_a_signal_during_an_evaluation_is_not_lost(tmp_path, step):
    """Also during the last one: what follows training would keep a job manager waiting until it kills."""
    t = trainer(tmp_path, eval_every=4)

    def judge(model):
        if t.step == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(model)

    t._evaluate = judge
    with pytest.raises(Interrupted, match=f"after step {step if step == 12 else step + 1}; saved") as caught:
        t.fit()
    assert caught.value.exit_code == 143
    second = trainer(tmp_path, eval_every=4)
    assert second.resume("auto") and [e["step"] for e in second.fit().evaluations] == [4, 8, 12]


def test_weights_that_are_no_numbers_are_not_evaluated(tmp_path):
    """Without checkpoints and with rare lines, the evaluation is the first to look."""
    judged = []
    with pytest.raises(RunError, match="Step 4: the loss of objective poison is nan"):
        trainer(
            tmp_path, poison=3, log_every=100, save_every=0, eval_every=6, judge=lambda model: judged.append(1) or {}
        ).fit()
    assert judged == []


class ToyStill(Callback):
    """A line of metrics.jsonl whose gradient is 0."""

    def on_log(self, trainer, *, step, line, **facts):
        line["grad_norm"] = 0.0


@pytest.mark.parametrize(("steps", "said"), [(2, 2), (12, 3)])
def test_training_without_a_gradient_is_mentioned_once(tmp_path, caplog, steps, said):
    t = trainer(tmp_path, steps=steps, log_every=1)
    t.callbacks.insert(0, ToyStill())
    t.fit()
    (told,) = t.warnings
    assert told.startswith(f"nothing is learned: up to step {said} the loss is ") and told in caplog.text


def test_training_with_one_is_not(tmp_path):
    t = trainer(tmp_path, log_every=1)
    t.fit()
    assert t.warnings == []


def test_a_second_signal_ends_at_once():
    code = """
import time
from vtp.train.signals import StopSignal
with StopSignal() as stop:
    print("ready", flush=True)
    while stop.received is None:
        time.sleep(0.01)
    print(stop.received, flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "15\n"
        process.send_signal(signal.SIGTERM)  # at once: the same event reaching us twice
        time.sleep(1.1)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == -signal.SIGTERM
    finally:
        process.kill()
        process.stdout.close()


def test_kill_9_in_the_middle_of_an_epoch(tmp_path, start):
    options = {"steps": 14, "save_every": 3, "dropout": 0.3, "lr": 0.01}
    killed = start(run_dir=str(tmp_path / "parts"), delay=0.15, **options)
    wait_for(tmp_path / "parts" / "checkpoints" / "step_00000006")
    time.sleep(0.2)
    killed.kill()
    killed.wait()
    trainer(tmp_path / "whole", **options).fit()
    second = trainer(tmp_path / "parts", **options)
    assert second.resume("auto") and 6 <= second.step < 14
    second.fit()
    assert history(tmp_path / "parts") == history(tmp_path / "whole")


@pytest.mark.slow
def test_kill_9_at_any_moment(tmp_path, start):
    """Twelve kills, wherever they fall: while computing, saving, evaluating or starting."""
    options = {"steps": 60, "save_every": 1, "dropout": 0.3, "lr": 0.01}
    assert start(run_dir=str(tmp_path / "whole"), **options).wait(timeout=120) == 0
    finished = False
    for attempt in range(40):
        run = start(run_dir=str(tmp_path / "parts"), resume="auto", delay=0.02, **options)
        try:
            finished = run.wait(timeout=4.0 + 0.37 * (attempt % 7)) == 0
        except subprocess.TimeoutExpired:  # the kill that this test is about
            run.kill()
            run.wait()
        if finished:
            break
    assert finished and attempt >= 2
    assert history(tmp_path / "parts") == history(tmp_path / "whole")


def wait_for(path: Path, seconds: float = 300.0) -> None:
    until = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < until, f"{path} did not appear"
        time.sleep(0.02)


def test_loss_scaling_changes_no_result_and_goes_on(tmp_path):
    """fp16 runs on GPUs only, but its scaler works anywhere: scaling by powers of two is exact."""

    def scaled(folder, **more):
        t = trainer(tmp_path / folder, judge=None, save_every=3, **more)
        t._precision.scaler = torch.GradScaler("cpu", init_scale=2.0**10, growth_interval=4)
        return t

    plain = trainer(tmp_path / "plain", judge=None)
    plain.fit()
    whole = scaled("scaled")
    whole.fit()
    assert_equal(weights(whole), weights(plain))
    assert whole._precision.scaler.get_scale() == 2.0**13  # 12 steps without overflow
    with pytest.raises(KeyError):
        scaled("parts", callbacks=[StopAfter(7)]).fit()
    second = scaled("parts")
    assert second.resume("auto") and second.step == 6
    assert second._precision.scaler.get_scale() == 2.0**11
    second.fit()
    assert second._precision.state_dict() == whole._precision.state_dict()


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_gpu_run_learns_and_continues(tmp_path, precision):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")

    def build(folder, **more):
        options = {"steps": 40, "lr": 0.02, "precision": precision, "log_every": 1, "save_every": 10, "accumulation": 2}
        config = TrainConfig(global_batch=16, tensorboard=False, **options)
        return Trainer(toy_model(dropout=0.1), ToyLoader(), config, tmp_path / folder, device="cuda", **more)

    build("whole").fit()
    with pytest.raises(KeyError):
        build("parts", callbacks=[StopAfter(25)]).fit()
    second = build("parts")
    assert second.resume("auto") and second.step == 20
    second.fit()
    whole, parts = history(tmp_path / "whole"), history(tmp_path / "parts")
    assert [line["loss"] for line in parts] == pytest.approx([line["loss"] for line in whole], rel=1e-3)
    assert whole[-1]["loss"] < 0.7 * whole[0]["loss"]


# -- evaluation --------------------------------------------------------------------------------------------------------


def test_patience_stops_early(tmp_path):
    values = iter([0.5, 0.4, 0.3, 0.2])
    t = trainer(tmp_path, steps=100, eval_every=2, patience=2, judge=lambda model: {"accuracy": next(values)})
    result = t.fit()
    assert (result.steps, result.stopped_early, result.best.name) == (6, True, "step_00000002")


def test_it_evaluates_when_it_should(tmp_path):
    def evaluated(**options):
        result = trainer(tmp_path / str(len(list(tmp_path.iterdir()))), steps=10, **options).fit()
        return [e["step"] for e in result.evaluations]

    assert evaluated() == [4, 8, 10]  # epochs of 4 steps, and the end
    assert evaluated(eval_every=3) == [3, 6, 9, 10]
    assert evaluated(eval_every=0) == [10]


def test_an_unknown_monitor_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="no metric 'r1'. It gives: accuracy"):
        trainer(tmp_path, steps=4, best_by=("r1", "max")).fit()


def test_config_overrules_the_tasks_monitor(tmp_path):
    values = iter([{"accuracy": 0.1, "error": 5.0}, {"accuracy": 0.9, "error": 7.0}])
    t = trainer(tmp_path, steps=8, monitor="error", monitor_mode="min", judge=lambda model: next(values))
    assert t.fit().best.name == "step_00000004"


def test_nan_metrics_are_never_best(tmp_path):
    values = iter([float("nan"), 0.1, float("nan")])
    result = trainer(tmp_path, judge=lambda model: {"accuracy": next(values)}).fit()
    assert result.best.name == "step_00000008"
    assert [e["metrics"]["accuracy"] for e in result.evaluations] == [None, 0.1, None]


def test_the_average_is_evaluated_and_the_weights_come_back(tmp_path):
    seen = []

    def judge(model):
        seen.append({name: p.detach().clone() for name, p in model.named_parameters()})
        assert not model.training
        return {"accuracy": 0.0}

    t = trainer(tmp_path, steps=4, judge=judge, ema_decay=0.99)
    t.fit()
    assert_equal(seen[0], t._average.tensors)
    assert not torch.equal(seen[0]["objectives.qa.head.weight"], weights(t)["objectives.qa.head.weight"])
    assert t.model.training


def test_average_follows_its_formula():
    weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    average = Average([("w", weight)], 0.5)
    want = torch.tensor([1.0, 2.0])
    for n in range(1, 30):
        with torch.no_grad():
            weight.mul_(1.1)
        average.update()
        decay = min(0.5, (1 + n) / (10 + n))
        want = decay * want + (1 - decay) * weight.detach()
        torch.testing.assert_close(average.tensors["w"], want)


def test_load_best_gives_the_weights_that_were_evaluated(tmp_path):
    for decay in (None, 0.9):
        seen = []

        def judge(model, seen=seen):
            seen.append({name: p.detach().clone() for name, p in model.named_parameters()})
            return {"accuracy": -float(len(seen))}

        t = trainer(tmp_path / str(decay), judge=judge, ema_decay=decay)
        t.fit()
        assert t.load_best().name == "step_00000004"
        with t.evaluating() as model:
            assert_equal({n: p.detach() for n, p in model.named_parameters()}, seen[0])


# -- watching ----------------------------------------------------------------------------------------------------------


def test_callbacks_see_every_event_in_order(tmp_path):
    events = []

    class Spy(Callback):
        pass

    for event in [name for name in vars(Callback) if name.startswith("on_")]:
        setattr(Spy, event, lambda self, trainer, event=event, **facts: events.append((event, facts["step"])))
    trainer(tmp_path, steps=2, callbacks=[Spy()]).fit()
    step = ["on_step_start", "on_batch", "on_step_end", "on_log"]
    assert [name for name, _ in events] == [
        "on_fit_start", *step, *step, "on_save", "on_evaluate_start", "on_evaluate", "on_fit_end",
    ]  # fmt: skip
    assert [number for _, number in events] == [0, *[1] * 4, *[2] * 4, 2, 2, 2, 2]


def test_callbacks_are_told_of_a_failure(tmp_path):
    errors = []

    class Spy(Callback):
        def on_fit_end(self, trainer, *, error, **facts):
            errors.append(error)

    with pytest.raises(KeyError):
        trainer(tmp_path, callbacks=[StopAfter(1), Spy()]).fit()
    assert [type(error) for error in errors] == [KeyError]


def test_metrics_lines_hold_what_the_docs_say(tmp_path):
    trainer(tmp_path, steps=4).fit()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 4]
    assert set(lines[0]) == {
        "step", "loss", "losses", "metrics", "items", "lr", "grad_norm", "epoch", "samples", "timing",
    }  # fmt: skip
    assert set(lines[0]["timing"]) == {"clips_per_s", "data_wait", "step_ms", "memory_gb"}
    assert lines[0]["loss"] == pytest.approx(0.7 * lines[0]["losses"]["vtc"] + 1.3 * lines[0]["losses"]["qa"])
    assert (lines[3]["epoch"], lines[3]["samples"]) == (1.0, 64)
    assert set(lines[4]) == {"step", "evaluation", "best"}


def test_waiting_for_data_is_measured_and_evaluations_are_not(tmp_path, monkeypatch):
    class Clock:
        now = 0.0

        def perf_counter(self):
            return self.now

    clock = Clock()

    class Work(Callback):
        def on_batch(self, trainer, **facts):
            clock.now += 1.0

    class SlowLoader(ToyLoader):
        def __iter__(self):
            for batch in super().__iter__():
                clock.now += 3.0
                yield batch

    def slow(model):
        clock.now += 1000.0
        return {"accuracy": 0.0}

    monkeypatch.setattr("vtp.train.history.time", clock)
    t = trainer(tmp_path, steps=6, judge=slow, eval_every=3, log_every=6, callbacks=[Work()])
    t._loader = SlowLoader()
    t.fit()
    timing = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-2])["timing"]
    assert (timing["data_wait"], timing["step_ms"], timing["clips_per_s"]) == (0.75, 4000.0, 4.0)


def test_progress_is_plain_lines_when_not_on_a_terminal(tmp_path):
    text = io.StringIO()
    t = trainer(tmp_path, steps=4, judge=None)
    t.callbacks = [Progress(every_s=0.0, stream=text)]
    t.fit()
    lines = text.getvalue().splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("step 1/4  loss ")
    for word in ("vtc", "qa", "lr", "clips/s", "data wait"):
        assert word in lines[0]


def test_progress_is_a_bar_on_a_terminal(tmp_path):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    text = Terminal()
    t = trainer(tmp_path, steps=4)
    t.callbacks = [Progress(stream=text)]
    t.fit()
    assert "4/4" in text.getvalue()
    assert "evaluation: accuracy" in text.getvalue()


def test_tensorboard_files_are_written(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trainer(tmp_path, steps=4, tensorboard=True).fit()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    tags = events.Tags()["scalars"]
    assert {"loss/total", "loss/vtc", "loss/qa", "train/qa/accuracy", "lr", "evaluation/accuracy"} <= set(tags)
    want = [line["loss"] for line in history(tmp_path) if "loss" in line]
    assert [e.value for e in events.Scalars("loss/total")] == pytest.approx(want, rel=1e-6)


def test_gradient_checkpointing_needs_an_encoder_that_can(tmp_path):
    model = toy_model()
    model.gradient_checkpointing_enable = lambda: ["audio"]  # the slots that cannot
    with pytest.raises(ConfigError, match=r"no encoder of this model can \(audio\)"):
        trainer(tmp_path, model=model, gradient_checkpointing=True)


@pytest.mark.parametrize(
    "value", [np.float32(0.5), torch.tensor(0.5), np.array([0.5])], ids=["numpy", "torch", "array"]
)
def test_metrics_may_be_numbers_of_any_library(tmp_path, value):
    trainer(tmp_path, steps=1, judge=lambda model: {"accuracy": value}).fit()
    assert [line["evaluation"] for line in history(tmp_path) if "evaluation" in line] == [{"accuracy": 0.5}]


def test_a_metric_that_is_no_number_is_named(tmp_path):
    with pytest.raises(RunError, match="the metric 'accuracy' as str, expected a number"):
        trainer(tmp_path, steps=1, judge=lambda model: {"accuracy": "good"}).fit()
