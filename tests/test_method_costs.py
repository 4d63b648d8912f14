"""`benchmarks.method_costs`: a training rests between the steps that it is asked for."""

from pathlib import Path

import pytest
from small_models import small_config, small_pairs, write_pairs

from benchmarks.method_costs import Steps
from panacea_lib.errors import InputError
from panacea_lib.training import TrainConfig, train


def stepped(config: TrainConfig, folder: Path) -> tuple[Steps, list[int]]:
    """The training, and the steps that it has taken."""
    taken: list[int] = []

    def training(on_step, stop_wanted):
        def told(step, *rest):
            taken.append(step)
            on_step(step, *rest)

        return train(config, folder, told, stop_wanted)

    return Steps(training), taken


def test_a_training_takes_the_steps_that_it_is_asked_for_and_ends(tmp_path):
    config = small_config(write_pairs(tmp_path / "pairs.parquet", small_pairs()), steps=8)
    (ours, our_steps), (theirs, their_steps) = (stepped(config, tmp_path / n) for n in "ab")
    for expected in ([1], [1, 2], [1, 2, 3]):
        ours.take()
        assert our_steps == expected and their_steps == expected[:-1]
        theirs.take()
    ours.end()
    theirs.end()
    assert our_steps == their_steps == [1, 2, 3]
    assert not (tmp_path / "a" / "result.json").exists(), "it was stopped, not finished"


def test_what_a_training_raises_is_raised_where_its_step_was_asked_for(tmp_path):
    config = small_config(write_pairs(tmp_path / "pairs.parquet", {"prompt": ["?"]}))
    steps, taken = stepped(config, tmp_path / "out")
    with pytest.raises(InputError, match=r"pairs\.parquet"):
        steps.take()
    assert not taken
    steps.end()


def test_a_training_without_a_step_left_says_so(tmp_path):
    config = small_config(write_pairs(tmp_path / "pairs.parquet", small_pairs()), steps=2)
    steps, taken = stepped(config, tmp_path / "out")
    steps.take()
    steps.take()
    with pytest.raises(RuntimeError, match="all its steps"):
        steps.take()
    assert taken == [1, 2]
