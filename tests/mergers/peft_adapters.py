"""Makes models, LoRA adapters and merged models with PEFT, for test_adapters.py. Run by an environment that has PEFT, not by this one.

python peft_adapters.py DIRECTORY
"""

import sys
from pathlib import Path

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model

TEXT = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    "vocab_size": 64, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
VISION = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16, "patch_size": 8}


def llama(tied=False):
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**TEXT, tie_word_embeddings=tied))


def tied():
    return llama(True)


def qwen2():
    return transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**TEXT))


def gpt2():
    config = transformers.GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=64, n_positions=16, bos_token_id=1, eos_token_id=2)
    return transformers.GPT2LMHeadModel(config)


def llava():
    text, vision = transformers.Qwen2Config(**TEXT), transformers.SiglipVisionConfig(**VISION)
    return transformers.LlavaForConditionalGeneration(transformers.LlavaConfig(vision_config=vision, text_config=text, image_token_id=3))


CASES = {
    "patterns": (llama, {
        "target_modules": ["q_proj", "down_proj"], "rank_pattern": {"layers.0.self_attn.q_proj": 2, "down_proj": 3},
        "alpha_pattern": {"down_proj": 5}, "use_rslora": True,
    }),
    "saved": (llama, {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "embed_tokens", "input_layernorm"]}),
    "embedding": (llama, {"target_modules": ["q_proj", "embed_tokens", "lm_head"]}),
    "tied": (tied, {"target_modules": ["q_proj", "embed_tokens"]}),
    "tokens": (llama, {"target_modules": ["q_proj"], "trainable_token_indices": [5, 60, 7]}),
    "bias": (qwen2, {"target_modules": ["q_proj"], "bias": "all"}),
    "transposed": (gpt2, {"target_modules": ["c_attn", "c_fc", "c_proj"], "fan_in_fan_out": True}),
    "llava": (llava, {"target_modules": ["q_proj", "linear_1", "fc1", "embed_tokens"], "modules_to_save": ["linear_2"]}),
    "stacked": (llama, {"target_modules": ["q_proj"]}),
}  # fmt: skip


def train(model):
    """A stand-in for training: moves all that an adapter would."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))


def main(root: Path) -> None:
    for name, (make, options) in CASES.items():
        torch.manual_seed(0)
        room = root / name
        model = make()
        model.save_pretrained(room / "base")
        for adapter in ("adapter", "second") if name == "stacked" else ("adapter",):
            tuned = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, **options))
            train(tuned)
            tuned.save_pretrained(room / adapter)
            model = PeftModel.from_pretrained(
                tuned.unload() if name == "stacked" else make_again(model, room), room / adapter
            ).merge_and_unload()
        model.save_pretrained(room / "merged")


def make_again(model, room):
    """The base as it was saved."""
    return type(model).from_pretrained(room / "base")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
