"""Compare our PPO step with the same step in PyTorch and with a plain one in TensorFlow, and our reward step, too.

    python benchmarks/peers.py --torch-python PYTHON     # PYTHON has torch==2.13.0 and transformers
    python benchmarks/peers.py --torch-python PYTHON --real 0.75     # of the tokens are no padding (see ragged.py)
    python benchmarks/peers.py --torch-python PYTHON --batch 64 --phases sample --rows common tuned
    python benchmarks/peers.py --rows plain              # needs no PyTorch

A pair is one run of our step and, right after it, one of theirs, on the same batch. Columns: `row` (which step of
theirs), `phase`, `real` (the share of real tokens in what it reads), the median seconds of theirs and of ours, their
median ratio, the range of the ratio over all pairs, and the median ratio of `processor` seconds. The row `reward` is a
step on labels `best_of_4`.

On a machine that does other work, too, only the ratio of processor seconds says something, and only with one thread:
set OMP_NUM_THREADS=1 and LM_HUMAN_PREFERENCES_THREADS=1. More threads wait for each other, busily.

The rows are implemented in `torch_rows.py`, `torch_reward.py` and `plain_row.py`. The extra `peers` of this package
installs PyTorch and transformers.
"""

import statistics
import sys
from typing import Dict, List

import ragged
from measuring import PHASES, comparison, figures_of, json_line, parser, table

ROWS = {  # with our step
    'common': ['ppo_step.py', '--dtype=float32'],
    'tuned': ['ppo_step.py', '--dtype=float32'],
    'bfloat16': ['ppo_step.py', '--dtype=bfloat16'],
    'plain': ['ppo_step.py', '--dtype=float32'],
    'reward': ['reward_batch.py', '--only=shared'],
}
CLOCKS = ('seconds', 'processor')


def pair_of(row: str, flags) -> List[Dict[str, object]]:
    """Run our step and then theirs; return the figures of both."""
    size = [f'--{name}={getattr(flags, name)}' for name in ('model', 'batch', 'query', 'response', 'repeats', 'real')]
    phases = [] if row == 'reward' else ['--phases', *flags.phases]
    ours = figures_of(*ROWS[row], *size, *phases, '--json')
    if row == 'plain':
        theirs = figures_of('plain_row.py', *size, *phases)
    elif row == 'reward':
        theirs = figures_of('torch_reward.py', *size, python=flags.torch_python)
    else:
        theirs = figures_of('torch_rows.py', *size, *phases, f'--row={row}', python=flags.torch_python)
    if ours['batch_checksum'] != theirs['batch_checksum']:
        sys.exit(f'error: the row {row} computed on another batch than ours')
    return [ours, theirs]


def main() -> None:
    flags = parser(__doc__, real=1.0)
    flags.add_argument('--torch-python', default=sys.executable, help='a Python that has torch and transformers')
    flags.add_argument('--pairs', type=int, default=3)
    flags.add_argument('--rows', nargs='+', choices=sorted(ROWS), default=list(ROWS))
    flags.add_argument('--phases', nargs='+', choices=PHASES, default=list(PHASES), help='phases to time')
    flags = flags.parse_args()
    ragged.check(flags)
    rows, figures = [], {}
    for row in flags.rows:
        pairs = []
        for number in range(flags.pairs):
            ours, theirs = pair_of(row, flags)
            pairs.append([ours, theirs])
            step = ' and '.join(f'{theirs[clock]["step"] / ours[clock]["step"]:.2f}' for clock in CLOCKS)
            done = f'{row}, pair {number + 1} of {flags.pairs}: theirs / ours {step} (processor)'
            print(done, file=sys.stderr, flush=True)
        for phase in ['step'] if row == 'reward' else [*flags.phases, 'step']:
            walls, processors = ([[f[clock][phase] for f in pair] for pair in pairs] for clock in CLOCKS)
            ours, theirs = zip(*walls)
            ratios = [[their / our for our, their in measured] for measured in (walls, processors)]
            compared = [*comparison(theirs, ours), statistics.median(ratios[1])]
            rows.append([row, phase, pairs[0][0]['real'][phase], *compared])
            figures[f'{row}/{phase}'] = dict(zip(CLOCKS, ratios))
        ours, theirs = zip(*([f['peak_gigabytes'] for f in pair] for pair in pairs))
        rows.append([row, 'peak GB', '', max(theirs), max(ours), '', '', ''])
    table(['row', 'phase', 'real', 'theirs, s', 'ours, s', 'theirs / ours', 'range', 'processor'], rows)
    print(f'{flags.model}, batch of {flags.batch}, {flags.query} + {flags.response} tokens')
    if flags.json:
        json_line(figures)


if __name__ == '__main__':
    main()
