"""Our PPO step beside PyTorch's and beside a plain one in TensorFlow, in turn on one machine; the ratio of every pair.

    python benchmarks/peers.py --torch-python PYTHON     # of an environment with torch==2.13.0 and transformers
    python benchmarks/peers.py --torch-python PYTHON --batch 64 --phases sample
    python benchmarks/peers.py --rows plain              # needs no PyTorch

One pair is one run of ours and one of theirs right after it; the table has the median ratio and the range of them.
The rows are in `torch_rows.py` and `plain_row.py`. PyTorch's packages are the optional dependencies `peers`.
"""

import statistics
import sys

from measuring import PHASES, figures_of, json_line, parser, table

# And the type of ours to hold it against.
ROWS = {'common': 'float32', 'tuned': 'float32', 'bfloat16': 'bfloat16', 'plain': 'float32'}


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument('--torch-python', default=sys.executable, help='a Python that has torch and transformers')
    flags.add_argument('--pairs', type=int, default=3)
    flags.add_argument('--rows', nargs='+', choices=sorted(ROWS), default=list(ROWS))
    flags.add_argument('--phases', nargs='+', choices=PHASES, default=list(PHASES), help='all, or only these')
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
            ours, theirs = (statistics.median(column) for column in zip(*seconds))
            ratios = [pair[1] / pair[0] for pair in seconds]
            spread = f'{min(ratios):.2f} to {max(ratios):.2f}'
            rows.append([row, phase, ours, theirs, statistics.median(ratios), spread])
            figures[f'{row}/{phase}'] = ratios
        memory = [[f['peak_gigabytes'] for f in pair] for pair in pairs]
        rows.append([row, 'peak GB', *(max(column) for column in zip(*memory)), '', ''])
    table(['row', 'phase', 'ours, s', 'theirs, s', 'theirs / ours', 'pairs'], rows)
    if flags.json:
        json_line(figures)


if __name__ == '__main__':
    main()
