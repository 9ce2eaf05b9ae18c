"""Merging in memory again and again: the bytes of the written merge for every method, what is kept, what is refused."""

import gc
import os
import weakref
from dataclasses import replace

import pytest
import torch
from every_method import EXAMPLES, SHAPES, Example, random_model
from small_experts import grams, saved, seed_of, tensors_of
from small_models import bits
from test_every_method import Trial

import mergers.engine.layout
import mergers.engine.making
from foundation.errors import ConfigError, InputError
from mergers import MERGERS, Need, Source, WeightedAverage, WiseFT, execute, plan_merge, read_checkpoint
from mergers.experts import EXPERTS, SHARED_CONFIG, expert_sources, interpolation, modality_arithmetic, modality_regmean
from mergers.live import LiveMerge, put
from mergers.schedule import Schedule, Scheduled

SAME = "layers.2.w"
"""Made the same in all sources and the base."""


class Sharded(Trial):
    """An example's models, over several files, one tensor the same in all."""

    def __init__(self, bench, example, dtype=torch.bfloat16):
        self.shared = random_model(9, dtype)[SAME]
        super().__init__(bench, example, dtype)

    def source(self, name, tensors):
        tensors[SAME] = self.shared
        source = super().source(name, tensors)
        if name == "base":
            return source
        (self.bench.root / name / "model.safetensors").unlink()
        return replace(source, checkpoint=read_checkpoint(self.bench.save(name, tensors, shards=3)))

    def live(self, **options):
        return LiveMerge(self.sources, self.anchor, **options)


def all_of(live, merger, threads=1):
    merged = dict(live.merged(merger, threads))
    kept = dict(live.unchanging())
    assert kept.keys() == set(live.kept())
    assert not kept.keys() & merged.keys()
    return {name: bits(tensor) for name, tensor in (kept | merged).items()}


def written(bench, output="out"):
    return {name: bits(tensor) for name, tensor in bench.load(output).items()}


DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32, "f64": torch.float64}
TURNS = [(example, tuple(DTYPES)[turn % 4]) for turn, example in enumerate(EXAMPLES)]
"""Every method in a dtype that changes from one to the next: all kinds of methods meet all dtypes."""


@pytest.mark.parametrize(("example", "dtype"), TURNS, ids=str)
def test_the_bytes_are_those_of_the_written_merge(bench, monkeypatch, example, dtype):
    monkeypatch.setattr(mergers.engine.layout, "BLOCK_ELEMENTS", 64)
    trial = Sharded(bench, example, DTYPES[dtype])
    trial.merge()
    live, expected = trial.live(), written(bench)
    assert live.kept() == (SAME,)
    assert all_of(live, trial.merger) == expected
    assert all_of(live, trial.merger, threads=3) == expected
    parameters = {name: torch.full_like(tensor, 7) for name, tensor in bench.load().items()}
    put(parameters, live.unchanging())
    live.merge_into(parameters, trial.merger)
    assert {name: bits(tensor) for name, tensor in parameters.items()} == expected


def test_one_object_serves_all_methods_in_turn(bench):
    """A method that has no use for the base or the statistics is carried out as if there were none."""
    trial = Sharded(bench, Example("fisher", {}, 2))
    base = trial.source("base", random_model(0))
    live = LiveMerge(trial.sources, base)
    for example in (each for each in EXAMPLES if each.names == ("a", "b") and each.method != "regmean"):
        merger = example.merger
        sources = trial.sources if merger.statistic else [Source(source.name, source.checkpoint) for source in trial.sources]
        plan = plan_merge(merger, sources, bench.root / "out", base=None if merger.base.value == "no" else base, replace=True)
        execute(plan)
        assert all_of(live, merger) == written(bench), example


