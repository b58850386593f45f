"""Time in streams whose clock jumps: recordings that were cut or joined, broadcasts after a break.

The rule is that of the ffmpeg program: in formats with discontinuities a stream's time goes on where it was when it
jumps by more than ten seconds, or back; all streams are moved by as much, so sound and picture stay together.
"""

from __future__ import annotations

from typing import Any

__all__ = ["Clock", "may_jump"]

_TS_DISCONT = 0x0200  # FFmpeg's flag of such formats: transport and program streams, Ogg
_RESTARTS = ("flv", "live_flv")  # without the flag, but a live stream that is recorded again begins at 0
_JUMP_S = 10.0
_BACK_S = 0.1  # sound may overlap by less than this


def may_jump(container: Any) -> bool:
    """Whether the clock of an open container may jump."""
    return bool(int(container.format.flags) & _TS_DISCONT) or container.format.name in _RESTARTS


class Clock:
    """Follows the packets of a file in their order.

    Attributes:
        shift: seconds that are to be added to the times of the packet that was seen last.
        jumped: whether it has ever changed.
    """

    def __init__(self) -> None:
        self.shift = 0.0
        self.jumped = False
        self._last: dict[int, tuple[float, float]] = {}  # stream -> moment of its last packet, and how long it lasts
        self._newest: float | None = None

    def see(self, stream: int, moment: float | None, seconds: float, strict: bool) -> float:
        """The shift of the next packet.

        Args:
            stream: its stream.
            moment: its decoding time by the file's clock, in seconds; None if it has none.
            seconds: how long it lasts; 0 if that is not known.
            strict: whether a time that goes back at all is a jump, as for pictures, which never overlap.
        """
        if moment is None:
            return self.shift
        now = moment + self.shift
        if stream in self._last:
            before, lasts = self._last[stream]
            jump = now - before - lasts
            if abs(jump) > _JUMP_S or now < before - (1e-6 if strict else _BACK_S):
                self._move(jump)
                now -= jump
            seconds = seconds or max(now - before, 0.0)
        elif self._newest is not None and now - self._newest > _JUMP_S:
            # It begins far ahead. Far behind is no jump: where a lone picture ends is seen at the end of the file.
            self._move(now - self._newest)
            now = self._newest
        self._last[stream] = now, seconds
        self._newest = now if self._newest is None else max(now, self._newest)
        return self.shift

    def _move(self, jump: float) -> None:
        self.shift -= jump
        self.jumped = True
