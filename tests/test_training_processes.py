"""`torchrun` with two processes on the CPU gives what one process gives."""

import json
import os
import subprocess
import sys

import pytest
from safetensors.torch import load_file

from audiobert.cli import run
from auditorybench_toys import bert
from training_toys import write_data

# Batches of three rows: the processes' shares differ, and the last batch leaves one of them without a row.
SETTINGS = {"batch_size": 3, "epochs": 1, "precision": "fp32", "micro_batches": 2, "average_from": 0.5}
DETECTOR = SETTINGS | {"tune": "all", "learning_rate": 1e-3, "negatives": 0, "carriers": 0}
SCRIPT = """
import json, sys
from audiobert.cli import run
sys.exit(max(run(arguments) for arguments in json.loads(sys.argv[1])))
"""


def commands(folder, out):
    common = ["--data", str(folder / "data")]
    detector = [*common, "--config", str(folder / "detector.json"), "--out", str(out / "detector")]
    return [["train", "detector", *detector]]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The output folder of one process, that of two, and what the two wrote to the terminal."""
    folder = tmp_path_factory.mktemp("processes")
    bert(folder / "bert")
    (folder / "data").mkdir()
    write_data(folder / "data")
    (folder / "detector.json").write_text(json.dumps(DETECTOR | {"language_model": str(folder / "bert")}))
    (folder / "train.py").write_text(SCRIPT)
    one, two = folder / "one", folder / "two"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    result = subprocess.run(
        [*launch, str(folder / "train.py"), json.dumps(commands(folder, two))],
        env=os.environ | {"ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert result.returncode == 0, result.stderr
    for arguments in commands(folder, one):
        assert run(arguments) == 0
    return one, two, result.stderr


@pytest.mark.slow
def test_two_processes_train_what_one_trains(both):
    part, (one, two, _) = "detector", both
    first, second = (load_file(folder / part / "checkpoint.safetensors") for folder in (one, two))
    # Attention does not change with the keys' biases: their gradient is rounding, of which Adam makes whole steps.
    trained = [name for name in first if name.startswith("weight:") and not name.endswith("key.bias")]
    assert first.keys() == second.keys()
    moved = sum((first[name] - first[name.replace("weight:", "average:")]).square().sum() for name in trained) ** 0.5
    apart = sum((first[name] - second[name]).square().sum() for name in trained) ** 0.5
    assert apart < 0.01 * moved
    logs = [json.loads((folder / part / "log.jsonl").read_text()) for folder in (one, two)]
    assert logs[0]["loss"] == pytest.approx(logs[1]["loss"], rel=1e-4)


@pytest.mark.slow
def test_only_one_of_them_writes(both):
    _, two, said = both
    assert said.count("detector: epoch 1/1") == 1
    assert said.count("; wrote") == 1
    assert (two / "detector" / "detector.json").is_file()
