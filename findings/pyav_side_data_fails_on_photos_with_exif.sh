#!/usr/bin/env bash
# av 18.1.0 (with the FFmpeg 8 of its wheel), Pillow 13.0.0, Python 3.11: a JPEG with an Exif orientation, as every
# phone writes it, is decoded without a word and `frame.rotation` tells the turn, but the attribute `frame.side_data`
# cannot even be read: its container asks every entry for its type, FFmpeg hands the Exif block over as type 31, and
# PyAV's enumeration ends before it. So code that looks for a display matrix among the side data works on every video
# and fails on photos: catch the ValueError there, and take the turn from `frame.rotation`.
# Seen: "plain: 0 side data" / "exif: rotation -90, side data: ValueError 31 is not a valid Type".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check av==18.1.0 pillow==13.0.0 numpy==2.3.5
cat >"$folder/ask.py" <<'PYTHON'
import sys

import av
from PIL import Image

folder = sys.argv[1]
exif = Image.Exif()
exif[0x0112] = 6  # orientation: turn by 90 degrees
picture = Image.new("RGB", (64, 48), "red")
picture.save(f"{folder}/plain.jpg")
picture.save(f"{folder}/exif.jpg", exif=exif)
with av.open(f"{folder}/plain.jpg") as plain:
    print(f"plain: {len(next(plain.decode(video=0)).side_data)} side data")
with av.open(f"{folder}/exif.jpg") as turned:
    frame = next(turned.decode(video=0))
try:
    found = f"{len(frame.side_data)}"
except Exception as error:
    found = f"{type(error).__name__} {error}"
print(f"exif: rotation {frame.rotation}, side data: {found}")
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" "$folder" | tee "$folder/out"
diff "$folder/out" - <<'SEEN'
plain: 0 side data
exif: rotation -90, side data: ValueError 31 is not a valid Type
SEEN
