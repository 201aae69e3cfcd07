"""Only what is needed is read; what cannot be read rightly or safely is refused by name."""

import dataclasses
import json
import shutil
import warnings

import huggingface_hub.constants
import PIL.Image
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

from tasks.errors import ModelError, ParamsError
from tasks.models import Vlm
from tasks.params import ModelSettings, parse
from tasks.vlm.checkpoint import open_checkpoint
from tasks.vlm.extractor import Extractor, describe, token_counter
from tasks.vlm.families import family_of
from tasks.vlm.grouping import groups
from tasks.vlm.loading import load, plan
from tasks.vlm.pruning import Need, decoder, prune
from tests.tasks.vlm import zoo
from tests.tasks.vlm.test_families import SAMPLES, pictures


def settings(path, **model):
    model = {"path": str(path), "dtype": "float32", **model}
    return parse({"dataset": {"path": "x"}, "model": model})


def feature(path, **model):
    extractor = Extractor(settings(path, **model), ("attended",), "cpu")
    return extractor.compute([extractor.preparer()(SAMPLES[0], pictures(SAMPLES[0]))])["attended"]["feature"]


def test_pixels_travel_in_the_models_precision_and_are_rounded_as_the_model_would(folder):
    extractor = Extractor(settings(folder, dtype="bfloat16"), ("attended",), "cpu")
    half = extractor.preparer()
    whole = dataclasses.replace(half, dtype=torch.float32)
    rows = [prepare(SAMPLES[0], pictures(SAMPLES[0])) for prepare in (half, whole)]
    assert [row.inputs["pixel_values"].dtype for row in rows] == [torch.bfloat16, torch.float32]
    features = [extractor.compute([row])["attended"]["feature"] for row in rows]
    assert (features[0] == features[1]).all()


def shard(folder, keep_unneeded=True):
    """Split into one file of what the first layer needs and one of the rest; the second may be absent."""
    tensors = load_file(folder / "model.safetensors")
    needed = set(plan(settings(folder).model, Need(1)).tensors)
    parts = {"a.safetensors": needed, "b.safetensors": set(tensors) - needed}
    for name, held in parts.items():
        if keep_unneeded or held == needed:
            save_file({key: tensors[key] for key in held}, folder / name)
    index = {"metadata": {}, "weight_map": {key: name for name, held in parts.items() for key in held}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()


def test_shards_without_needed_tensors_are_never_opened(folder, original):
    shard(folder, keep_unneeded=False)
    assert (feature(folder) == feature(original)).all()
    assert "b.safetensors" not in describe(settings(folder), ("attended",)).record["files"]


def test_equal_tensors_give_equal_fingerprints_however_sharded(folder, original):
    whole = describe(settings(original), ("attended",))
    shard(folder)
    split = describe(settings(folder), ("attended",))
    assert split.record["tensors"] == whole.record["tensors"]
    assert split.fingerprints == whole.fingerprints


def test_the_fingerprint_follows_what_decides_a_feature(folder):
    base = describe(settings(folder), ("attended",)).fingerprints["attended"]

    def changed(**tree):
        return describe(parse({"dataset": {"path": "x"}, "model": {"path": str(folder)}, **tree}), ("attended",))

    tree = {"model": {"path": str(folder), "dtype": "bfloat16"}}
    assert changed(**tree).fingerprints["attended"] != base
    for extract in ({"attention_threshold": 0.8}, {"preset": "official"}, {"visual_tokens": "with_markers"}):
        assert changed(extract=extract).fingerprints["attended"] != base
    assert changed(extract={"pooled": {"layers": [1]}}, run={"token_budget": 1}).fingerprints["attended"] == base
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text() + "\n")
    assert changed().fingerprints["attended"] != base


@pytest.mark.parametrize(("name", "matters"), [("layers.0.mlp.up_proj", True), ("layers.1.mlp.up_proj", False)])
def test_only_tensors_that_are_used_count(folder, name, matters):
    before = describe(settings(folder), ("attended",)).fingerprints
    tensors = load_file(folder / "model.safetensors")
    key = next(key for key in tensors if name in key and "vision" not in key)
    save_file({**tensors, key: tensors[key] + 1}, folder / "model.safetensors")
    assert (describe(settings(folder), ("attended",)).fingerprints != before) == matters


