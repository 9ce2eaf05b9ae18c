"""A tiny language model with a tokenizer, tasks of one's own, and where the harnesses' interpreters are, for tests that run them."""

import json
import os
from pathlib import Path

import pytest

from evaluators.harness.environment import interpreter, versions
from evaluators.harness.known import code_digest
from evaluators.harness.spec import Harness, HarnessTask
from foundation.errors import ConfigError

CHARACTERS = "0123456789+=?ABCD .:\nQ"
SUMS = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: sums.jsonl}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}="
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
target_delimiter: ""
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}, {{metric: acc_norm, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 1.0}}
"""
SPOKEN = """
task: spoken_sums
dataset_path: json
dataset_kwargs: {data_files: {test: sums.jsonl}}
test_split: test
fewshot_split: test
output_type: generate_until
doc_to_text: "{{question}}="
doc_to_target: "{{choices[answer]}}"
target_delimiter: ""
generation_kwargs: {until: ["="], max_gen_toks: 4, do_sample: false}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
metadata: {version: 1.0}
"""
GROUP = """
group: all_sums
task: [sums, more_sums]
aggregate_metric_list: [{metric: acc, weight_by_size: true}]
metadata: {version: 1.0}
"""


def python_of(harness: Harness) -> str:
    """The harness's interpreter; without one (or with another version) the test is skipped, saying why."""
    root = Path(__file__).parents[1]
    try:
        given = None if os.environ.get(f"MERGELINE_{harness.value.upper()}") else str(root / ".harness" / harness.value / "bin" / "python")
        found = interpreter(harness, given)
        versions(harness, found)
    except ConfigError as error:
        pytest.skip(str(error))
    return str(found)


def tiny_lm(directory: Path) -> Path:
    """A random Llama of a few thousand parameters that reads single characters, as a Hugging Face directory."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = ["<pad>", "<eos>", "<unk>", *CHARACTERS]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>").save_pretrained(directory)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(words), bos_token_id=None, eos_token_id=1, pad_token_id=0, **sizes))
    with torch.no_grad():  # large weights, so that it does not answer every question alike
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8)
    model.save_pretrained(directory)
    return directory


def sum_tasks(directory: Path) -> Path:
    """Tasks in a directory: `sums` and `more_sums` (choices), `all_sums` (their group), `spoken_sums` (generated); of 20 documents each."""
    directory.mkdir(parents=True)
    rows = [{"question": f"{a}+{b}", "choices": [str(a + b), str((a + b + 1) % 10)], "answer": 0} for a in range(4) for b in range(5)]
    (directory / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in ("sums", "more_sums"):
        (directory / f"{name}.yaml").write_text(SUMS.format(name=name))
    (directory / "spoken.yaml").write_text(SPOKEN)
    (directory / "group.yaml").write_text(GROUP)
    return directory


def own_task(name: str, task: str, directory: Path, python: str, **changes: object) -> HarnessTask:
    """A task of lm-eval that is read from the user's directory."""
    return HarnessTask(
        name, Harness.LM_EVAL, task, directory=str(directory), code=code_digest(directory), python=python, **{"batch_size": 4, **changes}
    )
