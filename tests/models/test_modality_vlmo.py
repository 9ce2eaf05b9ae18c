"""Lightning checkpoints of VLMo's family, made here with the names they have."""

from pathlib import Path
from typing import Any

import pytest
import torch
from modality_samples import everything, lively
from torch import Tensor

from foundation.errors import ConfigError, InputError
from models.modality_experts import ModalityExpertsModel
from models.modality_experts.starts import from_vlmo

PLAIN = {
    "text_embeddings.LayerNorm": "embeddings.text_norm",
    "transformer.patch_embed.proj": "embeddings.patch",
    "transformer.norm": "norm",
    "pooler.dense": "pooler.dense",
    "mlm_score.transform.dense": "heads.mlm.dense",
    "mlm_score.transform.LayerNorm": "heads.mlm.norm",
    "itm_score.fc": "heads.itm.out",
    "vqa_classifier.0": "heads.vqa.dense",
    "vqa_classifier.1": "heads.vqa.norm",
    "vqa_classifier.3": "heads.vqa.out",
    "nlvr2_classifier.0": "heads.nlvr2.dense",
    "nlvr2_classifier.1": "heads.nlvr2.norm",
    "nlvr2_classifier.3": "heads.nlvr2.out",
    "img_cls_classifier": "heads.classification.out",
}
SINGLE = {
    "transformer.cls_token": "embeddings.cls",
    "token_type_embeddings.weight": "embeddings.token_type.weight",
    "relative_position_bias_table": "relative_positions.table",
    "mlm_score.decoder.weight": "heads.mlm.decoder.weight",
    "mlm_score.bias": "heads.mlm.decoder.bias",
    "ifm_text_proj.fc.weight": "heads.itc.text_projection.weight",
    "ifm_image_proj.fc.weight": "heads.itc.image_projection.weight",
    "ifm_vl_text_proj.fc.weight": "heads.itc_vl.text_projection.weight",
    "ifm_vl_image_proj.fc.weight": "heads.itc_vl.image_projection.weight",
    "logit_scale": "heads.itc.logit_scale",
    "logit_vl_scale": "heads.itc_vl.logit_scale",
}
HEADS = ["mlm", "itm", "itc", "itc_vl", "vqa", "nlvr2", "classification"]


def lightning(model: ModalityExpertsModel) -> dict[str, Tensor]:
    """The weights of `model` under the names of the original, with what it keeps beside them."""
    ours = model.state_dict()
    state = {f"{theirs}.{kind}": ours[f"{name}.{kind}"] for theirs, name in PLAIN.items() for kind in ("weight", "bias")}
    state.update({theirs: ours[name] for theirs, name in SINGLE.items()})
    for name, tensor in ours.items():
        if name.startswith("encoder.layers."):
            theirs = name.replace("encoder.layers.", "transformer.blocks.").replace(".attention.", ".attn.").replace(".gamma", ".gamma_")
            state[theirs] = tensor
    types = torch.randn(2, ours["embeddings.word.weight"].shape[1])
    state["text_embeddings.word_embeddings.weight"] = ours["embeddings.word.weight"] - types[0]
    state["text_embeddings.token_type_embeddings.weight"] = types
    state["text_embeddings.position_embeddings.weight"] = torch.randn(40, 24)
    state["text_embeddings.position_ids"] = torch.arange(40)[None]
    for buffer in ("relative_position_index", "text_relative_position_index", "text_imag_relative_position_index"):
        state[buffer] = torch.zeros(4, 4)
    return state


def written(state: dict[str, Any], path: Path) -> Path:
    torch.save({"state_dict": state, "epoch": 3, "hyper_parameters": {"config": {"lr": 1e-4}}}, path)
    return path


@pytest.mark.parametrize("sharing", ["shared", "all", "attention", "ffn"])
def test_a_checkpoint_gives_the_states_it_gave(tmp_path: Path, sharing: str) -> None:
    model = lively(sharing=sharing, heads=HEADS)
    made = from_vlmo(written(lightning(model), tmp_path / "last.ckpt"), model.config)
    expected = everything(model)
    for name, state in everything(made).items():
        assert (state - expected[name]).abs().max() < 2e-5, name  # the word table was split in float32
    tensors = model.state_dict()
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in made.state_dict().items() if name != "embeddings.word.weight")


