import json
import multiprocessing
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import BaseModel
from torch import nn

from audiobert.artefacts import locked
from audiobert.errors import ArtefactError, InputError
from audiobert.training.config import TrainingConfig
from audiobert.training.loop import Batches, ParameterGroup, Recipe, RowBatches, fit
from audiobert.training.step import in_bfloat16, make_optimizer

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


def uneven_batches(epoch):
    """Epochs of 8, 3, 5, 8, 3 and 5 batches."""
    return batches(epoch)[: (8, 3, 5)[epoch % 3]]


def run(
    tmp_path, name, model, *, resume=False, overwrite=False, seed=0, average_from=0.5, make=batches, epochs=6, **options
):
    config = TrainingConfig(seed=seed, precision="fp32", average_from=average_from, **options)
    recipe = Recipe.of(config, learning_rate=0.05, checkpoint_seconds=0.0)
    log = fit(
        model, make, epochs, recipe, tmp_path / name, settings=config, resume=resume, overwrite=overwrite,
        buffers={"seen": model.seen},
    )  # fmt: skip
    return log, model.layer.weight.detach().clone()


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


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


@pytest.mark.parametrize("stop_at", [0, 3, 8, 11, 20, 31])
def test_resumed_training_ends_as_an_uninterrupted_run_to_the_last_byte(tmp_path, stop_at):
    whole_log, whole = run(tmp_path, "whole", Regression(), make=uneven_batches)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "killed", Regression(stop_at), make=uneven_batches)
    resumed = Regression()
    log, weight = run(tmp_path, "killed", resumed, make=uneven_batches, resume=True)
    assert torch.equal(weight, whole)
    assert resumed.seen.item() == 32  # buffers are restored, too
    assert resumed.calls == 32 - stop_at
    assert log == whole_log
    assert files(tmp_path / "whole") == files(tmp_path / "killed")


def test_a_finished_training_that_is_resumed_does_nothing_and_logs_nothing_twice(tmp_path):
    log, weight = run(tmp_path, "a", Regression(), make=uneven_batches)
    before = files(tmp_path / "a")
    again = Regression()
    log_again, weight_again = run(tmp_path, "a", again, make=uneven_batches, resume=True)
    assert again.calls == 0
    assert log_again == log
    assert [entry["epoch"] for entry in log] == list(range(6))
    assert torch.equal(weight, weight_again)
    assert files(tmp_path / "a") == before


