"""What a merge leaves on disk and tells about it: a whole model directory, its card, its plan, its counts."""

import json
import os
import pickle
import stat
import subprocess
import sys
import time
from pathlib import Path

import torch
from small_models import random_tensors

from foundation.files import directory_manifest
from mergers import WeightedAverage, WiseFT, plan_merge


def test_output_is_a_whole_directory_and_nothing_else(bench):
    """Seed defects 9 and 10: processor and template were left behind, weights were written twice."""
    previous, tuned = bench.save("p", random_tensors(1)), bench.save("t", random_tensors(2), {"model_type": "llama", "mm_setting": 1})
    for name in ("generation_config.json", "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "tokenizer.model"):
        (previous / name).write_text("previous")
        (tuned / name).write_text("tuned")
    for name in ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json"):
        (previous / name).write_text("previous")
    (tuned / "chat_template.jinja").write_text("tuned")
    (tuned / "additional_chat_templates").mkdir()
    (tuned / "additional_chat_templates" / "tool.jinja").write_text("tuned")
    for name in (
        "modeling.py",
        "training_args.bin",
        "optimizer.pt",
        "trainer_state.json",
        "all_results.json",
        "README.md",
        "adapter_config.json",
    ):
        (tuned / name).write_text("not wanted")
    result = bench.merge(WiseFT(0.1), previous=previous, tuned=tuned)
    out = bench.root / "out"
    wanted = {
        "additional_chat_templates/tool.jinja",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "merges.txt",
        "vocab.json",
    }
    wanted |= {"tokenizer.json", "tokenizer.model", "tokenizer_config.json", "README.md", "model.safetensors"}
    assert result.files.keys() == wanted | {"preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json"}
    assert json.loads((out / "config.json").read_text())["mm_setting"] == 1, "what the last stage set must not be lost"
    assert (out / "tokenizer.json").read_text() == "tuned"
    assert (out / "preprocessor_config.json").read_text() == "previous", "a group the tuned model lacks comes from the previous"
    assert result.files == directory_manifest(out)
    other = bench.merge(WiseFT(0.1), "other", previous=previous, tuned=tuned, options={"files_from": "previous"})
    assert (other.output / "tokenizer.json").read_text() == "previous"


def test_groups_of_files_are_not_mixed(bench):
    a, b = bench.save("a", random_tensors(1)), bench.save("b", random_tensors(2))
    (a / "tokenizer.json").write_text("{}")
    for name in ("tokenizer.json", "vocab.json", "merges.txt"):
        (b / name).write_text("other")
    result = bench.merge(WeightedAverage(), a=a, b=b)
    assert sorted(result.files) == ["README.md", "config.json", "model.safetensors", "tokenizer.json"]


def test_the_main_source_comes_first_wherever_it_stands(bench):
    previous, tuned = bench.save("p", random_tensors(1)), bench.save("t", random_tensors(2))
    for name in ("tokenizer.json", "vocab.json"):
        (previous / name).write_text("previous")
    (tuned / "tokenizer.json").write_text("tuned")
    result = bench.merge(WiseFT(0.1), previous=previous, tuned=tuned)
    assert "vocab.json" not in result.files, "the previous model's vocabulary does not go with the tuned model's tokenizer"


def test_card_tells_weights_and_sources_and_no_place_or_time(bench):
    paths = {"previous": bench.save("p", random_tensors(1)), "tuned": bench.save("t", random_tensors(2))}
    card = (bench.merge(WiseFT(0.1), **paths).output / "README.md").read_text()
    assert "| previous | weight 0.1 (alpha) | digest-of-previous |" in card
    assert "| tuned | weight 0.9 | digest-of-tuned |" in card
    assert "`wise_ft` (alpha = 0.1)" in card
    assert "5 tensors merged; 0 copied" in card
    assert str(bench.root) not in card
    assert time.strftime("%Y-") not in card


def test_files_are_readable_by_whom_the_umask_allows(bench):
    paths = {"a": bench.save("a", random_tensors(1)), "b": bench.save("b", random_tensors(2))}
    (paths["a"] / "config.json").chmod(0o600)
    before = os.umask(0o027)
    try:
        out = bench.merge(WeightedAverage(), options={"max_shard_size": 800}, **paths).output
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in out.iterdir()} == {0o640}
    assert stat.S_IMODE(out.stat().st_mode) == 0o750


def test_progress_and_byte_counts_add_up(bench):
    seen: list[tuple[int, int]] = []
    paths = {"a": bench.save("a", random_tensors(1)), "b": bench.save("b", random_tensors(2))}
    result = bench.merge(WeightedAverage(), progress=lambda *at: seen.append(at), options={"item_bytes": 200}, **paths)
    total = sum(tensor.numel() * 2 for tensor in random_tensors(1).values())
    assert seen[-1] == (3 * total, 3 * total), "two sources are read, one output is written"
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert len(seen) > 1
    assert (result.bytes_read, result.bytes_written) == (2 * total, total)


def test_work_items_are_small(bench):
    many = {f"model.layers.{index}.weight": torch.zeros(4, 4) for index in range(200)}
    plan = plan_merge(WeightedAverage(), bench.sources(a=bench.save("a", many), b=bench.save("b", many)), bench.root / "out")
    assert len(pickle.dumps(plan.items[0])) < 200 * 400  # some 200 bytes a tensor


def test_importing_mergers_is_light():
    code = (
        "import mergers, sys; mergers.WeightedAverage((0.5, 0.5)).check(['a', 'b']);"
        "print([name for name in ('torch', 'transformers', 'numpy', 'ray') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_merging_does_not_import_transformers(bench):
    code = (
        "import sys; from pathlib import Path; from mergers import *\n"
        "s = [Source(n, read_checkpoint(Path(p))) for n, p in zip('ab', sys.argv[1:3])]\n"
        "execute(plan_merge(WeightedAverage(), s, Path(sys.argv[3]))); print('transformers' in sys.modules)"
    )
    command = [
        sys.executable,
        "-c",
        code,
        str(bench.save("a", random_tensors(1))),
        str(bench.save("b", random_tensors(2))),
        str(bench.root / "out"),
    ]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "False"


def test_describe_spells_the_plan_out(bench):
    paths = {"previous": bench.save("p", random_tensors(1)), "tuned": bench.save("t", random_tensors(2))}
    plan = plan_merge(WiseFT(0.1), bench.sources(**paths), Path(bench.root / "out"))
    text = "\n".join(plan.describe())
    assert "source 'previous': weight 0.1 (alpha)" in text
    assert "source 'tuned': weight 0.9" in text
    assert "wise_ft of previous, tuned: 5 tensors to merge, 0 to copy, 1,027 parameters, reads 4.11 kB, writes 2.05 kB" in text
    assert "model.safetensors" in text
    assert "config.json (from 'tuned')" in text
