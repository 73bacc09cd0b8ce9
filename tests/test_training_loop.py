import json

import pytest
import torch
from torch import nn

from audiobert.errors import ArtefactError, InputError
from audiobert.training.config import TrainingConfig
from audiobert.training.loop import Batches, Recipe, fit, learning_rate_at

X = torch.randn(64, 4, generator=torch.Generator().manual_seed(1))
Y = X @ torch.tensor([1.0, -2.0, 0.5, 3.0])


class Regression(nn.Module):
    """Counts its calls, and stops where it is told to, as a kill would."""

    def __init__(self, stop_at=None):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 1)
        self.dropout = nn.Dropout(0.2)
        self.seen = torch.zeros(1)
        self.calls, self.stop_at = 0, stop_at

    def forward(self, rows):
        if self.stop_at is not None and self.calls == self.stop_at:
            raise KeyboardInterrupt
        self.calls += 1
        self.seen += 1
        error = self.layer(self.dropout(X[rows])).squeeze(-1) - Y[rows]
        return error.square().sum(), torch.tensor(float(len(rows)))


def batches(epoch):
    order = torch.randperm(64, generator=torch.Generator().manual_seed(epoch))
    return order.split(8)


def run(tmp_path, name, model, *, resume=False, seed=0, average_from=0.5, **options):
    recipe = Recipe(
        learning_rate=0.05, average_from=average_from, seed=seed, precision="fp32", checkpoint_seconds=0.0, **options
    )
    log = fit(
        model, batches, 6, recipe, tmp_path / name, settings={"seed": seed}, resume=resume,
        buffers={"seen": model.seen},
    )  # fmt: skip
    return log, model.layer.weight.detach().clone()


def test_it_learns(tmp_path):
    log, _ = run(tmp_path, "a", Regression())
    assert log[-1]["loss"] < log[0]["loss"] / 2
    assert [entry["epoch"] for entry in log] == list(range(6))
    assert (tmp_path / "a" / "log.jsonl").read_text().count("\n") == 6


def test_a_seed_gives_the_same_numbers_again(tmp_path):
    _, first = run(tmp_path, "a", Regression())
    _, again = run(tmp_path, "b", Regression())
    _, other = run(tmp_path, "c", Regression(), seed=1)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("stop_at", [3, 8, 29, 47])
def test_resumed_training_ends_with_the_weights_of_an_uninterrupted_run(tmp_path, stop_at):
    whole_log, whole = run(tmp_path, "whole", Regression())
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "killed", Regression(stop_at))
    resumed = Regression()
    log, weight = run(tmp_path, "killed", resumed, resume=True)
    assert torch.equal(weight, whole)
    assert resumed.seen.item() == 48  # the buffer went on where it stood, too
    assert resumed.calls == 48 - stop_at
    assert [entry["epoch"] for entry in log] == [entry["epoch"] for entry in whole_log]


def test_other_settings_are_not_resumed(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "a", Regression(5))
    with pytest.raises(ArtefactError, match="written with other settings"):
        run(tmp_path, "a", Regression(), seed=1, resume=True)


def test_micro_batches_add_up_to_the_batch(tmp_path):
    class Still(Regression):
        def __init__(self):
            super().__init__()
            self.dropout = nn.Identity()

    recipe = Recipe(learning_rate=0.05, precision="fp32")
    weights = []
    for name, parts in (("whole", 1), ("micro", 4)):
        model = Still()
        made = Batches(3, lambda _, parts=parts: list(torch.arange(16).split(16 // parts)))
        fit(model, lambda _, made=made: made, 1, recipe, tmp_path / name, settings={})
        weights.append(model.layer.weight.detach())
    torch.testing.assert_close(weights[0], weights[1])


def test_schedule_warms_up_and_ends_at_zero():
    rates = [learning_rate_at(step, 100, 0.1) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == 1.0
    assert rates[-1] < 0.001


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sead: 3\n", "unknown key 'sead'"),
        ("seed: many\n", "seed is 'many'"),
        ("- 1\n- 2\n", "holds list"),
        ("a: [\n", "is not YAML"),
    ],
)
def test_a_wrong_config_is_one_line(tmp_path, text, message):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        TrainingConfig.load(path)
    assert "\n" not in str(caught.value)


def test_the_command_line_wins_over_the_config(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps({"seed": 1, "precision": "fp32"}))
    settings = TrainingConfig.load(path, seed=7, precision=None)
    assert (settings.seed, settings.precision) == (7, "fp32")
