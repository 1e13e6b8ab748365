# SPDX-License-Identifier: Apache-2.0
"""Streams that nobody reads any more, told by the chunks that `postprocessing` did not get.

Triton tells no step of an ensemble that its client left; it only starts no further steps. So the
chunks of such a stream never come to `postprocessing`. That is told apart from chunks that are
merely late, however late, by order: `postprocessing` has one queue, and a chunk is in it when
`send` returns. If a chunk that was begun after this one had been sent was decoded, this one never
will be. That needs other streams. For want of them it takes a long time instead, in which Triton
takes chunk after chunk, and `postprocessing`, asked again and again, has nothing to do.

Time is counted in rounds: before each, what was begun and sent is noted; then `postprocessing` is
asked. A stream in doubt is a live stream.
"""

from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple

MARGIN_ROUNDS, MARGIN_SECONDS = 2, 0.1  # between a chunk and the later one that overtook it
CONFIRMATIONS = 2  # rounds in a row that must show it
STILL_ROUNDS, STILL_SECONDS = 8, 1.0  # of everything at rest, without a later chunk
MOST_SECONDS = 0.2  # that one round counts for: in a longer one something may not have run


class Stream(NamedTuple):
    """A stream in flight as a round finds it: chunks whose sending began, and has returned."""

    key: int
    owner: Hashable  # the answer that it belongs to
    begun: int
    sent: int


class Mark(NamedTuple):
    """A number of chunks, and the round in which it was noted."""

    round: int
    seconds: float
    chunks: int


class Track:
    """What is known of one stream."""

    __slots__ = (
        "begun",
        "confirmed",
        "decoded",
        "owner",
        "seen",
        "sent",
        "still",
        "still_seconds",
        "unknown",
    )

    def __init__(self, owner: Hashable) -> None:
        self.owner = owner
        self.decoded = 0
        self.seen = 0  # chunks sent, as of the last round
        self.begun: Mark | None = None  # passed when a chunk beyond it is decoded
        self.sent: Mark | None = None  # the oldest note of a chunk that was not decoded
        self.confirmed = 0
        self.still = 0
        self.still_seconds = 0.0
        self.unknown = False  # its count began again: never judged

    def trust(self) -> None:
        """Begin anew: it lives."""
        self.sent = None
        self.restart()

    def restart(self) -> None:
        """Begin to doubt anew."""
        self.confirmed = self.still = 0
        self.still_seconds = 0.0


class AbandonedStreams:
    """Judges streams from round to round: `note`, ask, then `judge` or `silence`."""

    def __init__(self) -> None:
        self._tracks: dict[int, Track] = {}
        self._round = 0
        self._front: Mark | None = None  # the latest round of which a later chunk was decoded
        self._source: tuple[int, int] | None = None
        self._rested = 0.0  # until when rest was counted, or interrupted
        self._progress = False  # whether Triton took a chunk since the round before

    def __len__(self) -> int:
        return len(self._tracks)

    def note(self, now: float, streams: Iterable[Stream]) -> list[int]:
        """Begin a round with what is in flight; the keys to ask for, none before a first answer."""
        self._round += 1
        if self._source is None:
            return []
        self._progress = False
        tracks = {}
        for key, owner, begun, sent in streams:
            track = self._tracks.get(key)
            if track is None or track.owner != owner:
                track = Track(owner)
            tracks[key] = track
            self._progress |= sent > track.seen
            track.seen = sent
            if track.begun is None:
                track.begun = Mark(self._round, now, begun)
            if track.sent is None and sent > track.decoded:
                track.sent = Mark(self._round, now, sent)
        self._tracks = tracks
        return list(tracks)

    def silence(self) -> None:
        """No answer came: nothing is at rest, something does not run."""
        for track in self._tracks.values():
            track.restart()

    def judge(
        self, now: float, counts: Sequence[int], source: tuple[int, int], idle: bool
    ) -> set[Hashable]:
        """The owners of streams that nobody reads, from an answer to the keys of this round.

        `source` is what must not change for counts to be comparable; `idle` says that nothing was
        being decoded.
        """
        if source != self._source:
            self._source = source
            for track in self._tracks.values():
                track.unknown = True
        front = self._front  # as it was before: what this answer shows may have come in between
        alive = self._take(counts)
        rested = min(now - self._rested, MOST_SECONDS) if self._progress else 0.0
        if self._progress or alive or not idle:
            self._rested = now
        for track in self._tracks.values():
            if track.owner in alive:
                track.trust()
            self._doubt(track, front, None if alive or not idle else rested)
        return {track.owner for track in self._tracks.values() if self._dropped(track)}

    def _take(self, counts: Sequence[int]) -> set[Hashable]:
        """Note what was decoded; the owners of streams that got on."""
        alive = set()
        for track, count in zip(self._tracks.values(), counts, strict=True):
            if count < track.decoded:
                track.unknown = True
            if count <= track.decoded or track.unknown:
                continue
            alive.add(track.owner)
            track.decoded = count
            if track.begun is not None and count > track.begun.chunks:
                if self._front is None or track.begun.round > self._front.round:
                    self._front = track.begun
                track.begun = None
            if track.sent is not None and count >= track.sent.chunks:
                track.sent = None
        return alive

    def _doubt(self, track: Track, front: Mark | None, rested: float | None) -> None:
        """`rested`: seconds of rest that this round counts for; None: there is no rest."""
        if track.sent is None or track.unknown:
            track.restart()
            return
        overtaken = (
            front is not None
            and front.round >= track.sent.round + MARGIN_ROUNDS
            and front.seconds >= track.sent.seconds + MARGIN_SECONDS
        )
        track.confirmed = track.confirmed + 1 if overtaken else 0
        if rested is None:
            track.still, track.still_seconds = 0, 0.0
        elif rested:
            track.still += 1
            track.still_seconds += rested

    def _dropped(self, track: Track) -> bool:
        rested = track.still >= STILL_ROUNDS and track.still_seconds >= STILL_SECONDS
        return track.confirmed >= CONFIRMATIONS or rested
