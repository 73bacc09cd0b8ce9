"""Each part is trained for a few steps on a small folder of its own, written, and loaded again."""

import json

import pytest
import torch
from safetensors.torch import load_file

from audiobert import AudioBert
from audiobert.auditorybench.kinds import is_withheld
from audiobert.cli import run
from audiobert.training.ablations import ABLATIONS, changed
from audiobert.training.audiobert import train_audiobert
from audiobert.training.audiobert_config import AudioBertConfig
from audiobert.training.objective import AudioBertObjective
from training_toys import write_data


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


CONFIGS = {
    "masked-lm": {"epochs": 1, "tokens_per_batch": 256, "lora": {"rank": 4}},
    "detector": {"epochs": 1, "batch_size": 8, "negatives": 8, "carriers": 8, "lora": {"rank": 4}},
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
        "clips_per_step": 2,
        "pair_weight": 1.0,
        "model": {
            "lora": {"rank": 4},
            "injection": {"log_odds": True, "clip_dropout": 0.3, "relatives_dropout": 0.3},
            "retrieval": {"by": "both", "clips": 2, "relatives": 2},
        },
        "rows": {"passes": {"pitch": 0.5}, "twins": True, "unread_share": 0.3, "unheard_share": 0.2},
        "grounding": {
            "comparisons": 4,
            "extremes": 2,
            "names": 2,
            "clip_captions": 2,
            "captions": 1,
            "relatives_share": 0.2,
        },
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
    assert clap["clips_trained_on"] == 10  # of 18, without six of a withheld kind and one of each other kind
    assert (clap["held_out"]["all"]["clips"], clap["held_out"]["withheld"]["clips"]) == (2, 6)
    assert {split: found["spans"] for split, found in clap["spans"].items()} == {"train": 8, "dev": 8, "wiki": 8}
    assert len(clap["data"]) == 3
    assert json.loads((trained / "masked-lm" / "language_model.json").read_text())["lines"] == 41
    predictions = (trained / "audiobert" / "predictions.jsonl").read_text().splitlines()
    assert len(predictions) == 32


@pytest.mark.slow
def test_the_seed_decides_all_that_is_random_in_the_language_model(trained, data, tmp_path):
    command = ["train", "masked-lm", "--data", str(data), "--config", str(trained / "masked-lm.json")]
    assert run([*command, "--out", str(tmp_path), "--seed", "1"]) == 0
    again, first = (folder / "language_model.safetensors" for folder in (tmp_path, trained / "masked-lm"))
    assert again.read_bytes() == first.read_bytes()


@pytest.mark.parametrize(
    ("config", "absent"), [("mini/audiobert", "language_model, detector, clap"), ("paper-base", "detector")]
)
def test_a_folder_without_the_trained_parts_is_one_line(tmp_path, capsys, config, absent):
    command = ["train", "audiobert", "--data", str(tmp_path), "--out", str(tmp_path / "out"), "--config", config]
    assert run([*command, "--parts", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert f"{tmp_path} has no trained {absent}; give --parts" in error
    assert error.count("\n") == 1


@pytest.mark.slow
def test_a_training_that_is_killed_and_resumed_has_the_same_weights(trained, data, tmp_path, monkeypatch):
    config = trained / "audiobert.json"
    command = ["train", "audiobert", "--data", str(data), "--parts", str(trained), "--config", str(config)]
    command += ["--seed", "1", "--out", str(tmp_path / "again")]
    forward, calls = AudioBertObjective.forward, []

    def killed(self, batch):
        calls.append(1)
        if len(calls) == steps:
            raise KeyboardInterrupt
        return forward(self, batch)

    log = (trained / "audiobert" / "log.jsonl").read_text().splitlines()
    steps = 5
    assert len(log) == 2
    with monkeypatch.context() as patched:
        patched.setattr(AudioBertObjective, "forward", killed)
        assert run(command) != 0
    assert not (tmp_path / "again" / "audiobert.json").exists()
    assert len((tmp_path / "again" / "log.jsonl").read_text().splitlines()) == 1  # killed in the second epoch
    assert run([*command, "--resume"]) == 0
    both = [(folder / "audiobert.safetensors").read_bytes() for folder in (trained / "audiobert", tmp_path / "again")]
    assert both[0] == both[1]


@pytest.mark.slow
def test_a_trained_model_is_trained_further(trained, data, tmp_path, capsys):
    config = trained / "audiobert.json"
    command = ["train", "audiobert", "--data", str(data), "--parts", str(trained), "--config", str(config)]
    command += ["--start", str(trained), "--set", "epochs=1", "--set", "average_from=1.0"]
    first = json.loads((trained / "audiobert" / "audiobert.json").read_text())
    assert run([*command, "--out", str(tmp_path / "still"), "--set", "learning_rate=1e-12"]) == 0
    assert run([*command, "--out", str(tmp_path / "on"), "--seed", "1"]) == 0
    before, still, on = (
        load_file(folder / "audiobert.safetensors")
        for folder in (trained / "audiobert", tmp_path / "still", tmp_path / "on")
    )
    assert all(torch.equal(before[name], still[name]) for name in before)
    assert any(not torch.equal(before[name], on[name]) for name in before)
    record = json.loads((tmp_path / "on" / "audiobert.json").read_text())
    assert record["started_from"] == {"sha256": first["sha256"], "epochs": 2}
    assert run([*command, "--out", str(tmp_path / "other"), "--set", "model.lora.rank=8"]) == 2
    assert "audiobert.safetensors" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
def test_rows_of_withheld_kinds_are_left_out_of_training(trained):
    """The bell is withheld: half of the comparisons name it."""
    record = json.loads((trained / "audiobert" / "audiobert.json").read_text())
    assert is_withheld("bell")
    assert record["rows_withheld"] == {"animal": 0, "pitch": 4}


@pytest.mark.slow
def test_a_training_without_recordings_moves_nothing_by_the_bank(trained, data, tmp_path):
    """Its gate stays shut, and its knowledge is zero, because it never learnt from a clip."""
    settings = changed(AudioBertConfig.load(trained / "audiobert.json"), {**ABLATIONS["no-recordings"], "epochs": 1})
    train_audiobert(data, tmp_path / "out", settings, parts_from=trained, cache=trained / "cache")
    model = AudioBert.from_pretrained(str(tmp_path / "out" / "model"), device="cpu")
    text = "The sound of a dog has a [MASK] pitch than the sound of a cat."
    spans = [[(at, at + 14) for at in (text.index("sound of a dog"), text.index("sound of a cat"))]]
    with_clips = model.score_masks([text], spans=spans)[0].log_probs
    without = model.score_masks([text], spans=spans, exclude=[row["id"] for row in model.bank.rows()])[0].log_probs
    unheard = model.score_masks([text], spans=spans, sound="unheard")[0].log_probs
    torch.testing.assert_close(with_clips, without)
    torch.testing.assert_close(with_clips, unheard)


@pytest.mark.parametrize(
    ("part", "missing"),
    [("masked-lm", "general_train.txt.gz"), ("detector", "auditorybench"), ("clap", "clips.csv")],
)
def test_a_folder_without_the_data_is_one_line(part, missing, tmp_path, capsys):
    assert run(["train", part, "--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert missing in error
    assert error.count("\n") == 1