def test_what_only_the_base_has_otherwise_is_not_kept(bench):
    """The sources agree on it, but a method that measures from the base changes it, and one without a base must then set it right."""
    base, tuned = random_model(0), random_model(1)
    sources = [Source(name, read_checkpoint(bench.save(name, tuned))) for name in ("previous", "tuned")]
    live = LiveMerge(sources, Source("base", read_checkpoint(bench.save("base", base))))
    assert live.kept() == ()
    assert all_of(live, WiseFT(0.5)) == {name: bits(tensor) for name, tensor in tuned.items()}
    changed = all_of(live, MERGERS["task_arithmetic"](scale=0.25))
    assert changed["layers.0.w"] not in (bits(base["layers.0.w"]), bits(tuned["layers.0.w"]))


def wise_ft(bench, **more):
    previous = random_model(1)
    tuned = random_model(2, around=previous)
    for tensors in (previous, tuned):
        tensors.update(more)
    return previous, tuned, [Source(n, read_checkpoint(bench.save(n, t))) for n, t in (("previous", previous), ("tuned", tuned))]


def test_the_ends_of_alpha_are_the_sources(bench):
    previous, tuned, sources = wise_ft(bench)
    live = LiveMerge(sources)
    assert all_of(live, WiseFT(0.0)) == {name: bits(tensor) for name, tensor in tuned.items()}
    assert all_of(live, WiseFT(1.0)) == {name: bits(tensor) for name, tensor in previous.items()}
    assert all_of(live, WiseFT(0.0)) == {name: bits(tensor) for name, tensor in tuned.items()}


def test_wide_blocks_give_the_bytes_of_narrow_ones(bench):
    """Averages are computed in wider blocks than files are: no element may tell, at the end of a tensor neither."""
    generator = torch.Generator().manual_seed(0)
    size = mergers.engine.layout.BLOCK_ELEMENTS * 9 + 37
    models = {name: {"w": torch.randn(size, generator=generator).bfloat16()} for name in ("previous", "tuned")}
    for value, tensors in enumerate(models.values()):
        tensors["differs in its first element"] = torch.cat(
            [torch.tensor([float(value)]), torch.ones(mergers.engine.layout.BLOCK_ELEMENTS)]
        )
    models["tuned"]["w"][:1000] = models["previous"]["w"][:1000] = -0.0
    sources = [Source(name, read_checkpoint(bench.save(name, tensors))) for name, tensors in models.items()]
    live = LiveMerge(sources, threads=2)
    assert live.kept() == ()
    for merger in (WiseFT(0.3), WiseFT(0.8), MERGERS["ema"](0.25), WeightedAverage()):
        execute(plan_merge(merger, sources, bench.root / "out", replace=True))
        assert all_of(live, merger, threads=2) == written(bench)


def test_alphas_by_tensor_are_checked_at_every_call(bench):
    _, _, sources = wise_ft(bench)
    live = LiveMerge(sources)
    merger = Scheduled(WiseFT(), (("alpha", Schedule((("layers.*", (0.1, 0.9)), ("*", 0.5)))),))
    execute(plan_merge(merger, sources, bench.root / "out"))
    assert all_of(live, merger) == written(bench)
    with pytest.raises(ConfigError, match="matches none of 6 tensors"):
        live.merged(Scheduled(WiseFT(), (("alpha", Schedule((("layer.*", 0.1), ("*", 0.5)))),)))
    with pytest.raises(ConfigError, match=r"alpha is 1\.5"):
        live.merged(WiseFT(1.5))
    with pytest.raises(ConfigError, match="name one as base"):
        live.merged(MERGERS["ties"]())
    with pytest.raises(ConfigError, match="needs the fisher of its sources"):
        live.merged(MERGERS["fisher"]())
    with pytest.raises(ConfigError, match="threads is 0"):
        live.merged(WiseFT(), threads=0)


def test_integers_are_kept_in_their_dtype(bench):
    _, _, sources = wise_ft(bench, position_ids=torch.arange(7), flags=torch.tensor([True, False]))
    live = LiveMerge(sources)
    kept = dict(live.unchanging())
    assert kept["position_ids"].tolist() == list(range(7))
    assert kept["flags"].dtype == torch.bool


