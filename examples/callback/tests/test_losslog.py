from pathlib import Path

from vtp_losslog.losslog import LossLog


def test_a_line_per_logged_step(tmp_path: Path):
    log = LossLog(file=str(tmp_path / "loss.csv"))
    for step, loss in ((10, 2.5), (20, 1.25)):
        log.on_log(None, step=step, line={"step": step, "loss": loss, "lr": 0.1})
    assert (tmp_path / "loss.csv").read_text().splitlines() == ["10,2.5", "20,1.25"]
