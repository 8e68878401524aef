"""The PPO step in PyTorch with transformers, three times: the rows `common`, `tuned` and `bfloat16` of `peers.py`.

common: as it is commonly written, with `generate`, forward passes with logits at every position, and default Adam.
tuned: logits only at the response, values and logprobs kept from sampling, oneDNN for linear layers, fused Adam.
bfloat16: like tuned, with matrix products in bfloat16 by autocast.

Padding is handled as usual: queries are padded on the left, responses that are scored on the right, and the models get
an attention mask and position ids that count its ones. They compute on padding, too.

Run it by `peers.py`; alone it prints one line of JSON (see `rows.py`).
"""

import contextlib

import ragged
import torch
from rows import SIZES, row_parser, time_phases
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Model
from transformers.pytorch_utils import Conv1D

KL_COEF, CLIP, VALUE_COEF, LAMBDA, LEARNING_RATE = 0.1, 0.2, 0.1, 0.95, 1e-6


class OneDnnLinear(torch.autograd.Function):
    """x · weight + bias, forward and backward by oneDNN, independent of the BLAS that PyTorch was built with."""

    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        return torch.ops.mkldnn._linear_pointwise(x, weight.t(), bias, 'none', [], '')

    @staticmethod
    def backward(ctx, slope):
        x, weight = ctx.saved_tensors
        rows, slopes = x.reshape(-1, x.shape[-1]), slope.reshape(-1, slope.shape[-1])
        product = torch.ops.mkldnn._linear_pointwise
        to_input = product(slope, weight, None, 'none', [], '')
        to_weight = product(rows.t(), slopes.t(), None, 'none', [], '')
        return to_input, to_weight, slopes.sum(0)


def new_config(model):
    """Return the configuration of a GPT-2 without dropout by its name in `rows.SIZES`."""
    size = SIZES[model]
    vocabulary = dict(vocab_size=size['n_vocab'], n_positions=size['n_ctx']) if 'n_vocab' in size else {}
    width = {name: size[name] for name in ('n_embd', 'n_head', 'n_layer')}
    return GPT2Config(**vocabulary, **width, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)


def inputs_of(tokens, padding):
    """Return what a model gets for tokens [batch, length]: ids, attention mask and position ids."""
    mask = tokens != padding
    positions = mask.long().cumsum(1) - mask.long()
    return dict(input_ids=tokens.masked_fill(~mask, 0), attention_mask=mask.long(), position_ids=positions)


