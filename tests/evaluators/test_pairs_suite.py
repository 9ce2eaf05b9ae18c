"""The checks of a suite of pair sets, and that making one needs no heavy library."""

import subprocess
import sys

import pytest

from evaluators.pairs.suite import Asked, PairSuite
from foundation.errors import ConfigError
from tasks.pairs.registry import get_pair_set
from tasks.task import Split

CAPTIONS, LABELS = get_pair_set("digits_captions"), get_pair_set("digits_labels")


def test_sets_are_held_out_then_stream() -> None:
    suite = PairSuite((Asked(CAPTIONS, rerank=4),), (Asked(LABELS),))
    assert [asked.name for asked in suite.tasks] == ["digits_labels", "digits_captions"]
    assert (suite.split, suite.samples) == (Split.TEST, None)


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="asks nothing"):
        PairSuite(())
    with pytest.raises(ConfigError, match="'digits_labels' more than once"):
        PairSuite((Asked(LABELS),), (Asked(LABELS),))
    with pytest.raises(ConfigError, match="1 records per set"):
        PairSuite((Asked(LABELS),), samples=1)
    with pytest.raises(ConfigError, match="'digits_labels' is asked for labels; leave it out"):
        Asked(LABELS, rerank=4)
    with pytest.raises(ConfigError, match="rerank -1 of set 'digits_captions'"):
        Asked(CAPTIONS, rerank=-1)


def test_light_to_import() -> None:
    heavy = "{'torch', 'transformers', 'sklearn', 'matplotlib', 'pyarrow', 'pandas'}"
    code = (
        f"import sys, evaluators.pairs.suite, evaluators.pairs.gallery, evaluators.pairs.recalls; print(sorted({heavy} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