def test_a_missing_tensor_is_named(folder):
    tensors = load_file(folder / "model.safetensors")
    key = next(key for key in tensors if "layers.0.mlp.up_proj" in key and "vision" not in key)
    save_file({name: value for name, value in tensors.items() if name != key}, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"layers\.0\.mlp\.up_proj"):
        Extractor(settings(folder), ("attended",), "cpu")


def test_weights_of_another_model_are_refused(folder):
    save_file({"lm.weight": torch.zeros(2)}, folder / "model.safetensors")
    with pytest.raises(ModelError, match="do not belong"):
        Extractor(settings(folder), ("attended",), "cpu")


def test_pickled_weights_only_when_allowed(folder, original):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="allow_pickle"):
        feature(folder)
    assert (feature(folder, allow_pickle=True) == feature(original)).all()


def test_code_in_a_checkpoint_is_not_run(folder):
    config = json.loads((folder / "config.json").read_text())
    config["model_type"], config["auto_map"] = "mine", {"AutoConfig": "mine.Config"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\nclass Config: pass\n")
    with pytest.raises(ModelError, match="trust_remote_code"):
        feature(folder)
    assert not (folder / "ran").exists()


def test_no_such_model():
    for path, reason in (("/no/such/folder", "no such folder"), ("nobody/nothing", "neither a folder nor")):
        with pytest.raises(ModelError, match=reason):
            describe(settings(path), ("attended",))


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-7], lambda data: data[:100], lambda data: b"version https://lfs"]
)
def test_a_torn_file_of_weights_is_named(folder, damage):
    path = folder / "model.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ModelError, match=r"model\.safetensors: not a whole safetensors file .*; fetch it again"):
        describe(settings(folder), ("attended",))


@pytest.mark.parametrize("text", ["{}", "[1]", "half {"])
def test_a_broken_index_of_weights_is_named(folder, text):
    (folder / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ModelError, match=r"index\.json: not an index of weights"):
        describe(settings(folder), ("attended",))


def test_a_device_that_is_not_here_is_the_users_error(folder):
    for device in ("cuda:99", "abacus"):
        with pytest.raises(ParamsError, match=f"run.device: `{device}` cannot be used here"):
            Vlm().load(settings(folder), ("attended",), device)


def test_a_folder_without_weights_still_counts_tokens(folder):
    (folder / "model.safetensors").unlink()
    assert token_counter(settings(folder))(SAMPLES[0]) > 0
    with pytest.raises(ModelError, match="no weights"):
        describe(settings(folder), ("attended",))


