import json

import pytest

from audiobert.cli import run
from audiobert.training.ablations import ABLATIONS, REFERENCE, as_markdown, changed, summarise
from audiobert.training.audiobert_config import AudioBertConfig

CONTROL = "no-recordings"


@pytest.mark.parametrize("config", ["mini/audiobert", "paper-base"])
@pytest.mark.parametrize("name", ABLATIONS)
def test_every_ablation_fits_the_settings_of_every_config(name, config):
    reference = AudioBertConfig.load(config)
    ablated = changed(reference, ABLATIONS[name])
    differs = ablated != reference
    if config == "mini/audiobert":  # the paper's has no grounding to leave out
        assert differs == (name != REFERENCE)


def test_the_training_without_recordings_reads_the_same_text():
    reference = AudioBertConfig.load("mini/audiobert")
    control = changed(reference, ABLATIONS[CONTROL])
    assert control.audio == "none"
    assert control.grounding.of_clips == 0
    assert control.grounding.captions == reference.grounding.captions > 0
    assert control.rows.unread_share == 0.0
    assert control.rows.passes == reference.rows.passes
    assert control.model == reference.model


def test_no_relatives_changes_that_alone():
    reference = AudioBertConfig.load("mini/audiobert")
    ablated = changed(reference, ABLATIONS["no-relatives"])
    assert reference.model.retrieval.relatives > 0 == ablated.model.retrieval.relatives
    assert changed(ablated, {"model": {"retrieval": {"relatives": reference.model.retrieval.relatives}}}) == reference


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
    assert control["reference_minus_this.combined.dev"]["mean"] == pytest.approx(0.5)
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


def test_a_task_is_compared_apart_from_the_others(runs):
    for path in runs.glob("*/seed-*/predictions.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        wiki = [row | {"split": "wiki", "correct": row["row"] < 2 or REFERENCE in path.parts} for row in rows]
        animal = [row | {"task": "animal", "split": "wiki", "correct": True} for row in rows]
        path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *wiki, *animal]))
    control = summarise(runs, CONTROL)
    assert control["reference_minus_this.pitch.wiki"]["mean"] == pytest.approx(0.5)
    assert control["reference_minus_this.combined.wiki"]["mean"] == pytest.approx(0.25)
