"""What every task promises about its samples, checked for every built-in one."""

from __future__ import annotations

import pytest

from vtp.testing import check_task
from vtp_datasets.own import OwnData
from vtp_tasks.captioning import Captioning
from vtp_tasks.classification import Classification
from vtp_tasks.moments import MomentRetrieval
from vtp_tasks.multiple_choice import MultipleChoice
from vtp_tasks.plugin import vtp_register_tasks
from vtp_tasks.pretrain import Pretrain
from vtp_tasks.qa import QuestionAnswering
from vtp_tasks.retrieval import Retrieval

CASES = {
    Captioning: {},
    Classification: {},
    MomentRetrieval: {},
    MultipleChoice: {},
    Pretrain: {},
    QuestionAnswering: {"answers": 2},
    Retrieval: {},
}


def test_every_task_is_tested():
    registered = set()
    vtp_register_tasks(lambda name, target: registered.add(target.partition(":")[2]))
    assert registered == {cls.__name__ for cls in CASES}


@pytest.mark.parametrize("cls", CASES, ids=lambda cls: cls.__name__)
def test_the_contract_is_kept(cls, tmp_path):
    header = "video,caption,question,options,answer,labels"
    rows = [f"{i}.mp4,clip {i},what is {i}?,dog {i % 2}|no {i},dog {i % 2},dog|{i % 3}" for i in range(40)]
    if cls is MomentRetrieval:
        header, rows = "video,start,end,caption", [f"{i}.mp4,{i},{i + 2.5},clip {i}" for i in range(40)]
    (tmp_path / "my.csv").write_text("\n".join([header, *rows]))
    check_task(cls, CASES[cls], dataset=OwnData(file=tmp_path / "my.csv"))
