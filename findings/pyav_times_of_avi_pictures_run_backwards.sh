#!/usr/bin/env bash
# av 18.1.0 (with the FFmpeg 8 of its wheel): H.264 with B-frames in AVI. The decoded pictures come in the right
# order, but their `pts` do not rise: AVI stores no presentation times, so each picture carries the number of the
# packet that brought it, which is its place in storage order. Sorting pictures by time, which is harmless for MP4 and
# Matroska with the same pictures, therefore shuffles an AVI; the place of a picture in decoding order is the only
# truth there.
# Seen: twelve pictures painted 0 to 11 come as 0 to 11 in both; pts in MP4 rise, in AVI they are 1 3 4 2 6 7 5 9 10 8
# 12 11.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check av==18.1.0 numpy==2.3.5
cat >"$folder/ask.py" <<'PYTHON'
import sys

import av
import numpy as np

for ending in ("mp4", "avi"):
    path = f"{sys.argv[1]}/clip.{ending}"
    with av.open(path, "w") as film:
        stream = film.add_stream("libx264", rate=10, options={"bf": "2", "b-adapt": "0", "g": "12"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(12):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 20 * number, np.uint8), format="rgb24")
            frame.pts = number
            film.mux(stream.encode(frame))
        film.mux(stream.encode())
    with av.open(path) as film:
        frames = list(film.decode(video=0))
    painted = [round(float(f.to_ndarray(format="rgb24").mean()) / 20) for f in frames]
    times = [f.pts for f in frames]
    print(ending, "painted in order:", painted == list(range(12)), "times rise:", times == sorted(times), end=" ")
    print(times if ending == "avi" else "")
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" "$folder" | sed 's/ *$//' | tee "$folder/out"
diff "$folder/out" - <<'SEEN'
mp4 painted in order: True times rise: True
avi painted in order: True times rise: False [1, 3, 4, 2, 6, 7, 5, 9, 10, 8, 12, 11]
SEEN
