"""Makes this folder's model: a tiny random GPT-2 as `transformers` saves it, with the logits that it computes.

python tests/huggingface/make.py FOLDER       # anew, in an environment with torch and transformers
python tests/huggingface/make.py FOLDER FILE  # writes the logits of the model in FOLDER to FILE alone
"""

import json
import os
import sys

import numpy as np
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

TOKENS = [[1, 256, 5, 9, 9, 100, 31, 2, 7], [80, 81, 82, 83, 84, 85, 86, 87, 88]]


def main() -> None:
    folder = sys.argv[1]
    if len(sys.argv) == 2:
        torch.manual_seed(0)
        config = GPT2Config(vocab_size=257, n_positions=16, n_embd=12, n_layer=2, n_head=3, initializer_range=0.3)
        config.bos_token_id = config.eos_token_id = 256
        model = GPT2LMHeadModel(config)
        with torch.no_grad():
            for parameter in model.parameters():  # biases and gains too
                parameter.add_(0.1 * torch.randn_like(parameter))
        model.save_pretrained(folder)
        write_vocabulary(folder)
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info  # every tensor has its place, and every place its tensor
    with torch.no_grad():
        logits = model.eval()(torch.tensor(TOKENS)).logits.numpy()
    np.save(sys.argv[2] if len(sys.argv) > 2 else os.path.join(folder, 'logits.npy'), logits)


def write_vocabulary(folder: str) -> None:
    """The 256 bytes without merges, and the end of text."""
    printable = [b for first, last in ('!~', '¡¬', '®ÿ') for b in range(ord(first), ord(last) + 1)]
    symbols = [chr(b) for b in printable] + [chr(256 + i) for i in range(256 - len(printable))]
    with open(os.path.join(folder, 'vocab.json'), 'w', encoding='utf-8') as f:
        json.dump({symbol: token for token, symbol in enumerate([*symbols, '<|endoftext|>'])}, f, ensure_ascii=False)
    with open(os.path.join(folder, 'merges.txt'), 'w', encoding='utf-8') as f:
        f.write('#version: 0.2\n')


if __name__ == '__main__':
    main()