def test_a_hub_model_needs_only_the_shards_in_its_cache(folder, tmp_path, monkeypatch):
    shard(folder, keep_unneeded=False)
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub/models--some--model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text(commit)
    shutil.copytree(folder, repository / "snapshots" / commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    found = open_checkpoint(ModelSettings(path="some/model"))
    assert (found.commit, found.source) == (commit, "some/model")
    assert (feature("some/model") == feature(folder)).all()
    assert describe(settings("some/model"), ("attended",)).record["commit"] == commit


def test_matching_precision_stays_mapped_and_another_is_converted(folder):
    mapped = load(plan(settings(folder).model, Need(1)), "cpu")
    assert {value.dtype for value in mapped.parameters()} == {torch.float32}
    half = load(plan(settings(folder, dtype="bfloat16").model, Need(1)), "cpu")
    assert {value.dtype for value in half.parameters()} == {torch.bfloat16}
    auto = plan(ModelSettings(path=str(folder)), Need(1))
    assert auto.dtype == torch.float32


def test_loading_says_nothing(folder, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(plan(settings(folder).model, Need(1)), "cpu")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("layer", [-1, -2, -4, 2, [-2, 1], [-1, 0]])
def test_a_cut_vision_tower_gives_the_same_bits(tmp_path, layer):
    zoo.llava(tmp_path, layer=layer)
    model = settings(tmp_path).model
    cut = load(plan(model, Need(1)), "cpu")
    whole = hf.AutoModel.from_pretrained(tmp_path, dtype=torch.float32).eval()
    pixels = torch.randn(2, 3, 56, 56)
    with torch.inference_mode():
        for one, other in zip(
            cut.get_image_features(pixel_values=pixels).pooler_output,
            whole.get_image_features(pixel_values=pixels, vision_feature_layer=layer).pooler_output,
            strict=True,
        ):
            assert torch.equal(one, other)
    deepest = max(one % 5 for one in ([layer] if isinstance(layer, int) else layer))
    assert cut.config.vision_config.num_hidden_layers == deepest


def test_depth_decides_how_many_layers_are_there(folder):
    for depth in (1, 2, 3):
        model = load(plan(settings(folder).model, Need(depth)), "cpu")
        assert len(decoder(model).layers) == depth
    with pytest.raises(ModelError, match="decoder has 3"):
        plan(settings(folder).model, Need(4))


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (hf.MllamaConfig, "cross-attention"),
        (hf.PaliGemmaConfig, "bidirectional prefix"),
        (hf.InstructBlipConfig, "learned queries"),
        (hf.Qwen3_5Config, "linear_attention"),
        (hf.VisionEncoderDecoderConfig, "encoder-decoder"),
    ],
)
def test_families_that_cannot_be_read_are_refused_by_name(config, reason):
    made = (
        config()
        if config is not hf.VisionEncoderDecoderConfig
        else config(encoder={"model_type": "vit"}, decoder={"model_type": "gpt2"})
    )
    with pytest.raises(ModelError, match=reason) as refusal:
        family_of(made)
    assert made.model_type in str(refusal.value)


def test_a_soft_capped_decoder_is_refused():
    config = hf.LlavaConfig(text_config={"model_type": "gemma2"})
    with pytest.raises(ModelError, match="soft-capped"):
        prune(config, Need(1))


def test_logits_that_are_scaled_are_refused_where_they_are_needed():
    config = hf.LlavaConfig(text_config={"model_type": "cohere2", "logit_scale": 0.25})
    prune(config, Need(1))
    with pytest.raises(ModelError, match="logit_scale"):
        prune(config, Need(1, head=True))


def test_a_text_model_is_refused(folder):
    hf.LlamaConfig(**zoo.TEXT, vocab_size=300).save_pretrained(folder)
    with pytest.raises(ModelError, match=r"`llama` is not supported: .*AutoModelForImageTextToText does not know it"):
        Extractor(settings(folder), ("attended",), "cpu")


def test_a_configuration_without_decoder_layers_is_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "bert"}))
    with pytest.raises(ModelError, match="`bert` is not supported"):
        describe(settings(folder), ("attended",))


def test_groups_share_a_model():
    assert groups(settings("x")) == [("attended",)]
    mixed = {"dataset": {"path": "x"}, "model": {"path": "x"}, "extract": {"signals": ["clip", "pooled", "attended"]}}
    assert groups(parse(mixed)) == [("pooled", "attended"), ("clip",)]


def test_the_image_size_decides_what_is_paid_for(tmp_path):
    zoo.qwen2_vl(tmp_path)
    tree = {"dataset": {"path": "x"}, "model": {"path": str(tmp_path), "dtype": "float32"}}
    picture = [PIL.Image.new("RGB", (140, 140))]

    def visual(extract):
        return Extractor(parse({**tree, "extract": extract}), ("attended",), "cpu").preparer()(SAMPLES[0], picture)

    plain = visual({})
    small = visual({"image_size": {"shortest_edge": 28 * 28, "longest_edge": 4 * 28 * 28}})
    official = visual({"preset": "official"})
    assert (plain.n_visual, small.n_visual) == (25, 4)
    assert official.n_visual - 2 >= 256 * 32 * 32 // 28**2
