#!/usr/bin/env bash
# transformers 5.23, video_utils.load_video with backend="pyav": how many frames a video has is read from the header and
# not counted. Matroska and WebM write no such number, so the library takes them for videos of 0 frames: num_frames=8
# of a file of 30 frames is a ValueError that asks for a smaller number. The same frames in MP4 are read. Asked for no
# number, it ends in an IndexError.
# Seen: mp4 8 and 30 frames; mkv ValueError about total_num_frames=0, and IndexError.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check transformers==5.23.0 av==18.1.0 torch==2.11.0 \
  torchvision==0.26.0 numpy==2.3.5
cat >"$folder/ask.py" <<'PYTHON'
import sys
from pathlib import Path

import av
import numpy as np
from transformers.video_utils import load_video

for ending in ("mp4", "mkv"):
    path = str(Path(sys.argv[1]) / f"clip.{ending}")
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for number in range(30):
            picture = np.full((64, 64, 3), 8 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    for asked in ({"num_frames": 8}, {}):
        try:
            video, _ = load_video(path, backend="pyav", **asked)
            print(ending, asked, "frames:", len(video))
        except Exception as error:
            print(ending, asked, type(error).__name__, "total_num_frames=0" in str(error))
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" "$folder" 2>/dev/null | tee "$folder/out"
diff "$folder/out" - <<'SEEN'
mp4 {'num_frames': 8} frames: 8
mp4 {} frames: 30
mkv {'num_frames': 8} ValueError True
mkv {} IndexError False
SEEN
