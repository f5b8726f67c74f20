"""Each lever of a recipe trains, and the same recipe gives the same network."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from training import explore
from training.explore import Recipe

SMALL = {"network": "resnet18", "epochs": 1, "sizes": "32", "batch": 16, "evaluate_at": "32"}


@pytest.fixture(scope="module")
def photographs(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> explore.Photographs:
    folder = shutil.copytree(labelled, tmp_path_factory.mktemp("described"), dirs_exist_ok=True)
    sides = {side: {"value": 2.0} for side in ("height", "length", "width")}
    with (folder / "metadata.jsonl").open("w") as file:
        for number in range(0, 96, 2):
            items = {"A": {"name": f"red box {number % 3}", "quantity": number % 7, **sides}}
            file.write(json.dumps({"id": f"b{number}", "BIN_FCSKU_DATA": items}) + "\n")
    return explore.Photographs(folder, torch.device("cpu"))


@pytest.mark.parametrize(
    "lever",
    [
        {},
        {"objective": "ordered"},
        {"objective": "soft", "objective_weight": 0.5},
        {"objective": "tail"},
        {"mixed": 0.2},
        {"words": 1.0, "kinds": 0.3, "volume": 0.3},
        {"pairs": 0.3},
        {"share": 0.5},
        {"fold": 1},
    ],
    ids=str,
)
def test_each_lever_trains(photographs: explore.Photographs, lever: dict[str, object]) -> None:
    found = explore.train(Recipe(**SMALL | lever), photographs)
    assert found["loss"] > 0
    assert 0 < found["32"]["log_loss"] < 5


def test_a_recipe_repeats_itself_by_its_seed(photographs: explore.Photographs) -> None:
    first, again, other = (
        {k: v for k, v in explore.train(Recipe(**SMALL, seed=seed), photographs).items() if k != "seconds"}
        for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_seven_outputs_of_a_longer_head_keep_its_probabilities() -> None:
    logits = torch.randn(4, explore.TAIL)
    seven = torch.softmax(explore.seven(logits), 1)
    longer = torch.softmax(logits, 1)
    assert torch.allclose(seven[:, :6], longer[:, :6])
    assert np.allclose(seven[:, 6], longer[:, 6:].sum(1))
