"""A policy that all ranks run together, for the samples of questions that only the first rank asks."""

from typing import Dict, Optional

import numpy as np

from lm_human_preferences.language.trained_models import TrainedModel
from lm_human_preferences.method.inference import Responder
from lm_human_preferences.method.lm_tasks import Task
from lm_human_preferences.mpi.ranks import Ranks


class SharedResponder:
    """A policy that responds to the first rank's queries. Leaving it as a context there ends the others' help.

    Each rank takes a share of the batches, and loads the model when there are queries. Between two calls, the other
    ranks sleep, because the first one may wait long for people.
    """

    def __init__(self, policy: TrainedModel, task: Task, batch: int, ranks: Ranks):
        """`batch` is the number of rows that a rank runs at a time."""
        self._model = (policy, task, batch, ranks)
        self._ranks = ranks
        self._responder: Optional[Responder] = None
        self.num_ranks = ranks.size

    def __enter__(self) -> 'SharedResponder':
        return self

    def __exit__(self, kind, *_) -> None:
        if kind is None:  # otherwise the first rank fails, and ends the others
            self._meet({})
        self._close()

    def truncated(self, queries: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
        """Return truncated responses [n, response_length], see `Responder.respond`. Only the first rank calls this."""
        return self._respond(self._meet(dict(queries=queries, uniforms=uniforms)))

    def help(self) -> None:
        """Respond with the first rank until it needs no more. The other ranks call this."""
        for arrays in iter(lambda: self._meet({}), {}):
            self._respond(arrays)
        self._close()

    def _meet(self, arrays: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
        """Wait for all ranks, and return the first one's arrays; {} from it means the end."""
        self._ranks.wait_for_all(asleep=True)
        return self._ranks.arrays_of_first(lambda: arrays)

    def _respond(self, arrays):
        if self._responder is None:
            self._responder = Responder(*self._model, share_rows=True)
        return self._responder.truncated(**arrays)

    def _close(self):
        if self._responder is not None:
            self._responder.close()