def test_the_schedule_ends_with_the_last_step_of_epochs_of_different_lengths(tmp_path):
    """The rate of a step follows the cosine over all 32 steps, after a warm-up over 3."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run(tmp_path, "a", Regression(), make=uneven_batches)
    events = accumulator.EventAccumulator(str(tmp_path / "a" / "tensorboard"))
    events.Reload()
    rates = [event.value for event in events.Scalars("learning_rate")]
    expected = [min(1, step / 3) * (0.5 + 0.5 * np.cos(np.pi * max(0, step - 3) / 29)) for step in range(32)]
    assert rates == pytest.approx([0.05 * factor for factor in expected], rel=1e-5)


def test_a_constant_schedule_keeps_the_rate_after_the_warm_up(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    _, whole = run(tmp_path, "a", Regression(), make=uneven_batches, schedule="constant")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "b", Regression(9), make=uneven_batches, schedule="constant")
    _, resumed = run(tmp_path, "b", Regression(), make=uneven_batches, schedule="constant", resume=True)
    assert torch.equal(whole, resumed)
    events = accumulator.EventAccumulator(str(tmp_path / "a" / "tensorboard"))
    events.Reload()
    rates = [event.value for event in events.Scalars("learning_rate")]
    assert rates == pytest.approx([0.05 * min(1, step / 3) for step in range(32)], rel=1e-5)


def test_bfloat16_on_a_cpu_is_used_where_it_is_fast(monkeypatch):
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    for capabilities, fast in ({"amx_bf16": True}, True), ({"avx512_bf16": True}, False):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=capabilities: found, raising=False)
        assert in_bfloat16("bf16", cpu) == fast
        assert in_bfloat16("bf16", cuda)
        assert not in_bfloat16("fp32", cpu) and not in_bfloat16("fp32", cuda)
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not in_bfloat16("bf16", cpu)


def test_the_average_is_the_mean_of_the_weights_after_average_from(tmp_path):
    class Kept(Regression):
        def forward(self, rows):
            after.append(self.layer.weight.detach().clone())
            return super().forward(rows)

    after: list[torch.Tensor] = []
    _, average = run(tmp_path, "a", Kept(), average_from=0.75)
    _, last = run(tmp_path, "b", Regression(), average_from=0.75, keep="last")
    expected = torch.stack([*after[37:], last]).mean(dim=0)  # after steps 37 to 48
    torch.testing.assert_close(average, expected)


def test_noise_of_numpy_and_python_follows_the_seed_and_the_step(tmp_path):
    """transformers masks audio features by numpy's generator, and third-party layers use Python's."""

    class Noisy(Regression):
        def forward(self, rows):
            drawn.append((float(np.random.rand()), random.random()))
            return super().forward(rows)

    sequences = []
    for name, seed, stop in (("a", 0, None), ("b", 0, 20), ("c", 1, None)):
        drawn: list[tuple[float, float]] = []
        if stop:
            with pytest.raises(KeyboardInterrupt):
                run(tmp_path, name, Noisy(stop), seed=seed)
            drawn.pop()
        run(tmp_path, name, Noisy(), seed=seed, resume=bool(stop))
        sequences.append(drawn)
    assert sequences[0] == sequences[1]
    assert not set(sequences[0]) & set(sequences[2])


class Slow(Regression):
    def forward(self, rows):
        time.sleep(0.005)
        return super().forward(rows)


def train_slowly(folder, begun):
    """Continue a training in a process of its own."""
    torch.set_num_threads(1)
    begun.set()
    run(folder, "killed", Slow(), make=uneven_batches, epochs=12, resume=True)


def kill_and_resume(folder, waits):
    """Kill a training after each of these waits, then let it finish; return how many kills came before its end."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["audiobert.training.loop", "torch.utils.tensorboard", "pytest"])
    kills = 0
    for wait in [*waits, None]:
        begun = context.Event()
        process = context.Process(target=train_slowly, args=(folder, begun))
        process.start()
        assert begun.wait(200)
        if wait is not None:
            time.sleep(wait)
            process.kill()
        process.join()
        kills += process.exitcode != 0
    return kills


@pytest.mark.slow
def test_a_training_that_is_killed_ends_as_one_that_is_not(tmp_path):
    draw = random.Random(0)
    run(tmp_path, "whole", Regression(), make=uneven_batches, epochs=12)
    kills = kill_and_resume(tmp_path, [draw.uniform(0.0, 0.5) for _ in range(6)])
    assert kills
    after = {name: content for name, content in files(tmp_path / "killed").items() if not name.endswith(".part")}
    assert after == files(tmp_path / "whole")


def test_other_settings_are_not_resumed(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "a", Regression(5))
    with pytest.raises(ArtefactError, match=r"written with other settings \(seed: 0, now 1\)"):
        run(tmp_path, "a", Regression(), seed=1, resume=True)


def test_weights_of_an_earlier_training_are_replaced_only_when_asked_for(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "a", Regression(20))
    (tmp_path / "a" / "notes.txt").write_text("mine")
    before = files(tmp_path / "a")
    with pytest.raises(InputError, match=r"give --resume to continue it, --overwrite to replace it") as caught:
        run(tmp_path, "a", Regression())
    assert "\n" not in str(caught.value)
    assert files(tmp_path / "a") == before
    model = Regression()
    run(tmp_path, "a", model, seed=1, overwrite=True)
    assert model.calls == 48
    assert (tmp_path / "a" / "notes.txt").read_text() == "mine"


def test_two_trainings_never_write_one_folder(tmp_path):
    refused = pytest.raises(InputError, match="another process is writing to")
    with ThreadPoolExecutor(1) as pool, locked(tmp_path / "a"), refused:
        pool.submit(run, tmp_path, "a", Regression()).result()
    assert list(tmp_path.rglob("*.safetensors")) == []
    run(tmp_path, "a", Regression())


@pytest.mark.parametrize("resume", [False, True])
def test_weights_that_no_checkpoint_belongs_to_are_not_replaced(tmp_path, resume):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "detector.safetensors").write_bytes(b"shipped")
    with pytest.raises(InputError, match=r"holds detector\.safetensors"):
        run(tmp_path, "a", Regression(), resume=resume)
    assert files(tmp_path / "a") == {"detector.safetensors": b"shipped"}


