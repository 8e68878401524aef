"""Train the demo's embedded model, lm_human_preferences/language/embedded/demo, anew (about 35 minutes on 2 cores).

    python tools/make_demo_model.py TEXT WORK_DIR [--threads 1] [--embed]

TEXT holds lines in the style of film reviews, as `tools/make_demo_text.py` writes them. The model learns its vocabulary
and its English from these lines and the demo's training snippets, and then the style of the training snippets alone. It
is saved in half precision in WORK_DIR/model. The tool prints the SHA-256 of each of its files, and says which ones the
package has, too. With `--embed`, it then copies them into the package.

Several threads add numbers in an order that differs from run to run. With `--threads 1`, equal runs give equal files.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from typing import Dict, List

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

from lm_human_preferences.demo.data_set import grouped, lm_texts  # noqa: E402
from lm_human_preferences.demo.snippets import snippets  # noqa: E402
from lm_human_preferences.graph.tf_versions import new_session, tf  # noqa: E402
from lm_human_preferences.language.trained_models import find_model  # noqa: E402

EMBEDDED = os.path.join(ROOT, 'lm_human_preferences', 'language', 'embedded', 'demo')

STAGES = {
    'text': ['--epochs=2', '--lr=1.5e-3', '--dropout=0', '--run.dtype=bfloat16'],
    'snippets': ['--epochs=4', '--lr=3e-4', '--dropout=0.1'],
}


def write_data_set(text: str, folder: str) -> None:
    """Write the data set of the first stage: the lines of `text` and the training snippets; the valid snippets."""
    os.makedirs(folder, exist_ok=True)
    with open(text, encoding='utf-8') as f:
        lines = f.read().splitlines()
    texts = {'train': grouped(lines + [s.text for s in snippets('train')]), 'valid': lm_texts('valid')}
    for split in texts:
        with open(os.path.join(folder, f'{split}.jsonl'), 'w', encoding='utf-8') as f:
            f.writelines(json.dumps(text) + '\n' for text in texts[split])


def train(work: str, name: str, flags: List[str]) -> None:
    """Run a stage of training. One that is finished is not run again."""
    command = [sys.executable, os.path.join(ROOT, 'launch.py'), 'train_lm', 'demo', name, f'--save_dir={work}']
    command += [*STAGES[name], *flags]
    print(' '.join(command), flush=True)
    subprocess.run(command, check=True)


def save_halves(source: str, folder: str) -> None:
    """Save the model of a run in half precision. `folder` must not be there."""
    arrays: Dict[str, np.ndarray] = find_model(source).arrays()
    os.makedirs(folder)
    for name in ('hparams.json', 'encoding', 'encoder.json', 'vocab.bpe'):
        shutil.copy(os.path.join(source, 'model', name), folder)
    with tf.Graph().as_default() as graph, new_session(graph) as session:
        halves = {name: tf.Variable(value.astype(np.float16), name=name) for name, value in arrays.items()}
        session.run(tf.global_variables_initializer())
        saver = tf.train.Saver(halves, save_relative_paths=True)
        saver.save(session, os.path.join(folder, 'model.ckpt'), write_meta_graph=False)


def digests(folder: str) -> Dict[str, str]:
    """Return the SHA-256 of each file of a folder, by name."""
    found = {}
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), 'rb') as f:
            found[name] = hashlib.sha256(f.read()).hexdigest()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('text', help='the file of lines that make_demo_text.py wrote')
    parser.add_argument('work', help='folder for the runs of the two stages and for the model')
    parser.add_argument('--threads', type=int, help='CPU threads; with 1, equal runs give equal files')
    parser.add_argument('--embed', action='store_true', help="replace the package's model by the new one")
    given = parser.parse_args()
    data, model = (os.path.join(given.work, name) for name in ('data', 'model'))
    if os.path.exists(model):
        parser.error(f'{model} is there already: give another folder, or remove it')
    threads = [] if given.threads is None else [f'--threads={given.threads}']
    write_data_set(given.text, data)
    train(given.work, 'text', [f'--dataset=jsonl:{data}', *threads])
    train(given.work, 'snippets', [f'--initial_model={os.path.join(given.work, "text")}', *threads])
    save_halves(os.path.join(given.work, 'snippets'), model)
    embedded = digests(EMBEDDED)
    for name, digest in digests(model).items():
        print(f'{digest}  {name}{"  (as in the package)" if digest == embedded.get(name) else ""}')
        if given.embed:
            shutil.copy(os.path.join(model, name), EMBEDDED)


if __name__ == '__main__':
    main()
