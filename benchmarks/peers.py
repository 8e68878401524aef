"""Compare our PPO step with the same step in PyTorch and with a plain one in TensorFlow.

    python benchmarks/peers.py --torch-python PYTHON     # PYTHON has torch==2.13.0 and transformers
    python benchmarks/peers.py --torch-python PYTHON --batch 64 --phases sample
    python benchmarks/peers.py --rows plain              # needs no PyTorch

A pair is one run of our step and, right after it, one of theirs. Columns: `row` (which step of theirs), `phase`, the
median seconds of theirs and of ours, their median ratio, and the range of the ratio over all pairs. The rows are
implemented in `torch_rows.py` and `plain_row.py`. The extra `peers` of this package installs PyTorch and transformers.
"""

import sys

from measuring import PHASES, comparison, figures_of, json_line, parser, table

ROWS = {  # with the type of our step
    'common': 'float32',
    'tuned': 'float32',
    'bfloat16': 'bfloat16',
    'plain': 'float32',
}


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument('--torch-python', default=sys.executable, help='a Python that has torch and transformers')
    flags.add_argument('--pairs', type=int, default=3)
    flags.add_argument('--rows', nargs='+', choices=sorted(ROWS), default=list(ROWS))
    flags.add_argument('--phases', nargs='+', choices=PHASES, default=list(PHASES), help='phases to time')
    flags = flags.parse_args()
    size = [f'--{name}={getattr(flags, name)}' for name in ('model', 'batch', 'query', 'response', 'repeats')]
    size += ['--phases', *flags.phases]
    rows, figures = [], {}

    def theirs_of(row):
        if row == 'plain':
            return figures_of('plain_row.py', *size)
        return figures_of('torch_rows.py', *size, f'--row={row}', python=flags.torch_python)

    for row in flags.rows:
        pairs = [
            (figures_of('ppo_step.py', *size, '--json', f'--dtype={ROWS[row]}'), theirs_of(row))
            for _ in range(flags.pairs)
        ]
        print(f'{row}: {flags.pairs} pairs done', file=sys.stderr, flush=True)
        for phase in [*flags.phases, 'step']:
            seconds = [[dict(f['phases'], step=f['step'])[phase] for f in pair] for pair in pairs]
            ours, theirs = zip(*seconds)
            rows.append([row, phase, *comparison(theirs, ours)])
            figures[f'{row}/{phase}'] = [their / our for our, their in seconds]
        ours, theirs = zip(*([f['peak_gigabytes'] for f in pair] for pair in pairs))
        rows.append([row, 'peak GB', max(theirs), max(ours), '', ''])
    table(['row', 'phase', 'theirs, s', 'ours, s', 'theirs / ours', 'range'], rows)
    if flags.json:
        json_line(figures)


if __name__ == '__main__':
    main()
