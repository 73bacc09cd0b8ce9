"""Each part is trained for a few steps on a small folder of its own, written, and loaded again."""

import json

import pytest

from audiobert import AudioBert
from audiobert.cli import run
from training_toys import write_data


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


CONFIGS = {
    "masked-lm": {"epochs": 1, "tokens_per_batch": 256, "lora_rank": 4},
    "detector": {"epochs": 1, "batch_size": 8, "negatives": 8, "lora_rank": 4},
    "clap": {
        "steps": 2,
        "test_every": 2,
        "pairs": 3,
        "hidden_size": 24,
        "layers": 1,
        "window_frames": 64,
        "span_steps": 2,
    },
    "audiobert": {
        "epochs": 2,
        "batch_size": 8,
        "clips_per_span": 2,
        "clips_per_step": 2,
        "lora_rank": 4,
        "passes": {"pitch": 0.5},
        "comparisons": 2,
    },
}


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    for part, settings in CONFIGS.items():
        config = out / f"{part}.json"  # JSON is YAML
        config.write_text(json.dumps(settings))
        arguments = ["train", part, "--data", str(data), "--out", str(out / part), "--config", str(config)]
        assert run([*arguments, "--seed", "1"]) == 0
    return out


@pytest.mark.slow
def test_four_commands_make_a_model(trained):
    model = AudioBert.from_pretrained(str(trained / "audiobert" / "model"), device="cpu")
    answer = model.fill_mask("Woof is the sound a [MASK] makes.")
    assert len(answer.masks[0].predictions) == 5
    assert len(model.bank) == 18
    plain = model.fill_mask("The council [MASK] on Monday.", audio=False)
    assert plain.masks[0].predictions == plain.masks[0].base_predictions


@pytest.mark.slow
def test_the_records_say_what_made_the_parts(trained):
    record = json.loads((trained / "audiobert" / "audiobert.json").read_text())
    assert record["settings"]["seed"] == 1
    assert {"animal.dev", "pitch.dev", "combined.dev", "animal.wiki", "pitch.wiki"} <= record["accuracy"].keys()
    clap = json.loads((trained / "clap" / "clap.json").read_text())
    assert clap["held_out"]["all"]["clips"] + clap["clips_heard"] == 18
    assert {split: found["spans"] for split, found in clap["spans"].items()} == {"train": 8, "dev": 8, "wiki": 8}
    assert len(clap["data"]) == 3
    assert json.loads((trained / "masked-lm" / "language_model.json").read_text())["lines"] == 41
    predictions = (trained / "audiobert" / "predictions.jsonl").read_text().splitlines()
    assert len(predictions) == 32


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights(trained, data, tmp_path):
    config = trained / "audiobert.json"
    arguments = ["--data", str(data), "--parts", str(trained), "--config", str(config), "--seed", "1"]
    assert run(["train", "audiobert", *arguments, "--out", str(tmp_path / "again")]) == 0
    both = [(folder / "audiobert.safetensors").read_bytes() for folder in (trained / "audiobert", tmp_path / "again")]
    assert both[0] == both[1]


@pytest.mark.parametrize(
    ("part", "missing"),
    [("masked-lm", "general_train.txt.gz"), ("detector", "auditorybench"), ("clap", "clips.csv")],
)
def test_a_folder_without_the_data_is_one_line(part, missing, tmp_path, capsys):
    assert run(["train", part, "--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert missing in error
    assert error.count("\n") == 1


@pytest.mark.slow
def test_an_ablation_that_only_asks_otherwise_is_not_trained_again(trained, data, tmp_path, capsys):
    config = trained / "audiobert.json"
    arguments = ["--data", str(data), "--parts", str(trained), "--config", str(config), "--out", str(tmp_path)]
    assert run(["ablate", *arguments, "--only", "audio,gold-spans", "--seeds", "0"]) == 0
    capsys.readouterr()
    both = [tmp_path / name / "seed-0" for name in ("audio", "gold-spans")]
    assert len({(folder / "audiobert.safetensors").read_bytes() for folder in both}) == 1
    assert len({(folder / "log.jsonl").read_text() for folder in both}) == 1  # with the seconds that each epoch took
    asked = [json.loads((folder / "audiobert.json").read_text())["settings"]["asked_spans"] for folder in both]
    assert asked == ["detected", "gold"]
