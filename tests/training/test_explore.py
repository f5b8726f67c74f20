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
        {"balance": "sampler"},
        {"balance": "loss"},
        {"balance": "logits"},
        {"words": 1.0, "kinds": 0.3, "volume": 0.3},
        {"exact": 0.5},
        {"pairs": 0.3},
    ],
    ids=str,
)
def test_each_lever_trains(photographs: explore.Photographs, lever: dict[str, object]) -> None:
    found = explore.train(Recipe(**SMALL | lever), photographs)
    assert found["loss"] > 0
    assert 0 < found["32"]["log_loss"] < 5


def test_what_else_is_told_is_learnt(photographs: explore.Photographs) -> None:
    net = explore.Counting(Recipe(network="resnet18"))
    chosen = torch.arange(16)
    features = torch.randn(16, 512)
    for lever in ("words", "kinds", "volume", "exact", "pairs"):
        net.zero_grad()
        explore.others(Recipe(**{lever: 1.0}), net, features, photographs, chosen).backward()
        head = {"pairs": "difference"}.get(lever, lever)
        moved = {name.partition(".")[0] for name, p in net.named_parameters() if p.grad is not None and p.grad.any()}
        assert moved == {head}


def test_a_pair_tells_how_many_items_apart_it_is(photographs: explore.Photographs) -> None:
    net = explore.Counting(Recipe(network="resnet18", pairs=1.0))
    with torch.no_grad():
        net.difference.weight.fill_(1.0)
    features = torch.zeros(4, 512)
    chosen = torch.tensor([0, 1, 2, 5])  # 0 and 1 are of one bin, an item apart; 2 and 5 are of others
    features[1] = 1 / 512  # told apart by one
    assert explore.others(Recipe(pairs=1.0), net, features, photographs, chosen).item() < 1e-6
    features[1] = -1 / 512
    assert explore.others(Recipe(pairs=1.0), net, features, photographs, chosen).item() > 1


def test_each_objective_is_least_where_it_is_right(photographs: explore.Photographs) -> None:
    chosen = torch.arange(7)
    labels = photographs.exact[chosen].clamp(max=6)
    for objective in ("classes", "ordered", "soft", "tail"):
        recipe = Recipe(objective=objective)
        outputs = explore.TAIL if objective == "tail" else 7
        right = 3.0 * torch.nn.functional.one_hot(photographs.exact[chosen], outputs).float()
        near, far = (right.roll(shift, 0) for shift in (1, 3))
        losses = [float(explore.objective(recipe, z, labels, photographs, chosen)) for z in (right, near, far)]
        assert losses[0] < min(losses[1:])
        if objective in ("ordered", "soft"):
            assert losses[1] < losses[2]


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
