import json

import pytest
from vtp_clipfolder.dataset import ClipFolder

from vtp.errors import DataError
from vtp.testing import check_dataset


@pytest.fixture
def root(tmp_path):
    lines = [{"clip": f"{split}.mp4", "split": split, "captions": ["a dog", split]} for split in ("train", "test")]
    lines[1]["questions"] = [["what runs?", "dog"]]
    (tmp_path / "index.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path


def test_the_contract(root):
    check_dataset(ClipFolder, {"root": str(root)})


def test_rows_of_each_kind(root):
    data = ClipFolder(root=str(root))
    assert [len(data.samples(kind, "test")) for kind in data.kinds] == [2, 1, 1]
    assert data.samples("qa", "test")[0].labels == {"answer": "dog"} and data.samples("qa", "train") == []


@pytest.mark.parametrize(
    ("more", "said"),
    [("", "line 1 lacks split"), (', "split": "train", "captions": "a dog"', "captions must be a list")],
)
def test_a_wrong_line_is_named(root, more, said):
    (root / "index.jsonl").write_text(f'{{"clip": "a.mp4"{more}}}')
    with pytest.raises(DataError, match=said):
        ClipFolder(root=str(root)).samples("qa", "train")
