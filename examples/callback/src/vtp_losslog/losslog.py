"""Step and loss, a line each, in a file of the reader's choice."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vtp import distributed
from vtp.train import Callback, Trainer


class LossLog(Callback):
    """Adds a line to ``file`` whenever the trainer logs one, every ``train.log_every`` steps.

    Args:
        file: CSV file; a run that is continued goes on in it.
    """

    def __init__(self, *, file: str = "loss.csv"):
        self.file = Path(file)

    def on_log(self, trainer: Trainer, *, step: int, line: Mapping[str, Any], **facts: Any) -> None:
        """One process of several writes."""
        if distributed.is_main():
            with self.file.open("a", newline="", encoding="utf-8") as out:
                csv.writer(out).writerow([step, line["loss"]])