class PpoStep:
    """The phases of a step: policy with value head, reference, reward model and optimizer, all with random weights."""

    def __init__(self, flags):
        self.flags, self.common, self.response = flags, flags.row == 'common', flags.response
        config = new_config(flags.model)
        torch.manual_seed(0)
        self.policy, self.reference = GPT2LMHeadModel(config), GPT2LMHeadModel(config).requires_grad_(False)
        self.reward = GPT2Model(config).requires_grad_(False)
        self.value_head, self.reward_head = (torch.nn.Linear(config.n_embd, 1) for _ in range(2))
        parameters = list(self.policy.parameters()) + list(self.value_head.parameters())
        fused = {} if self.common else dict(fused=True)
        self.optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE, eps=1e-5, **fused)
        self.batch = ragged.episodes(flags, flags.batch, config.vocab_size)
        self.padding = self.batch.padding
        queries = ragged.padded_on_the_left(self.batch.queries, self.padding)
        self.queries = torch.from_numpy(queries).long()
        self.scored_lengths = torch.from_numpy(self.batch.scored_lengths)

    def precision(self):
        return torch.autocast('cpu', torch.bfloat16) if self.flags.row == 'bfloat16' else contextlib.nullcontext()

    def look(self, model, tokens):
        """Return log-probabilities, entropies and values of the response tokens, each [batch, response]."""
        with self.precision():
            hidden = model.transformer(**inputs_of(tokens, self.padding)).last_hidden_state
            if not self.common:
                hidden = hidden[:, -self.response - 1 : -1]
            logits = model.lm_head(hidden)
        if self.common:
            hidden, logits = hidden[:, -self.response - 1 : -1], logits[:, -self.response - 1 : -1]
        logprobs = functional.log_softmax(logits.float(), -1)
        chosen = logprobs.gather(-1, tokens[:, -self.response :, None])[..., 0]
        return chosen, -(logprobs.exp() * logprobs).sum(-1), self.value_head(hidden.float())[..., 0]

    @torch.no_grad()
    def sample(self):
        if self.common:
            self.tokens = torch.cat([self.queries, self.generate()], 1)
            self.logprobs, _, self.values = self.look(self.policy, self.tokens)
            return
        tokens, cache, inputs, logprobs, values = [self.queries], None, inputs_of(self.queries, self.padding), [], []
        mask = inputs['attention_mask']
        for _ in range(self.response):
            with self.precision():
                states = self.policy.transformer(**inputs, past_key_values=cache, use_cache=True)
                hidden = states.last_hidden_state[:, -1]
                logits = self.policy.lm_head(hidden)
            distribution = functional.log_softmax(logits.float(), -1)
            token, cache = torch.multinomial(distribution.exp(), 1), states.past_key_values
            positions, mask = mask.sum(1, keepdim=True), torch.cat([mask, torch.ones_like(token)], 1)
            inputs = dict(input_ids=token, attention_mask=mask, position_ids=positions)
            tokens.append(token)
            logprobs.append(distribution.gather(-1, token))
            values.append(self.value_head(hidden.float()))
        self.tokens = torch.cat(tokens, 1)
        self.logprobs, self.values = torch.cat(logprobs, 1), torch.cat(values, 1)

    def generate(self):
        """Return responses [batch, response] by transformers."""
        inputs = inputs_of(self.queries, self.padding)
        lengths = dict(max_new_tokens=self.response, min_new_tokens=self.response)
        tokens = self.policy.generate(
            inputs['input_ids'],
            attention_mask=inputs['attention_mask'],
            do_sample=True,
            top_k=0,
            pad_token_id=self.policy.config.vocab_size - 1,
            **lengths,
        )
        return tokens[:, -self.response :]

    @torch.no_grad()
    def reference_(self):
        self.ref_logprobs = self.look(self.reference, self.tokens)[0]

    @torch.no_grad()
    def score(self):
        ended = torch.arange(self.response) >= self.scored_lengths[:, None]
        truncated = self.tokens[:, -self.response :].masked_fill(ended, self.padding)
        with self.precision():
            inputs = inputs_of(torch.cat([self.queries, truncated], 1), self.padding)
            hidden = self.reward(**inputs).last_hidden_state
        last = self.flags.query + self.scored_lengths - 1
        self.scores = self.reward_head(hidden[torch.arange(len(last)), last].float())[:, 0]

    def targets(self):
        rewards = -KL_COEF * (self.logprobs - self.ref_logprobs)
        rewards[:, -1] += self.scores
        rewards = (rewards - rewards.mean()) / (rewards.std() + 1e-8) + rewards.mean()
        advantages, last = torch.zeros_like(rewards), 0.0
        for t in reversed(range(self.response)):
            following = self.values[:, t + 1] if t + 1 < self.response else 0.0
            last = rewards[:, t] + following - self.values[:, t] + LAMBDA * last
            advantages[:, t] = last
        returns = advantages + self.values
        return (advantages - advantages.mean()) / (advantages.std() + 1e-8), returns

    def train(self):
        advantages, returns = (target.detach() for target in self.targets())
        for _ in range(self.flags.epochs):
            logprobs, _, values = self.look(self.policy, self.tokens)
            ratio = torch.exp(logprobs - self.logprobs)
            clipped = self.values + (values - self.values).clamp(-CLIP, CLIP)
            value_loss = 0.5 * torch.max((values - returns) ** 2, (clipped - returns) ** 2).mean()
            gains = torch.max(-advantages * ratio, -advantages * ratio.clamp(1 - CLIP, 1 + CLIP))
            loss = gains.mean() + VALUE_COEF * value_loss
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()


def main() -> None:
    flags = row_parser(__doc__)
    flags.add_argument('--row', choices=['common', 'tuned', 'bfloat16'], default='tuned')
    flags = flags.parse_args()
    ragged.check(flags)
    if flags.row == 'tuned':
        Conv1D.forward = lambda layer, x: OneDnnLinear.apply(x, layer.weight, layer.bias)
    step = PpoStep(flags)
    phases = dict(sample=step.sample, reference=step.reference_, score=step.score, train=step.train)
    time_phases(phases, flags, step.batch.checksum())


if __name__ == '__main__':
    main()