def test_shared_weights_start_experts(tmp_path: Path) -> None:
    model = lively(heads=HEADS)
    config = lively(heads=HEADS, sharing="all").config
    made = from_vlmo(written(lightning(model), tmp_path / "last.ckpt"), config).state_dict()
    assert torch.equal(made["encoder.layers.3.mlp.vl.fc2.weight"], model.state_dict()["encoder.layers.3.mlp.fc2.weight"])


def test_heads_that_are_lacking_are_drawn_and_others_left_out(tmp_path: Path) -> None:
    model = lively(heads=HEADS)
    state = {name: tensor for name, tensor in lightning(model).items() if not name.startswith(("vqa", "nlvr2", "mlm"))}
    state["mim_score.weight"] = torch.zeros(8192, 24)
    config = lively(heads=["itc", "vqa"], answers=["a"], image_size=48).config
    made = from_vlmo(written(state, tmp_path / "last.ckpt"), config, seed=2)
    assert list(made.heads) == ["itc", "vqa"]
    assert made.image(torch.zeros(1, 3, 48, 48)).shape == (1, 37, 24)


def test_a_bare_state_is_taken_too(tmp_path: Path) -> None:
    model = lively(heads=HEADS)
    torch.save(lightning(model), tmp_path / "weights.pth")
    from_vlmo(tmp_path / "weights.pth", model.config)


def test_unknown_and_missing_names_are_refused(tmp_path: Path) -> None:
    model = lively(heads=HEADS)
    state = lightning(model)
    with pytest.raises(InputError, match=r"no rule for the tensor 'transformer\.blocks\.0\.attn\.x\.qkv\.weight'"):
        from_vlmo(written({**state, "transformer.blocks.0.attn.x.qkv.weight": torch.zeros(1)}, tmp_path / "a.ckpt"), model.config)
    with pytest.raises(InputError, match=r"no place for 1 tensors, e\.g\. 'encoder\.layers\.9\.gamma1'"):
        from_vlmo(written({**state, "transformer.blocks.9.gamma_1": torch.zeros(24)}, tmp_path / "b.ckpt"), model.config)
    lacking = {name: tensor for name, tensor in state.items() if name != "transformer.blocks.1.mlp.fc1.bias"}
    with pytest.raises(InputError, match=r"nothing for 1 tensors, e\.g\. 'encoder\.layers\.1\.mlp\.fc1\.bias'"):
        from_vlmo(written(lacking, tmp_path / "c.ckpt"), model.config)
    with pytest.raises(InputError, match=r"'heads\.vqa\.out\.weight' has shape \[3, 48\], the model has \[1, 48\]"):
        from_vlmo(written(state, tmp_path / "d.ckpt"), lively(heads=["vqa"], answers=["a"]).config)


def test_experts_do_not_become_shared_and_fuse_where_they_did(tmp_path: Path) -> None:
    model = lively(heads=HEADS, sharing="all")
    path = written(lightning(model), tmp_path / "last.ckpt")
    with pytest.raises(ConfigError, match="merge the experts first"):
        from_vlmo(path, lively(heads=HEADS).config)
    with pytest.raises(ConfigError, match="from layer 2 on, the config from 3 on; set fusion_layer: 2"):
        from_vlmo(path, lively(heads=HEADS, sharing="all", fusion_layer=3).config)


class Code:
    """What a pickle could run."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return print, ("run",)


def test_code_in_a_pickle_is_never_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": {}, "callbacks": Code()}, tmp_path / "last.ckpt")
    with pytest.raises(InputError, match="never run here"):
        from_vlmo(tmp_path / "last.ckpt", lively().config)
    assert "run" not in capsys.readouterr().out
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    with pytest.raises(InputError, match="cannot be read"):
        from_vlmo(tmp_path / "text.ckpt", lively().config)
    torch.save([1], tmp_path / "list.ckpt")
    with pytest.raises(InputError, match="no state_dict"):
        from_vlmo(tmp_path / "list.ckpt", lively().config)
