"""Settings from YAML files and from --set: which source wins, and what a wrong one says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field

from audiobert.cli import run
from audiobert.errors import InputError
from audiobert.settings import Settings
from audiobert.training.audiobert_config import AudioBertConfig
from audiobert.training.config import TrainingConfig


class Lora(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    rank: int = Field(default=8, ge=1)
    targets: tuple[str, ...] = ("query",)


class Training(Settings):
    epochs: int = 3
    learning_rate: float = 1e-3
    lora: Lora = Lora()
    second: Lora | None = None
    third: Lora = Lora(rank=2, targets=("all",))
    shares: dict[str, float] = Field(default_factory=dict)


def write(folder: Path, **files: str) -> Path:
    """Write YAML files and return the last."""
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder / f"{list(files)[-1]}.yaml"


def test_a_file_says_only_what_differs_from_the_one_that_it_extends(tmp_path):
    (tmp_path / "base").mkdir()
    write(tmp_path / "base", first="epochs: 1\nlora: {rank: 4, targets: [key]}\n", second="extends: first.yaml\n")
    path = write(tmp_path, third="extends: base/second.yaml\nlora: {rank: 16}\n")
    assert Training.load(path) == Training(epochs=1, lora=Lora(rank=16, targets=("key",)))


def test_later_sources_win(tmp_path):
    path = write(tmp_path, a="epochs: 1\nlearning_rate: 1e-2\nlora: {rank: 4}\n")
    found = Training.load(
        path, {"epochs": 5, "learning_rate": None}, ["epochs=4", "lora.rank=2", "lora.targets=[a, b]"]
    )
    assert found == Training(epochs=5, learning_rate=0.01, lora=Lora(rank=2, targets=("a", "b")))
    assert Training.load() == Training()


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("second.rank=2", Training(second=Lora(rank=2))),
        ("second=null", Training()),
        ("third.rank=5", Training(third=Lora(rank=5, targets=("all",)))),  # its targets stay those of this part
        ("shares.pitch=0.5", Training(shares={"pitch": 0.5})),
        ("learning_rate=2e-5", Training(learning_rate=2e-5)),
        ("lora={rank: 3}", Training(lora=Lora(rank=3))),
        (" epochs =7", Training(epochs=7)),
    ],
)
def test_one_setting_is_changed_on_the_command_line(assignment, expected):
    assert Training.load(set=[assignment]) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch: 3\n", "a.yaml: unknown key 'epoch'; did you mean epochs?"),
        ("lora: {rnk: 3}\n", "a.yaml: unknown key 'lora.rnk'; did you mean lora.rank?"),
        ("second: {rnk: 3}\n", "a.yaml: unknown key 'second.rnk'; did you mean second.rank?"),
        ("rank: 3\n", "a.yaml: unknown key 'rank'; did you mean lora.rank?"),
        ("zzz: 3\n", "a.yaml: unknown key 'zzz'; known are: epochs, learning_rate, lora, second, third, shares"),
        ("epochs: many\n", "a.yaml: epochs is 'many': Input should be a valid integer"),
        ("epochs: many\nlora: {rank: 0}\n", "(and 1 more)"),
        ("lora: 3\n", "a.yaml: lora is 3: Input should be"),
        ("learning_rate: .nan\n", "learning_rate is nan: Input should be a finite number"),
        ("epochs: 1\nepochs: 2\n", "a.yaml is not YAML: the key 'epochs' occurs twice"),
        ("- 1\n- 2\n", "a.yaml holds no mapping of settings"),
        ("3: 4\n", "a.yaml holds no mapping of settings"),
        ("a: [\n", "a.yaml is not YAML"),
        ("a: " + "[" * 5000, "a.yaml is not YAML: maximum recursion depth"),
        ("a: 2026-13-45\n", "a.yaml is not YAML: month must be in 1..12"),
        ("a: !!timestamp x\n", "a.yaml is not YAML"),
        ("extends: [b.yaml]\n", "a.yaml: extends is ['b.yaml']; the name of one YAML file is wanted"),
        ("extends: b.yaml\n", "b.yaml: give a YAML file or the name of a config that ships"),
        ("extends: a.yaml\n", "end the circle"),
    ],
)
def test_a_wrong_file_is_one_line_that_names_it(tmp_path, text, message):
    with pytest.raises(InputError) as caught:
        Training.load(write(tmp_path, a=text))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_key_is_blamed_on_the_file_that_it_stands_in(tmp_path):
    path = write(tmp_path, base="lora: {rnk: 3}\n", more="extends: base.yaml\nlora: {rank: 3}\n")
    with pytest.raises(InputError, match=r"base\.yaml: unknown key 'lora\.rnk'"):
        Training.load(path)
    with pytest.raises(InputError, match=r"^--set epochs=x: epochs is 'x'"):
        Training.load(None, set=["epochs=x"])
    with pytest.raises(InputError, match=r"^the command line: epochs is 'x'"):
        Training.load(None, {"epochs": "x"})


@pytest.mark.parametrize("assignment", ["epochs", "=3", "lora..rank=3", "epochs=[", ".=1"])
def test_a_wrong_assignment_is_one_line(assignment):
    with pytest.raises(InputError, match=r"^--set") as caught:
        Training.load(set=[assignment])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        {"seed": -1},
        {"warmup": 1.5},
        {"micro_batches": 0},
        {"average_from": -0.1},
        {"max_grad_norm": 0},
        {"keep": "all"},
    ],
)
def test_values_out_of_range_are_refused(values: dict[str, Any]):
    with pytest.raises(InputError, match=next(iter(values))):
        TrainingConfig.load(overrides=values)


def test_a_folder_and_a_file_of_another_encoding_are_one_line(tmp_path):
    with pytest.raises(InputError, match="no config"):
        Training.load(tmp_path)
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="is not YAML"):
        Training.load(tmp_path / "a.yaml")
    (tmp_path / "mark.yaml").write_bytes(b"\xef\xbb\xbfepochs: 5\n")
    assert Training.load(tmp_path / "mark.yaml").epochs == 5


def test_a_config_that_ships_is_known_by_its_name_and_can_be_extended(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert AudioBertConfig.load("paper-base").epochs == 20
    assert AudioBertConfig.load("paper-base.yaml") == AudioBertConfig.load("paper-base")
    own = write(tmp_path, own="extends: paper-base\nepochs: 7\n")
    assert AudioBertConfig.load(own) == AudioBertConfig.load("paper-base", set=["epochs=7"])
    write(tmp_path, **{"paper-base": "epochs: 3\n"})
    assert AudioBertConfig.load("paper-base.yaml").epochs == 3  # a file comes first


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("paper-bsae", "did you mean paper-base?"),
        ("configs/mini/audiobert.yaml", "did you mean mini/audiobert?"),
        ("nothing-like-it.yaml", "these ship: construct-example"),
    ],
)
def test_a_config_that_is_not_there_is_one_line_with_the_nearest(given, message, capsys):
    assert run(["config", given]) == 2
    said = capsys.readouterr().err
    assert f"no config {given}" in said
    assert message in said
    assert said.count("\n") == 1


def test_config_prints_one_or_lists_all(capsys):
    assert run(["config"]) == 0
    names = capsys.readouterr().out.split()
    assert {"paper-base", "paper-detector", "mini/audiobert", "construct-example"} <= set(names)
    for name in names:
        assert run(["config", name]) == 0
        assert yaml.safe_load(capsys.readouterr().out)
