"""Samples about one clip share its decode and its encoder pass, and nothing but the cost changes."""

import numpy as np
import torch

from vtp.data import BadFiles, EvalLoader, Pipeline, TrainLoader
from vtp.data.train_loader import _grouped
from vtp.types import AudioSpec, Clip, MediaRef, Sample, TextSpec, VideoSpec

VIDEO, AUDIO = VideoSpec(frames=4, size=16), AudioSpec(sample_rate=100, seconds=0.5)


def tokenize(texts):
    return [[1, *(5 + len(word) for word in text.split()), 2] for text in texts]


TEXT = TextSpec(
    tokenize, pad_id=0, mask_id=3, cls_id=1, sep_id=2, special_ids=(0, 1, 2, 3), vocab_size=30, max_length=9
)


class CountingReader:
    """Noise that depends on the file and the times; counts how often a file is opened."""

    def __init__(self):
        self.opened = 0

    def read(self, ref, wanted):
        from vtp.media import VideoInfo

        self.opened += 1
        noise = np.random.default_rng(int(ref.path[1:]))
        info = VideoInfo(0, "noise", 20, 20, 10.0, np.arange(20) / 10, 2.0)
        chosen = np.asarray(wanted.times(info))
        frames = (chosen[:, None, None, None] * 50 % 256 + noise.integers(0, 50, (1, 20, 20, 3))).astype(np.uint8)
        return Clip(frames, chosen, noise.normal(size=(1, 80)).astype(np.float32), 100)


def table(clips=6, questions=5):
    return [
        Sample(f"{c}-{q}", MediaRef(f"v{c}"), MediaRef(f"v{c}"), ("a " * (q + 1),), {"answer": q})
        for c in range(clips)
        for q in range(questions)
    ]


def pipeline(reader, train):
    specs = {"video": VIDEO, "audio": AUDIO, "text": TEXT}
    return Pipeline(specs, train=train, seed=3, labels=lambda s: dict(s.labels), reader=reader)


def test_grouping_keeps_every_sample_and_makes_runs_of_one_clip():
    clips = np.repeat(np.arange(7), 5)
    order = np.random.default_rng(0).permutation(35)
    grouped = order[_grouped(clips[order], 3)]
    assert sorted(grouped) == list(range(35))
    runs = np.split(clips[grouped], np.flatnonzero(np.diff(clips[grouped])) + 1)
    assert {len(run) for run in runs} <= {2, 3, 5}  # 5 when both runs of a clip happen to meet
    assert _grouped(clips[order], 1).tolist() == list(range(35))


def test_a_clip_is_decoded_once_for_its_group():
    reader = CountingReader()
    loader = TrainLoader(table(), pipeline(reader, True), global_batch=10, seed=1, group=5)
    batch = next(iter(loader))
    assert reader.opened == 2 and batch.media_rows == [0] * 5 + [1] * 5
    assert batch.inputs["video"]["frames"].shape[0] == batch.inputs["audio"]["waveform"].shape[0] == 2
    assert len(batch) == batch.inputs["text"]["token_ids"].shape[0] == len(batch.present["video"]) == 10
    for row, name in zip(batch.media_rows, batch.ids, strict=True):
        assert batch.ids[batch.media_rows.index(row)].split("-")[0] == name.split("-")[0]


def test_micro_batches_cut_shared_clips_right():
    loader = TrainLoader(table(), pipeline(CountingReader(), True), global_batch=10, seed=1, group=5)
    batch = next(iter(loader))
    whole = batch.inputs["video"]["frames"][batch.media_rows]
    for start, stop in ((0, 3), (3, 8), (8, 10)):
        cut = batch.rows(start, stop)
        assert torch.equal(cut.inputs["video"]["frames"][cut.media_rows], whole[start:stop])
        assert torch.equal(cut.inputs["text"]["token_ids"], batch.inputs["text"]["token_ids"][start:stop])


