"""What methods that thin out task vectors refuse, take, and say of themselves."""

import math

import pytest
import torch
from naive_sparse import ALL

from foundation.errors import ConfigError
from mergers.merger import Inputs
from mergers.methods.breadcrumbs import Breadcrumbs, BreadcrumbsTies
from mergers.methods.dare import DareLinear, DareTies
from mergers.methods.della import Della, DellaLinear
from mergers.methods.sce import Sce
from mergers.methods.ties import Ties, TiesPerTensor


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (Ties((0.5, 0.2, 0.1)), r"3 values of density for 2 sources \(a, b\); give one number for all, or one per source"),
        (Ties((0.5, 0.0)), r"density of 'b' is 0\.0; it is the share of each source's changes to keep"),
        (TiesPerTensor((1.5, 0.5)), r"density of 'a' is 1\.5"),
        (DareLinear((0.5, math.nan)), r"density of 'b' is nan"),
        (DareTies((0.5, 1e-6)), r"density of 'b' is 1e-06, which is 0 as a multiple of 2\^-16"),
        (Breadcrumbs((0.5, 0.9), 0.2), r"density 0\.9 and outliers 0\.2 of 'b' sum to 1\.1; .* lower density to 0\.8, or outliers"),
        (Breadcrumbs(0.5, (0.2,)), r"1 values of outliers for 2 sources"),
        (BreadcrumbsTies(0.5, (0.2, -0.1)), r"outliers of 'b' is -0\.1"),
        (DellaLinear((0.5, 0.9), 0.4), r"density 0\.9 with spread 0\.4 of 'b' asks for probabilities from 0\.7 to 1\.1"),
        (Della(0.5, (0.2, 0.2, 0.2)), r"3 values of spread for 2 sources"),
        (Della(0.5, (2.0, 0.2)), r"spread of 'a' is 2\.0"),
        (
            Ties(0.0),
            r"density is 0\.0; it is the share of each source's changes to keep, largest first, and must lie above 0 and at most 1",
        ),
        (Ties(1.5), r"density is 1\.5"),
        (TiesPerTensor(math.nan), r"density is nan"),
        (Ties(0.5, (1.0,)), r"1 weights for 2 sources \(a, b\); give one weight per source"),
        (Ties(0.5, (1.0, math.inf)), r"the weight of 'b' is inf; .* finite"),
        (Ties(0.5, (1.0, -0.5)), r"the weight of 'b' is -0\.5; where signs are elected or a mean is taken weights must not be negative"),
        (DareLinear(0.5, (1.0, -0.5), normalize=True), r"the weight of 'b' is -0\.5"),
        (Ties(0.5, (0.0, 0.0)), r"all weights are 0 \(a, b\)"),
        (Ties(0.5, scale=math.nan), r"scale is nan"),
        (DareLinear(1e-6), r"density is 1e-06, which is 0 as a multiple of 2\^-16"),
        (DareTies(-0.1), r"density is -0\.1; it is the probability that a change is kept"),
        (Breadcrumbs(0.9, 0.2), r"density 0\.9 and outliers 0\.2 sum to 1\.1; .* lower density to 0\.8, or outliers"),
        (BreadcrumbsTies(0.9, -0.1), r"outliers is -0\.1; .* must lie between 0 and 1"),
        (DellaLinear(0.9, 0.4), r"probabilities from 0\.7 to 1\.1; .* keep spread at most 0\.2"),
        (Della(0.1, 0.2), r"probabilities from 0 to 0\.2; .* keep spread below 0\.2"),
        (Sce(0.0), r"select is 0\.0"),
    ],
)
def test_hyperparameters_that_make_no_sense_are_refused(method, message):
    with pytest.raises(ConfigError, match=message):
        method.check(["a", "b"])


def test_what_is_taken():
    DareLinear(0.5, (1.0, -0.5)).check(["a", "b"])  # taking a task out
    Ties(0.2, (0.0, 2.0)).check(["a", "b"])
    Breadcrumbs(0.9, 0.1).check(["a"])
    with pytest.raises(ConfigError, match="needs at least 2 beside the base, got 1"):
        Sce().check(["a"])
    with pytest.raises(ConfigError, match="no sources to merge"):
        Ties().check([])


def test_roles_tell_the_weight_and_what_is_kept():
    assert Ties(0.2).roles(["a"]) == ("weight 1, largest 0.2 of its changes in the model",)
    assert TiesPerTensor(0.2, (0.5, 2)).roles(["a", "b"])[1] == "weight 2, largest 0.2 of its changes in each tensor"
    assert Ties((1.0, 0.2)).roles(["a", "b"])[1] == "weight 1, largest 0.2 of its changes in the model"
    assert (
        Breadcrumbs((0.9, 0.5), (0.0, 0.25)).roles(["a", "b"])[1] == "weight 1, 0.5 of its changes in each tensor, below the largest 0.25"
    )
    assert DareTies((1.0, 0.25), seed=3).roles(["a", "b"])[1] == "weight 1, 0.25 of its changes at random (seed 3)"
    assert (
        Della((0.5, 0.4), (0.1, 0.3))
        .roles(["a", "b"])[1]
        .startswith("weight 1, 0.4 of its changes at random, the larger the likelier (spread 0.3")
    )
    assert DareLinear(0.1, seed=4).roles(["a"]) == ("weight 1, 0.1 of its changes at random (seed 4)",)
    assert all(len(method.roles(["a", "b", "c"])) == 3 for method in ALL)
    assert all(method.files_from(["a"]) is None for method in ALL)


def test_a_base_is_needed():
    with pytest.raises(RuntimeError, match="tensor 'w' has come without its base"):
        Ties(1.0).merge(Inputs("w", 0, (torch.ones(2), torch.ones(2)), (0, 1)))
