import json

import pytest
import torch
from torch import nn

from audiobert.errors import ArtefactError, InputError
from audiobert.training.config import TrainingConfig
from audiobert.training.loop import Batches, Recipe, RowBatches, fit, learning_rate_at

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


def test_rows_of_a_batch_are_shared_out_whole():
    made = RowBatches([list(range(7)), [7]], lambda index, rows: (index, list(rows)))
    for parts in (1, 2, 3):
        shares = [made.share(0, process, 3, parts) for process in range(3)]
        assert sorted(row for share in shares for _, rows in share for row in rows) == list(range(7))
        assert max(len(share) for share in shares) <= parts
    assert made[0] == (0, list(range(7)))
    assert [made.share(1, process, 3, 2) for process in range(3)] == [[(1, [7])], [], []]


def test_micro_batches_of_rows_add_up_to_the_batch(tmp_path):
    weights = []
    for micro_batches in (1, 3):
        model = Regression()
        model.dropout = nn.Identity()
        rows = RowBatches([list(range(16)), list(range(16, 32))], lambda _, rows: torch.tensor(rows))
        recipe = Recipe(learning_rate=0.05, precision="fp32", micro_batches=micro_batches)
        fit(model, lambda _, rows=rows: rows, 1, recipe, tmp_path / str(micro_batches), settings={})
        weights.append(model.layer.weight.detach())
    torch.testing.assert_close(weights[0], weights[1])


def kept(tmp_path, name, keep, *, model=None, resume=False, best_by="score", average_from=0.5):
    """Train for four epochs whose figures are 1, 3, 2, 0; the weights that are the result."""
    model = model or Regression()
    recipe = Recipe(learning_rate=0.05, precision="fp32", keep=keep, best_by=best_by, average_from=average_from)
    after = []

    def figures(epoch):
        after.append(model.layer.weight.detach().clone())
        return {"score": [1.0, 3.0, 2.0, 0.0][epoch]}

    fit(
        model, batches, 4, recipe, tmp_path / name, settings={"keep": keep}, after_epoch=figures, resume=resume
    )  # fmt: skip
    return model.layer.weight.detach().clone(), after


def test_best_last_and_average_are_kept(tmp_path):
    best, after = kept(tmp_path, "a", "best")
    assert torch.equal(best, after[1])
    lowest, after = kept(tmp_path, "b", "best", best_by="-score")
    assert torch.equal(lowest, after[3])
    last, after = kept(tmp_path, "c", "last")
    assert torch.equal(last, after[3])
    average, after = kept(tmp_path, "d", "average")
    assert not any(torch.equal(average, weight) for weight in after)


def test_another_result_of_a_finished_training_is_chosen_without_training_again(tmp_path):
    best, _ = kept(tmp_path, "a", "best")
    for keep in ("last", "average", "best"):
        model = Regression()
        chosen, _ = kept(tmp_path, "a", keep, model=model, resume=True)
        fresh, _ = kept(tmp_path, keep, keep)
        assert model.calls == 0
        assert torch.equal(chosen, fresh)
    assert torch.equal(chosen, best)


def test_best_needs_a_figure_to_choose_by(tmp_path):
    with pytest.raises(InputError, match="keep is 'best'"):
        kept(tmp_path, "a", "best", best_by="")


def test_a_key_that_an_older_version_did_not_know_does_not_stop_a_resume(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "a", Regression(5))
    recipe = Recipe(learning_rate=0.05, average_from=0.5, precision="fp32")
    settings = {"seed": 0, "new": "default"}
    model = Regression()
    fit(model, batches, 6, recipe, tmp_path / "a", settings=settings, resume=True, buffers={"seen": model.seen})
    assert model.calls == 43


def test_out_of_memory_says_what_to_lower(tmp_path):
    class Greedy(Regression):
        def forward(self, rows):
            raise torch.OutOfMemoryError(f"tried to allocate {len(rows)} GiB")

    with pytest.raises(InputError, match=r"raise micro_batches \(now 1") as caught:
        run(tmp_path, "a", Greedy())
    assert "\n" not in str(caught.value)


def test_tensorboard_shows_loss_and_figures(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    kept(tmp_path, "a", "last")
    events = accumulator.EventAccumulator(str(tmp_path / "a" / "tensorboard"))
    events.Reload()
    assert [event.value for event in events.Scalars("score")] == [1.0, 3.0, 2.0, 0.0]
    assert [event.step for event in events.Scalars("loss")] == list(range(1, 33))