def test_results_do_not_depend_on_workers_or_ranks():
    def stream(workers, world):
        parts = []
        for rank in range(world):
            loader = TrainLoader(
                table(), pipeline(CountingReader(), True), global_batch=10, rank=rank, world_size=world,
                workers=workers, seed=1, group=5,
            )  # fmt: skip
            batches = [batch for _, batch in zip(range(4), loader, strict=False)]
            parts.append([(b.ids, b.inputs["video"]["frames"][b.media_rows or ...]) for b in batches])
        return [(sum((p[i][0] for p in parts), []), torch.cat([p[i][1] for p in parts])) for i in range(4)]

    one = stream(0, 1)
    for other in (stream(2, 1), stream(0, 2)):
        for (ids, frames), (other_ids, other_frames) in zip(one, other, strict=True):
            assert ids == other_ids and torch.equal(frames, other_frames)


def test_a_process_that_ends_with_a_loader_open_does_not_hang():
    """Workers ignore SIGTERM, and a traceback keeps the loader alive: the interpreter would join them for ever."""
    import subprocess
    import sys

    code = (
        "from vtp.data.workers import Delivery, deliver\n"
        "stream = deliver(iter(range(10**6)), lambda place: Delivery(), workers=2)\n"
        "next(stream)\n"
        "raise SystemExit(7)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 7


def test_evaluation_shares_consecutive_samples_of_one_clip():
    reader = CountingReader()
    loader = EvalLoader(table(3, 4), pipeline(reader, False), batch_size=6, bad=BadFiles())
    batches = list(loader)
    assert [batch.media_rows for batch in batches] == [[0, 0, 0, 0, 1, 1], [0, 0, 1, 1, 1, 1]]
    assert reader.opened == 3


def test_the_encoder_runs_once_per_clip_and_gives_the_same_as_one_row_each():
    from vtp.model.model import VTPModel
    from vtp.types import Tokens

    class Encoder(torch.nn.Module):
        width, spec, rows = 3, VIDEO, 0

        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(4, 3)

        def forward(self, video):
            Encoder.rows = len(video)
            x = self.linear(video.mean((2, 3, 4)))[:, None]
            return Tokens(x, torch.ones(x.shape[:2], dtype=torch.bool))

    loader = TrainLoader(table(), pipeline(CountingReader(), True), global_batch=10, seed=1, group=5)
    batch = next(iter(loader))
    model = VTPModel({"video": Encoder()})
    shared = model(batch, run=lambda ctx: {"x": ctx.pooled("video")})["x"]
    assert Encoder.rows == 2
    full = model(batch, run=lambda ctx: {"x": ctx.inputs("video")["video"], "y": ctx.pooled("video")})
    assert Encoder.rows == 10 and len(full["x"]) == 10
    torch.testing.assert_close(full["y"], shared)


def test_a_silent_clip_whose_picture_is_withheld_is_not_a_bad_file(tmp_path):
    """Scoring without the picture must not spoil the file for what comes after."""
    from vtp.media import MediaError

    class Silent(CountingReader):
        def read(self, ref, wanted):
            if not wanted.video:
                raise MediaError("no audio stream", "no_audio")
            return super().read(ref, wanted)

    ledger = BadFiles(tmp_path / "bad_samples.jsonl")
    specs = {"video": VIDEO, "audio": AUDIO, "text": TEXT}
    blind = Pipeline(specs, train=False, reader=Silent(), drop=("video",)).with_bad(ledger)
    example = blind(table()[0], 0, 0)
    assert example.frames is None and example.waveform is None and example.token_ids
    assert example.missing == {"audio": "no audio stream"} and ledger.find(table()[0].video) is None


def test_more_workers_than_cores_are_no_warning(recwarn):
    """torch advises against them twice; ours wait for a decoder process most of the time."""
    from vtp.data.workers import Delivery, deliver
    from vtp.machine import cores

    assert len(list(deliver(iter(range(3)), lambda place: Delivery(), workers=cores() + 1))) == 3
    assert not [warning for warning in recwarn if "worker" in str(warning.message)]
