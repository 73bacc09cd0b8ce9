import json

import numpy as np
import pytest

from audiobert.cli import run
from audiobert.training.ablations import (
    CONTROL,
    MORE_LORA,
    REFERENCE,
    as_markdown,
    changes,
    paired_difference,
    summarise,
)
from audiobert.training.audiobert_config import AudioBertConfig


def test_a_paired_difference_is_found_and_none_is_not_invented():
    random = np.random.default_rng(0)
    first = (random.random(2000) < 0.7).astype(float)
    worse = np.where(random.random(2000) < 0.1, 0.0, first)
    found = paired_difference(first, worse)
    assert found["difference"] == pytest.approx(first.mean() - worse.mean())
    assert found["interval"][0] < found["difference"] < found["interval"][1]
    assert found["p_value"] < 0.01
    noise = np.where(random.random(2000) < 0.05, random.random(2000) < 0.7, first)
    assert paired_difference(first, noise)["interval"][0] < 0 < paired_difference(first, noise)["interval"][1]
    assert paired_difference(first, first)["p_value"] == 1.0


def test_more_lora_scales_the_updates_as_the_reference_does():
    config = AudioBertConfig(lora_rank=8, lora_alpha=4)
    assert changes(MORE_LORA, config) == {"audio": "none", "lora_rank": 16, "lora_alpha": 8}
    assert changes(REFERENCE, config) == {}


@pytest.fixture
def runs(tmp_path):
    """Two trainings with two seeds each, on four dev rows."""
    for name, hits in ((REFERENCE, [1, 1, 1, 0]), (CONTROL, [1, 0, 0, 0])):
        for seed in (0, 1):
            folder = tmp_path / name / f"seed-{seed}"
            folder.mkdir(parents=True)
            accuracy = {"combined.dev": sum(hits) / 4 + 0.1 * seed, "pitch.dev": 0.5}
            (folder / "audiobert.json").write_text(json.dumps({"accuracy": accuracy}))
            rows = [{"task": "pitch", "split": "dev", "row": i, "correct": bool(hit)} for i, hit in enumerate(hits)]
            (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_seeds_are_averaged_and_compared_row_by_row(runs):
    reference, control = summarise(runs, REFERENCE), summarise(runs, CONTROL)
    assert reference["seeds"] == [0, 1]
    assert reference["combined.dev"]["mean"] == pytest.approx(0.8)
    assert reference["combined.dev"]["sd"] == pytest.approx(0.0707, abs=1e-3)
    assert control["reference_minus_this"]["difference"] == pytest.approx(0.5)
    assert summarise(runs, "random-clip") is None
    table = as_markdown([reference, control])
    assert "80.0 ± 63.5" in table  # Student's t with one degree of freedom
    assert "+50.0" in table


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--seeds", "0,one"], "--seeds is '0,one'"), (["--only", "no-such"], "no ablation 'no-such'")],
)
def test_bad_usage_is_one_line(arguments, message, tmp_path, capsys):
    given = ["ablate", "--data", str(tmp_path), "--out", str(tmp_path / "o"), "--parts", str(tmp_path), *arguments]
    assert run(given) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
