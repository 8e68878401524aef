"""Batches of queries, each made by a thread while the batch before it is in use."""

import threading
from typing import Iterator, List, Optional

import numpy as np

from lm_human_preferences.datasets.query_stream import QueryStream
from lm_human_preferences.utils.progress import note


class QueryBatches(Iterator[np.ndarray]):
    """The next `count` batches of a stream's queries, int32 [size, query_length].

    When a batch is given, a thread begins to read and tokenize the next one. It ends with that batch. So there is no
    thread before the first batch is asked for, or after the last one is given. What the thread has to say is said when
    its batch is asked for, and its error is raised then. A batch that nobody asks for leaves no trace.

    Nobody else may use the stream before the last batch is given. `position` is the stream's position after the batches
    that were given: a new stream continues there.
    """

    def __init__(self, stream: QueryStream, size: int, count: int):
        self.position = stream.position
        self._stream = stream
        self._size = size
        self._left = count
        self._next: Optional[_Making] = None

    def __next__(self) -> np.ndarray:
        """Return the next batch. The errors are those of `QueryStream.next_batch`."""
        if not self._left:
            raise StopIteration
        self._left -= 1
        made = self._next or _Making(self._stream, self._size)
        queries = made.wait()
        self.position = made.position
        self._next = _Making(self._stream, self._size) if self._left else None
        return queries


class _Making(threading.Thread):
    """A thread that makes one batch. As a daemon it never keeps a process alive that ends."""

    def __init__(self, stream: QueryStream, size: int):
        super().__init__(name='queries', daemon=True)
        self._stream = stream
        self._size = size
        self._notes: List[str] = []
        self._queries: Optional[np.ndarray] = None
        self._error: Optional[BaseException] = None
        self.position = stream.position  # at the end of the batch, once it is made
        self.start()

    def run(self) -> None:
        try:
            self._queries = self._stream.next_batch(self._size, say=self._notes.append)
        except BaseException as error:
            self._error = error
        self.position = self._stream.position

    def wait(self) -> np.ndarray:
        """Wait for the batch, say what was noted, and return the batch or raise the error."""
        self.join()
        for line in self._notes:
            note(line)
        if self._error is not None:
            raise self._error
        return self._queries
