#!/usr/bin/env bash
# jieba 0.42.1, its own dictionary: "一个男孩" (a boy, with numeral and measure word) is cut as one word and tagged as a
# noun, while "一个女孩" (a girl), "一个男人", "一个女人" and "两个男孩" are cut into numeral and noun as one expects. The
# dictionary holds 194 phrases that begin with "一个", ages and amounts among them. Counts of 男孩 in captions miss those of
# "一个男孩" (122 of its 392 occurrences in MSVD-CN), and those of 女孩 miss none: boys look rarer than they are.
# Seen: "一个男孩/n 在/p 跑步/n" and "一个/m 女孩/n 在/p 跑步/n".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check jieba==0.42.1
cat >"$folder/ask.py" <<'PYTHON'
import logging
from pathlib import Path

import jieba
import jieba.posseg

jieba.setLogLevel(logging.WARNING)
jieba.dt.tmp_dir = str(Path(__file__).parent)  # where it keeps its dictionary as it was read
for text in ("一个男孩在跑步", "一个女孩在跑步", "一个男人在跑步", "一个女人在跑步", "两个男孩在跑步", "男孩在跑步"):
    print(*(f"{word}/{tag}" for word, tag in jieba.posseg.cut(text)))
lines = Path(jieba.__file__).with_name("dict.txt").read_text(encoding="utf-8").splitlines()
print(sum(line.startswith("一个") for line in lines))
PYTHON
PYTHONIOENCODING=utf-8 "$folder/venv/bin/python" -W ignore "$folder/ask.py" | tee "$folder/out"
diff "$folder/out" - <<'SEEN'
一个男孩/n 在/p 跑步/n
一个/m 女孩/n 在/p 跑步/n
一个/m 男人/n 在/p 跑步/n
一个/m 女人/n 在/p 跑步/n
两个/m 男孩/n 在/p 跑步/n
男孩/n 在/p 跑步/n
195
SEEN