def test_what_no_merge_could_use_is_refused_at_once(bench):
    previous, tuned, sources = wise_ft(bench, position_ids=torch.arange(7))
    tuned["position_ids"] = torch.arange(1, 8)
    bench.save("tuned", tuned)
    with pytest.raises(InputError, match=r"'position_ids' \(I64\) differs between 'previous', 'tuned'"):
        LiveMerge(sources)
    tuned["position_ids"] = previous["position_ids"]
    tuned["norm"][3] = torch.nan
    bench.save("tuned", tuned)
    with pytest.raises(InputError, match=r"1 values in 1 tensors are NaN or infinite \('norm': 1 in source 'tuned'\)"):
        LiveMerge(sources)
    assert "norm" in dict(LiveMerge(sources, allow_nonfinite=True).merged(WiseFT()))
    with pytest.raises(InputError, match="NaN or infinite"):
        LiveMerge([sources[0], replace(sources[0], name="tuned", checkpoint=sources[1].checkpoint)])
    with pytest.raises(ConfigError, match="2 sources are named 'previous'"):
        LiveMerge([sources[0], sources[0]])


def test_a_result_that_is_not_finite_is_refused(bench):
    """Finite sources whose merge overflows float16."""
    models = {"a": torch.tensor([60000.0, 1.0]), "b": torch.tensor([60000.0, 2.0]), "base": torch.tensor([10.0, 1.0])}
    a, b, base = (Source(n, read_checkpoint(bench.save(n, {"w": t.half()}))) for n, t in models.items())
    with pytest.raises(InputError, match=r"NaN or infinite.*the result as F16"):
        list(LiveMerge([a, b], base).merged(MERGERS["task_arithmetic"]()))


def test_a_head_tied_to_its_embedding_is_proven_and_left_out(bench):
    embedding = {"model.embed_tokens.weight": torch.randn(8, 4)}
    tied = {**embedding, "lm_head.weight": embedding["model.embed_tokens.weight"].clone()}
    config = {"model_type": "llama", "tie_word_embeddings": True}
    paths = {"previous": bench.save("previous", tied, config)}
    paths["tuned"] = bench.save("tuned", {name: tensor + 1 for name, tensor in tied.items()}, config)
    assert list(dict(LiveMerge(bench.sources(**paths)).merged(WiseFT()))) == ["model.embed_tokens.weight"]
    tied["lm_head.weight"][0, 0] += 1
    bench.save("previous", tied, config)
    with pytest.raises(InputError, match=r"ties the output head to the embedding, but 'lm_head\.weight' on disk differs"):
        LiveMerge(bench.sources(**paths))


def test_a_file_that_has_changed_is_noticed(bench):
    _, _, sources = wise_ft(bench)
    live = LiveMerge(sources)
    path = bench.root / "tuned" / "model.safetensors"
    os.utime(path, ns=(1, 1))
    with pytest.raises(InputError, match="has changed since it was opened"):
        live.merged(WiseFT())
    path.unlink()
    with pytest.raises(InputError, match="has changed since it was opened"):
        live.merged(WiseFT())


def test_one_result_is_held_at_a_time(bench, monkeypatch):
    """When memory is taken for a result, the one before is gone, if the caller has let go of it."""
    _, _, sources = wise_ft(bench)
    made, alive = [], []

    def empty(tensor, take=mergers.engine.making.empty):
        gc.collect()
        alive.append(sum(each() is not None for each in made))
        result = take(tensor)
        made.append(weakref.ref(result))
        return result

    monkeypatch.setattr(mergers.engine.making, "empty", empty)
    for _, tensor in LiveMerge(sources).merged(WiseFT()):
        assert tensor is made[-1]()
        del tensor
    assert alive == [0] * len(SHAPES)


