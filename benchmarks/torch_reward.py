"""A step of reward training on best_of_N labels in PyTorch, as commonly written: the row `reward` of `peers.py`.

Each sample is read with its own copy of the query, with an attention mask. Its reward is a linear layer on the state of
its last real token. The optimizer is the default Adam. Run it by `peers.py`; alone it prints one line of JSON (see
`rows.py`).
"""

import numpy as np
import ragged
import torch
from rows import row_parser, time_phases
from torch.nn import functional
from torch_rows import LEARNING_RATE, inputs_of, new_config
from transformers import GPT2Model


class RewardStep:
    """A reward model with random weights, its optimizer and a batch of labels."""

    def __init__(self, flags):
        config = new_config(flags.model)
        torch.manual_seed(0)
        self.model, self.head = GPT2Model(config), torch.nn.Linear(config.n_embd, 1)
        parameters = [*self.model.parameters(), *self.head.parameters()]
        self.optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE, eps=1e-5)
        self.labels = ragged.labels(flags, flags.batch, config.vocab_size)
        self.padding = self.labels.padding
        query, *samples = self.labels.texts()
        query = ragged.padded_on_the_left(query, self.padding)
        rows = np.concatenate([np.concatenate([query, sample], axis=1) for sample in samples])
        self.tokens = torch.from_numpy(rows).long()
        self.best = torch.from_numpy(self.labels.arrays['best']).long()

    def rewards(self):
        """Return the rewards of the samples, [batch, N]."""
        inputs = inputs_of(self.tokens, self.padding)
        hidden = self.model(**inputs).last_hidden_state
        last = (inputs['attention_mask'] * torch.arange(self.tokens.shape[1])).argmax(1)
        rewards = self.head(hidden[torch.arange(len(last)), last])
        return rewards.reshape(-1, len(self.best)).t()

    def train(self):
        loss = functional.cross_entropy(self.rewards(), self.best)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def main() -> None:
    flags = row_parser(__doc__)
    flags.add_argument('--samples', type=int, default=4)
    flags = flags.parse_args()
    ragged.check(flags, of_labels=True)
    step = RewardStep(flags)
    time_phases(dict(train=step.train), flags, step.labels.checksum())


if __name__ == '__main__':
    main()