def test_a_second_training_in_the_same_folder_is_refused(tmp_path):
    refused = []

    class Crowded(Regression):
        def forward(self, rows):
            if not refused:
                thread = threading.Thread(target=second)
                thread.start()
                thread.join()
            return super().forward(rows)

    def second():
        try:
            run(tmp_path, "a", Regression(), resume=True)
        except InputError as error:
            refused.append(str(error))

    model = Crowded()
    run(tmp_path, "a", model)
    assert "is writing to" in refused[0]
    assert model.calls == 48


def test_an_output_folder_that_is_a_file_is_one_line(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(InputError, match="is a file; give a folder"):
        run(tmp_path, "a", Regression())


def test_nothing_to_train_on_is_one_line(tmp_path):
    with pytest.raises(InputError, match="nothing to train on"):
        run(tmp_path, "a", Regression(), make=lambda _: [])


def test_groups_have_learning_rates_of_their_own():
    model = nn.ModuleDict({"weight": nn.Linear(2, 2), "weighty": nn.Linear(2, 2)})  # no name decides
    group = ParameterGroup(list(model["weight"].parameters()), 0.5)
    optimizer = make_optimizer(dict(model.named_parameters()), Recipe(learning_rate=0.1, weight_decay=0.3), [group])
    found = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert found == {
        id(model["weight"].weight): (0.05, 0.3),
        id(model["weight"].bias): (0.05, 0.0),
        id(model["weighty"].weight): (0.1, 0.3),
        id(model["weighty"].bias): (0.1, 0.0),
    }
    with pytest.raises(ValueError, match="two groups"):
        make_optimizer({}, Recipe(learning_rate=0.1), [group, group])


def test_a_frozen_factor_keeps_a_group_where_it_is(tmp_path):
    model = Regression()
    before = model.layer.bias.detach().clone()
    config = TrainingConfig(precision="fp32")
    groups = [ParameterGroup([model.layer.bias], 0.0)]
    fit(model, batches, 1, Recipe.of(config, learning_rate=0.05), tmp_path, settings=config, groups=groups)
    assert torch.equal(model.layer.bias, before)


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
        fit(model, lambda _, made=made: made, 1, recipe, tmp_path / name, settings=TrainingConfig())
        weights.append(model.layer.weight.detach())
    torch.testing.assert_close(weights[0], weights[1])


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
        fit(model, lambda _, rows=rows: rows, 1, recipe, tmp_path / str(micro_batches), settings=TrainingConfig())
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

    settings = TrainingConfig(keep=keep)
    fit(model, batches, 4, recipe, tmp_path / name, settings=settings, after_epoch=figures, resume=resume)
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


def test_best_weights_that_are_lost_are_one_line(tmp_path):
    kept(tmp_path, "a", "last")
    (tmp_path / "a" / "best.safetensors").unlink()
    with pytest.raises(ArtefactError, match=r"best\.safetensors is missing"):
        kept(tmp_path, "a", "best", resume=True)


class Part(BaseModel):
    width: int = 4


class Newer(TrainingConfig):
    """A later version of the settings: it has two more."""

    new: str = "default"
    part: Part = Part()


@pytest.mark.parametrize(
    ("changes", "message"),
    [({}, ""), ({"new": "other"}, "new: default, now other"), ({"part": {"width": 5}}, r"part\.width: 4, now 5")],
)
def test_a_setting_that_the_checkpoint_lacks_is_compared_at_its_default(tmp_path, changes, message):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "a", Regression(5))
    path = tmp_path / "a" / "settings.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"gone": 1}))  # one that the code has no longer
    model = Regression()
    settings: dict[str, Any] = {"precision": "fp32", "average_from": 0.5, **changes}
    config = Newer(**settings)
    recipe = Recipe.of(config, learning_rate=0.05)

    def resume():
        fit(model, batches, 6, recipe, tmp_path / "a", settings=config, resume=True, buffers={"seen": model.seen})

    if message:
        with pytest.raises(ArtefactError, match=message):
            resume()
    else:
        resume()
    assert model.calls == (0 if message else 43)


def test_a_damaged_checkpoint_is_one_line(tmp_path):
    run(tmp_path, "a", Regression())
    (tmp_path / "a" / "checkpoint.safetensors").write_bytes(b"{}")
    with pytest.raises(ArtefactError, match="is damaged"):
        run(tmp_path, "a", Regression(), resume=True)


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
