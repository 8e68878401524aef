"""Our PPO step beside PyTorch's, in turn on the same machine, with the ratio of every pair.

    python benchmarks/peers.py --torch-python PYTHON     # of an environment with torch==2.13.0 and transformers
    python benchmarks/peers.py --torch-python PYTHON --batch 64 --phases sample

One pair is one run of ours and one of theirs right after it; the table has the median ratio and the range of them.
The rows are in `torch_rows.py`. PyTorch's packages are the optional dependencies `peers`.
"""

import statistics
import sys

from measuring import PHASES, figures_of, json_line, parser, table

ROWS = {'common': 'float32', 'tuned': 'float32', 'bfloat16': 'bfloat16'}  # and the type of ours to hold it against


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
    for row in flags.rows:
        pairs = [
            (
                figures_of('ppo_step.py', *size, '--json', f'--dtype={ROWS[row]}'),
                figures_of('torch_rows.py', *size, f'--row={row}', python=flags.torch_python),
            )
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
    table(['PyTorch row', 'phase', 'ours, s', 'theirs, s', 'theirs / ours', 'pairs'], rows)
    if flags.json:
        json_line(figures)


if __name__ == '__main__':
    main()
