"""The hosts of a run's ranks, and the GPUs of each host."""

import os
import platform
import re
import subprocess
from typing import List, NamedTuple, Optional

from lm_human_preferences.graph.gpus import choose_gpu
from lm_human_preferences.utils.errors import UserError
from lm_human_preferences.utils.files import text_lines


class Host(NamedTuple):
    """A machine with room for `slots` ranks."""

    name: str
    slots: int


def parse_hosts(text: str) -> List[Host]:
    """Return the hosts of a text such as `host1:8,host2:8`. A host without a number has one slot.

    UserError for a text of another form.
    """
    return [_parse_host(entry, entry, f'--hosts {text!r}') for entry in text.split(',')]


def read_hostfile(path: str) -> List[Host]:
    """Return the hosts of a file, which has one on each line: `host1:8` or `host1 slots=8`. # begins a comment."""
    lines = [line.text.split('#')[0].strip() for line in text_lines(path)]
    hosts = [_parse_host(re.sub(r'\s+slots\s*=\s*', ':', line), line, path) for line in lines if line]
    if not hosts:
        raise UserError(f'{path}: no hosts in the file: write one on each line, as host1:8')
    return hosts


def _parse_host(entry: str, shown: str, source: str) -> Host:
    match = re.match(r'([A-Za-z0-9._-]+)(?::([1-9][0-9]*))?\Z', entry.strip())
    if not match or match.group(1).startswith('-'):
        raise UserError(f'{source}: {shown!r} is not a host with a number of slots, as host1:8')
    return Host(match.group(1), int(match.group(2) or 1))


def num_ranks(mpi: Optional[int], hosts: List[Host]) -> int:
    """Return the number of ranks: `mpi`, or one per slot of the hosts, or without hosts one per GPU, or 1.

    UserError for more ranks than slots, and without hosts for more ranks than GPUs if there are GPUs.
    """
    if hosts:
        slots = sum(host.slots for host in hosts)
        if mpi is not None and mpi > slots:
            raise UserError(
                f'--mpi={mpi} is more than the {slots} slots of the hosts: add hosts, or slots as in host1:8'
            )
        return slots if mpi is None else mpi
    gpus = visible_gpus()
    if mpi is not None:
        _check_gpus(mpi, gpus)
    return max(1, len(gpus)) if mpi is None else mpi


def visible_gpus() -> List[str]:
    """Return the GPUs of this host that we may use, by CUDA's names.

    The variable VISIBLE_DEVICES lists them (indices or identifiers, separated by commas), or else
    CUDA_VISIBLE_DEVICES. Without these variables, they are all GPUs of the host.
    """
    chosen = os.environ.get('VISIBLE_DEVICES', os.environ.get('CUDA_VISIBLE_DEVICES'))
    if chosen is None:
        return [str(i) for i in range(_count_gpus())]
    devices = [device.strip() for device in chosen.split(',')]
    invalid = next((i for i, device in enumerate(devices) if not device or device.startswith('-')), len(devices))
    return devices[:invalid]  # CUDA ignores what follows an invalid entry


def take_gpu(local_rank: int = 0, local_size: int = 1) -> None:
    """Let this process use only its own GPU, which is number `local_rank`. Call it before TensorFlow starts.

    CUDA still shows the GPUs of the other ranks to this process, because NCCL copies from GPU to GPU only where both
    are visible.

    UserError if the host has GPUs, but fewer than its `local_size` ranks.
    """
    gpus = visible_gpus()
    _check_gpus(local_size, gpus)
    if 'CUDA_VISIBLE_DEVICES' not in os.environ:
        os.environ.setdefault('CUDA_DEVICE_ORDER', 'PCI_BUS_ID')  # the order of nvidia-smi
    if 'VISIBLE_DEVICES' in os.environ:
        os.environ['CUDA_VISIBLE_DEVICES'] = ','.join(gpus)
    choose_gpu(local_rank if gpus else None)


def _check_gpus(ranks: int, gpus: List[str]) -> None:
    if gpus and ranks > len(gpus):
        raise UserError(
            f'{ranks} ranks need as many GPUs, and {platform.node()} has {len(gpus)}: '
            f'give --mpi={len(gpus)}, or VISIBLE_DEVICES= (with no value) to use none'
        )


def _count_gpus() -> int:
    try:
        listing = subprocess.run(
            ['nvidia-smi', '-L'], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=30
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith(b'GPU ') for line in listing.splitlines())
