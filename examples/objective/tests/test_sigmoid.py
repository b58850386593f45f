import math

import torch
from vtp_sigmoid.objective import Sigmoid

from vtp.testing import check_objective


def test_the_contract():
    check_objective(Sigmoid, {"width": 8})


def test_two_pairs_by_hand():
    embeddings = torch.eye(2)
    alike = {"same_video": torch.arange(2), "same_text": torch.arange(2), "rows": torch.tensor([True, True])}
    given = {"video": embeddings, "text": embeddings, "scale": torch.zeros(1), "bias": torch.zeros(1), **alike}
    objective = Sigmoid.__new__(Sigmoid)
    torch.nn.Module.__init__(objective)
    objective.proj = torch.nn.ModuleDict({"text": torch.nn.Identity(), "video": torch.nn.Identity()})
    yes, no = math.log(1 + math.exp(-1)), math.log(2)  # cosine 1 for own pairs, 0 for the others
    torch.testing.assert_close(objective.loss_from_features(given).loss, torch.tensor(yes + no))
