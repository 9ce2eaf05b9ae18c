"""How far the experts of one checkpoint are apart, held against the definitions written naively in float64."""

import pytest
import torch
from small_experts import OWN, saved, seed_of, tensors_of

from foundation.errors import InputError
from mergers import InProcess
from mergers.experts import EXPERTS, expert_distances


def vectors(held, names, seed=None):
    """Two experts' tensors in common, one after the other; of task vectors, given a seed. With the cut vectors of the truncated SSD."""
    whole, cut = ([], []), ([], [])
    for name in sorted(held):
        parts = name.split(".")
        owned = [".".join(names[index] if part == names[0] else part for part in parts) for index in range(2)]
        if names[0] not in parts or owned[1] not in held:
            continue
        shared = ".".join(part for part in parts if part != names[0])
        for index in range(2):
            vector = held[owned[index]].double().flatten() - (seed[shared].double().flatten() if seed else 0)
            kept = max(1, int(0.2 * vector.numel()))
            least = vector.abs().sort(descending=True).values[kept - 1]
            whole[index].append(vector)
            cut[index].append(torch.where(vector.abs() >= least, vector, 0.0))
    return [torch.cat(side) for side in whole], [torch.cat(side) for side in cut]


def dissimilarity(first, second):
    there = (first != 0) | (second != 0)
    return 1 - float(((first + second).abs()[there] / (first.abs() + second.abs())[there]).mean())


@pytest.mark.parametrize("sharing", [sharing for sharing in OWN if sharing != "shared"])
@pytest.mark.parametrize("of_task_vectors", [False, True], ids=["weights", "task vectors"])
def test_whole_model_figures_of_every_pair(bench, sharing, of_task_vectors):
    held, seed = tensors_of(sharing), tensors_of("shared", 7)
    base = seed_of(bench, seed).checkpoint if of_task_vectors else None
    found = expert_distances(saved(bench, "moe", sharing, held), base=base)
    assert list(found) == [("v", "l"), ("v", "vl"), ("l", "vl")]
    for pair, metrics in found.items():
        (first, second), (first_cut, second_cut) = vectors(held, pair, seed if of_task_vectors else None)
        assert metrics["elements"] == len(first)
        assert metrics["l2"] == pytest.approx(float((first - second).norm()), rel=1e-12)  # float64 sums
        assert metrics["relative_l2"] == pytest.approx(float((first - second).norm() / first.norm()), rel=1e-12)
        assert metrics["cosine"] == pytest.approx(float(first @ second / first.norm() / second.norm()), rel=1e-9)
        assert metrics["ssd"] == pytest.approx(dissimilarity(first, second), rel=1e-12)
        assert metrics["truncated_ssd"] == pytest.approx(dissimilarity(first_cut, second_cut), rel=1e-9)


def test_vision_language_experts_are_compared_in_the_upper_layers_only(bench):
    checkpoint = saved(bench, "moe", "all", tensors_of("all"))
    found = expert_distances(checkpoint, executor=InProcess(2))
    assert found[("v", "l")]["elements"] == 3 * found[("v", "vl")]["elements"]
    assert found == expert_distances(checkpoint)
    two = expert_distances(checkpoint, EXPERTS[:2])
    assert two == {("v", "l"): found[("v", "l")]}


def test_equal_experts_are_at_no_distance(bench):
    held = tensors_of("all")
    for name in [name for name in held if ".l." in name]:
        held[name] = held[name.replace(".l.", ".v.")].clone()
    metrics = expert_distances(saved(bench, "moe", "all", held), EXPERTS[:2])[("v", "l")]
    assert (metrics["l2"], metrics["cosine"], metrics["ssd"], metrics["truncated_ssd"]) == (0, 1, 0, 0)


def test_a_shared_model_has_no_experts_to_compare(bench):
    with pytest.raises(InputError, match="has no experts"):
        expert_distances(saved(bench, "one", "shared", tensors_of("shared")))
