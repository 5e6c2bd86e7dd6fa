"""Batches: the examples of batch *t* are a pure function of a seed and of *t*.

The state of the data is therefore one integer. Random numbers come from Philox, a counter-based generator, keyed by
their purpose: no state is carried from one batch to the next.
"""

import bisect
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt

from pocketbert.features import IGNORED, Features, pad

Indices = npt.NDArray[np.int64]


def random_words(seed: int, purpose: str, index: int, count: int, start: int = 0) -> npt.NDArray[np.uint64]:
    """Return [count] random 64-bit words, a pure function of (`seed`, `purpose`, `index`); purposes are independent.

    They are the words from number `start`, a multiple of 4, of an endless sequence, which can be drawn in parts.
    """
    digest = hashlib.blake2b(f"{seed}/{purpose}/{index}".encode(), digest_size=16).digest()
    # The counter counts blocks of four words.
    bits = np.random.Philox(key=np.frombuffer(digest, dtype="<u8").astype(np.uint64), counter=start // 4)
    # The raw stream, not Generator: only the former is stable across NumPy releases.
    return np.asarray(bits.random_raw(count), dtype=np.uint64)


def random_order(seed: int, purpose: str, index: int, count: int) -> Indices:
    """Return [count] a permutation, a pure function of (`seed`, `purpose`, `index`)."""
    return np.argsort(random_words(seed, purpose, index, count), kind="stable")


class BatchOrder:
    """The examples of every batch: each example once per epoch, examples of similar length together.

    An epoch is a new permutation, cut into windows of `window` batches. Inside a window the examples are sorted by
    length and cut into batches; then the batches of the whole epoch are shuffled. No example is dropped: the last batch
    of a permutation may be smaller than the others.

    Args:
        lengths: [examples] the number of tokens per example.
        batch_size: examples per batch; or
        tokens: maximum tokens per batch, with padding. A longer example is a batch of its own.
        seed: seed of the permutations.
        window: number of batches that are sorted together: more mean less padding, and less randomness.
    """

    def __init__(
        self,
        lengths: Sequence[int] | npt.NDArray[np.integer],
        *,
        batch_size: int | None = None,
        tokens: int | None = None,
        seed: int,
        window: int = 64,
    ) -> None:
        self.lengths = np.asarray(lengths, dtype=np.int64)
        self.seed = seed
        if (batch_size is None) == (tokens is None):
            raise ValueError("give either batch_size or tokens")
        if len(self.lengths) == 0 or min(batch_size or tokens or 0, window) < 1:
            raise ValueError("there must be examples, and batch_size, tokens and window must be at least 1")
        self._batch_size, self._tokens = batch_size, tokens
        mean = float(self.lengths.mean())
        self._window = window * (batch_size or max(1, int((tokens or 0) / max(mean, 1.0))))
        self._ends = [0]  # the number of batches before epoch e
        self._cached: tuple[int, list[Indices]] = (-1, [])

    def __getitem__(self, t: int) -> Indices:
        """Return [batch] the examples of batch `t` = 0, 1, 2, …, shorter ones first."""
        if t < 0:
            raise IndexError(f"there is no batch {t}")
        if self._batch_size is not None:
            epoch, index = divmod(t, math.ceil(len(self.lengths) / self._batch_size))
            return self._epoch(epoch)[index]
        while self._ends[-1] <= t:
            self._ends.append(self._ends[-1] + len(self._epoch(len(self._ends) - 1)))
        epoch = bisect.bisect_right(self._ends, t) - 1
        return self._epoch(epoch)[t - self._ends[epoch]]

    def batches_before(self, epoch: int) -> int:
        """Return the number of batches of the first `epoch` epochs."""
        if self._batch_size is not None:
            return epoch * math.ceil(len(self.lengths) / self._batch_size)
        while len(self._ends) <= epoch:
            self._ends.append(self._ends[-1] + len(self._epoch(len(self._ends) - 1)))
        return self._ends[epoch]

    def _epoch(self, epoch: int) -> list[Indices]:
        if self._cached[0] != epoch:
            order = random_order(self.seed, "examples", epoch, len(self.lengths))
            batches: list[Indices] = []
            for start in range(0, len(order), self._window):
                window = order[start : start + self._window]
                window = window[np.argsort(self.lengths[window], kind="stable")]
                batches += np.split(window, self._cuts(self.lengths[window]))
            shuffled = random_order(self.seed, "batches", epoch, len(batches))
            self._cached = (epoch, [batches[i] for i in shuffled])
        return self._cached[1]

    def _cuts(self, lengths: Indices) -> list[int]:
        """Return the boundaries of batches in a window with increasing lengths."""
        if self._batch_size is not None:
            return list(range(self._batch_size, len(lengths), self._batch_size))
        cuts, start = [], 0
        for i, length in enumerate(lengths.tolist()):
            if i > start and (i + 1 - start) * length > (self._tokens or 0):
                cuts.append(i)
                start = i
        return cuts


class Batches(Protocol):
    """Training batches: step → micro-batches."""

    def __call__(self, step: int) -> list[dict[str, npt.NDArray[Any]]]:
        """Return the micro-batches of batch `step`."""
        ...

    def batches_before(self, epoch: int) -> int:
        """Return the number of batches of the first `epoch` epochs."""
        ...


class LabelledBatches:
    """Batches of encoded examples with their targets: step → micro-batches.

    Args:
        features: the encoded examples; with choices, the same number of inputs per example.
        targets: by name: [examples] class ids, numbers or positions; [examples, labels]; or ids per token.
        order: the examples of every batch.
        parts: number of micro-batches per batch.
        pad_token_id: pads the shorter examples of a micro-batch.
    """

    def __init__(
        self,
        features: Sequence[Features] | Sequence[Sequence[Features]],
        targets: Mapping[str, npt.NDArray[np.generic] | Sequence[npt.NDArray[np.int64]]],
        order: BatchOrder,
        *,
        parts: int = 1,
        pad_token_id: int = 0,
    ) -> None:
        self.features, self.targets, self.order = features, targets, order
        self.parts, self.pad_token_id = parts, pad_token_id

    def __call__(self, step: int) -> list[dict[str, npt.NDArray[Any]]]:
        """Return the micro-batches of batch `step`: the arrays of `pad` [micro-batch, longest] and the targets.

        With choices the arrays are [micro-batch, choices, longest]; targets of tokens are padded with `IGNORED`.
        """
        return [self.collate(part) for part in self.divide(step)]

    def batches_before(self, epoch: int) -> int:
        """Return the number of batches of the first `epoch` epochs."""
        return self.order.batches_before(epoch)

    def divide(self, step: int) -> list[Indices]:
        """Return the examples of each micro-batch."""
        return [part for part in np.array_split(self.order[step], self.parts) if len(part)]

    def collate(self, part: Indices) -> dict[str, npt.NDArray[Any]]:
        """Return the micro-batch of these examples."""
        chosen = [self.features[i] for i in part]
        flat = [inputs for example in chosen for inputs in ([example] if isinstance(example, Features) else example)]
        batch: dict[str, npt.NDArray[Any]] = dict(pad(flat, self.pad_token_id))
        if not isinstance(chosen[0], Features):
            batch = {name: array.reshape(len(part), len(chosen[0]), -1) for name, array in batch.items()}
        for name, values in self.targets.items():
            if isinstance(values, np.ndarray):
                batch[name] = values[part]
                continue
            padded = np.full(batch["input_ids"].shape, IGNORED, dtype=np.int64)
            for row, i in enumerate(part):
                padded[row, : len(values[i])] = values[i]
            batch[name] = padded
        return batch


BatchT = TypeVar("BatchT")


class Ahead(Generic[BatchT]):
    """Prepares the next batch in a thread while the current batch is computed.

    Args:
        batches: step → batch, a pure function that threads may call.
    """

    def __init__(self, batches: Callable[[int], BatchT]) -> None:
        self.batches = batches
        self._next: tuple[int, Future[BatchT]] | None = None
        self._thread = ThreadPoolExecutor(1, "pocketbert-batches")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    def __call__(self, step: int) -> BatchT:
        """Return batch `step`."""
        waiting, self._next = self._next, None
        batch = waiting[1].result() if waiting is not None and waiting[0] == step else self.batches(step)
        self._next = (step + 1, self._thread.submit(self.batches, step + 1))
        return batch