def test_a_model_is_merged_into_in_place(bench, monkeypatch):
    """No memory is taken for results, and the parameters stay where they are."""
    _, tuned, sources = wise_ft(bench)
    live = LiveMerge(sources)
    places = {name: tensor.data_ptr() for name, tensor in tuned.items()}
    monkeypatch.setattr(mergers.engine.making, "empty", lambda tensor: pytest.fail(f"{tensor.name} was given memory of its own"))
    for alpha in (0.25, 0.75):
        live.merge_into(tuned, WiseFT(alpha))
    assert {name: tensor.data_ptr() for name, tensor in tuned.items()} == places


def test_parameters_that_do_not_fit_are_refused_before_any_is_changed(bench):
    previous, _, sources = wise_ft(bench)
    live = LiveMerge(sources)
    before = {name: bits(tensor) for name, tensor in previous.items()}
    for change, message in (
        ({"scalar": None}, "scalar"),
        ({"scalar": torch.zeros(1, dtype=torch.bfloat16)}, r"parameter 'scalar' has shape \(1,\), its merged tensor \(\)"),
        ({"scalar": torch.zeros(())}, "parameter 'scalar' is torch.float32, its merged tensor torch.bfloat16"),
    ):
        parameters = {name: tensor for name, tensor in (previous | change).items() if tensor is not None}
        with pytest.raises(InputError, match=message):
            live.merge_into(parameters, WiseFT())
        assert {name: bits(previous[name]) for name in previous} == before
        with pytest.raises(InputError, match=message):
            put(parameters, [("scalar", torch.zeros((), dtype=torch.bfloat16))])


def test_other_memory_is_copied_into_and_other_dtypes_only_if_asked(bench):
    """A transposed view and a float32 parameter take the rounded merge, and parameters that learn are written to all the same."""
    previous, _, sources = wise_ft(bench)
    live = LiveMerge(sources)
    expected = dict(live.merged(WiseFT(0.3)))
    parameters = {name: torch.nn.Parameter(torch.zeros_like(tensor)) for name, tensor in previous.items()}
    parameters["layers.0.w"] = torch.zeros(7, 33, dtype=torch.bfloat16).T
    parameters["layers.1.w"] = torch.nn.Parameter(torch.zeros(40, 9))
    live.merge_into(parameters, WiseFT(0.3), cast=True)
    for name, tensor in expected.items():
        assert torch.equal(parameters[name].detach().to(tensor.dtype), tensor), name
        assert torch.equal(parameters[name].detach(), tensor.to(parameters[name].dtype)), name


def test_experts_inside_one_checkpoint(bench):
    """Views of one file, a base for some methods only, Grams, and tensors that experts share or one alone plays."""
    tensors = tensors_of("all")
    checkpoint = saved(bench, "experts", "all", tensors)
    sources = [replace(source, statistics=grams(bench, tensors)) for source in expert_sources(checkpoint)]
    seed = seed_of(bench)
    live = LiveMerge(sources, seed)
    shared = {name for name in tensors if not {*name.split(".")} & {*EXPERTS}}
    for merger in (modality_regmean(), interpolation(0.3), modality_arithmetic(0.4)):
        given = sources if merger.statistic else [replace(source, statistics={}) for source in sources]
        base = None if merger.base is Need.NO else seed
        execute(plan_merge(merger, given, bench.root / "out", base=base, config=SHARED_CONFIG, replace=True))
        assert all_of(live, merger) == written(bench)
    assert shared <= {*live.kept()}
    assert "encoder.layers.2.mlp.fc1.weight" not in live.kept()


def test_what_only_some_sources_hold(bench):
    models = {name: random_model(seed) for seed, name in enumerate("abc")}
    del models["a"]["norm"], models["b"]["norm"], models["c"]["layers.0.w"]
    sources = [Source(name, read_checkpoint(bench.save(name, tensors))) for name, tensors in models.items()]
    with pytest.raises(InputError, match="source 'a' lacks 1 of 6 tensors"):
        LiveMerge(sources)
    live = LiveMerge(sources, partial=True)
    execute(plan_merge(WeightedAverage(), sources, bench.root / "out", partial=True))
    assert live.kept() == ("norm",)
    assert all_of(live, WeightedAverage()) == written(bench)
