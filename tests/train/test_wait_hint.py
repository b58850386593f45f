from __future__ import annotations

import logging

from vtp.train.wait_hint import WaitHint, advice


def log_lines(hint: WaitHint, lines: list[tuple[int, float, float]], caplog) -> list[str]:
    """Messages after log lines of (step, milliseconds a step, share of waiting)."""
    hint.on_fit_start(None, step=0)
    with caplog.at_level(logging.INFO, "vtp"):
        for step, milliseconds, share in lines:
            hint.on_log(None, step=step, line={"timing": {"step_ms": milliseconds, "data_wait": share}})
    found = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return found


def test_the_hint_comes_once_after_the_first_window_and_only_if_waiting_is_much(caplog):
    slow = [(10 * k, 1000.0, 0.5) for k in range(1, 30)]  # 10 seconds a line
    (said,) = log_lines(WaitHint("do this", window_s=30), slow, caplog)
    assert said == "50 % of the time is spent waiting for data: do this"
    assert log_lines(WaitHint("do this", window_s=30), slow[:5], caplog) == []  # the second window is not over
    assert len(log_lines(WaitHint("do this", window_s=30), slow[:6], caplog)) == 1
    warming = [(step, milliseconds, 0.9 if step <= 30 else 0.1) for step, milliseconds, _ in slow]
    assert log_lines(WaitHint("do this", window_s=30), warming, caplog) == []
    mixed = [(step, milliseconds, 0.3 * (step % 20 == 0)) for step, milliseconds, _ in slow]
    assert log_lines(WaitHint("do this", window_s=30), mixed, caplog) == []  # 15 % on average


def test_the_hint_names_the_command():
    said = advice({"name": "msvd", "root": "my data/x", "lang": None}, 224, None)
    assert "vtp data cache msvd msvd-cache 'root=my data/x' --size 224" in said and "data.cache=msvd-cache" in said
    assert "--kind raw" in advice({"name": "msvd"}, 224, "DIR", "jpeg")
    assert "vtp data pack" in advice({"name": "shards"}, 224, None)
