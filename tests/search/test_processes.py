import json
import os
import subprocess
import sys

import numpy as np
import stub_index
from stub_index import update

TWO = """
import sys, torch
from fewtokens.search.processes import join
sys.path.insert(0, sys.argv[1])
from stub_index import Encode, update

from fewtokens.search.index import VideoIndex
if __name__ == '__main__':
    join(sys.argv[4])
    encode = Encode()
    result = update(VideoIndex(sys.argv[3]), __import__('pathlib').Path(sys.argv[2]), encode)
    print('seen', encode.seen, 'of', result.total)
"""


def test_processes_of_slurm_share_the_work(index, folder, tmp_path):
    """Two processes with slurm's variables, on a CPU: two parts, one index."""
    import socket

    with socket.socket() as free:
        free.bind(('localhost', 0))
        port = str(free.getsockname()[1])
    script = tmp_path / 'two.py'
    script.write_text(TWO)
    slurm = dict(SLURM_NTASKS='2', SLURM_NODELIST='localhost', MASTER_ADDR='localhost', MASTER_PORT=port)
    command = [
        sys.executable,
        str(script),
        os.path.dirname(stub_index.__file__),
        str(folder),
        str(tmp_path / 'two'),
        'slurm',
    ]
    both = [
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | slurm | dict(SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank), OMP_NUM_THREADS='1'),
        )
        for rank in range(2)
    ]  # fmt: skip
    outputs = [process.communicate(timeout=120) for process in both]
    assert [out.strip() for out, _ in outputs] == ['seen 3 of 5', 'seen 2 of 5'], outputs
    update(index, folder)
    ours, theirs = (json.loads((path / 'manifest.json').read_text()) for path in (tmp_path / 'two', index.path))
    assert ours == theirs
    parts = [np.load(path / 'generation-1/embeddings.npy') for path in (tmp_path / 'two', index.path)]
    np.testing.assert_allclose(*parts, atol=1e-6)
