import json

import pytest

from audiobert.artefacts import write_json
from audiobert.cli import run
from audiobert.training.seeds import audiobert_figures, over_seeds, train_seeds
from auditorybench_toys import bert
from training_toys import write_data


def test_mean_and_interval_of_five_values():
    figures = over_seeds([0.60, 0.62, 0.61, 0.63, 0.59])
    assert figures["mean"] == pytest.approx(0.61)
    assert figures["sd"] == pytest.approx(0.0158, abs=1e-4)
    assert figures["half_width"] == pytest.approx(2.776 * 0.015811 / 5**0.5, abs=1e-5)  # t of 4 degrees of freedom
    assert over_seeds([0.5]) == {"mean": 0.5, "sd": None, "half_width": None}


def test_what_is_there_is_kept_and_figures_that_all_have_are_summed_up(tmp_path):
    asked = []

    def train(seed, folder):
        asked.append(seed)
        record = {"accuracy": {"animal.dev": 0.1 * seed} | ({"animal.test": 0.0} if seed else {})}
        write_json(folder / "audiobert.json", record)
        return record

    write_json(tmp_path / "seed-1" / "audiobert.json", {"accuracy": {"animal.dev": 0.3, "animal.test": 1.0}})
    result = train_seeds("audiobert", tmp_path, [0, 1, 2], train, audiobert_figures)
    assert asked == [0, 2]
    assert list(result["figures"]) == ["animal.dev"]
    assert result["figures"]["animal.dev"]["values"] == pytest.approx([0.0, 0.3, 0.2])
    assert json.loads((tmp_path / "seeds.json").read_text())["seeds"] == [0, 1, 2]


def test_one_command_trains_and_sums_up(tmp_path, capsys):
    bert(tmp_path / "bert")
    (tmp_path / "data").mkdir()
    write_data(tmp_path / "data")
    settings = {"language_model": str(tmp_path / "bert"), "tune": "all", "epochs": 1, "negatives": 0, "carriers": 0}
    (tmp_path / "config.yaml").write_text(json.dumps(settings))
    arguments = ["--data", str(tmp_path / "data"), "--config", str(tmp_path / "config.yaml"), "--seeds", "3-4"]
    assert run(["train", "detector", *arguments, "--out", str(tmp_path / "out")]) == 0
    figures = json.loads((tmp_path / "out" / "seeds.json").read_text())["figures"]
    records = [json.loads((tmp_path / "out" / f"seed-{seed}" / "detector.json").read_text()) for seed in (3, 4)]
    assert [record["settings"]["seed"] for record in records] == [3, 4]
    assert figures["pitch.wiki"]["values"] == [record["scores"]["pitch.wiki"]["token_f1"] for record in records]
    assert "detector, 2 seeds, percent" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seeds", "0,one"], "'0,one'"),
        (["--resume", "--overwrite"], "not both"),
        (["--set", "epoch=3"], "--set epoch=3: unknown key 'epoch'; did you mean epochs?"),
        (["--seeds", "0,1", "--seed", "3"], "give --seed or --seeds, not both"),
    ],
)
def test_wrong_seeds_are_one_line(tmp_path, capsys, options, message):
    assert run(["train", "detector", "--data", str(tmp_path), "--out", str(tmp_path / "out"), *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
