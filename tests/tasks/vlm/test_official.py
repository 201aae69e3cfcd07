"""`preset: official` against the published rules, followed step by step on the whole model, in cases that the golden
vectors do not hold: several images, a system turn, grouped keys, other families."""

import numpy as np
import pytest
import torch
import transformers as hf

from tasks.params import parse
from tasks.sample import ImageRef, Sample, Turn
from tasks.vlm.extractor import Extractor
from tests.tasks.vlm import twin, zoo
from tests.tasks.vlm.test_families import pictures, sample_of

SYSTEM = (Turn("system", "be brief"), Turn("user", "<image>\nwhere? "), Turn("assistant", "azure  x"))
SAMPLES = [
    sample_of(0, "<image>\nwhich object is left", "seven"),
    sample_of(1, "<image><image>\nwhat is it <image>", "eight nine", "how many", "ten azure", images=3),
    Sample(5, None, "", SYSTEM, (ImageRef("", "0", width=50, height=70),), ""),
]
QWEN_VISUAL = ["<|image_pad|>", "<|vision_start|>", "<|vision_end|>"]


def messages(sample: Sample, qwen: bool) -> list[dict]:
    built, placed = [], False
    for turn in sample.turns:
        text = {"type": "text", "text": turn.content}
        content = turn.content if qwen else [text]
        if turn.role == "user" and not placed:
            placed = True
            text["text"] = turn.content.replace("<image>", "").replace("<img>", "").strip()
            content = [{"type": "image"}] * len(sample.images) + ([text] if text["text"] else [])
        built.append({"role": turn.role, "content": content})
    return built


def answer_tokens(ids: list[int], sample: Sample, tokenizer) -> set[int]:
    """By searching for each answer's own tokens: right here, as no answer occurs in a question."""
    found, start = set(), 0
    for turn in sample.turns:
        if turn.role == "assistant":
            own = tokenizer(turn.content.strip(), add_special_tokens=False)["input_ids"]
            at = next(at for at in range(start, len(ids)) if ids[at : at + len(own)] == own)
            start = at + len(own)
            found |= set(range(at, start))
    return found


@torch.no_grad()
def official(folder, processor, sample: Sample, qwen: bool):
    text = processor.apply_chat_template(messages(sample, qwen), tokenize=False)
    inputs = processor(text=[text], images=[pictures(sample)], return_tensors="pt")
    output = twin.full_model(folder)(**inputs, output_attentions=True, output_hidden_states=True)
    ids, tokenizer = inputs["input_ids"][0].tolist(), processor.tokenizer
    marks = {tokenizer.convert_tokens_to_ids(one) for one in (QWEN_VISUAL if qwen else ["<image>"])}
    visual = [at for at, token in enumerate(ids) if token in marks]
    answers = answer_tokens(ids, sample, tokenizer)
    users = [at for at in range(len(ids)) if at not in answers and ids[at] not in marks]
    mean = output.attentions[0].mean(1)[0][users][:, visual].mean(0)
    ranked, order = torch.sort(mean / mean.sum(), descending=True)
    kept = min(int((ranked.cumsum(0) <= 0.9).sum()) + 1, len(visual))
    feature = output.hidden_states[1][0][[visual[at] for at in order[:kept]]].mean(0).numpy()
    return feature, (len(visual), len(users), kept)


@pytest.mark.parametrize(
    "family",
    ["llava_gqa", "llava_next", "llava_onevision", "qwen3_vl", pytest.param("qwen2_5_vl", marks=pytest.mark.slow)],
)
def test_the_official_preset_follows_the_published_rules(family, tmp_path):
    zoo.FAMILIES[family](tmp_path)
    tree = {"model": {"path": str(tmp_path), "dtype": "float32"}, "extract": {"preset": "official"}}
    extractor = Extractor(parse({"dataset": {"path": "x"}, **tree}), ("attended",), "cpu")
    prepare, processor = extractor.preparer(), hf.AutoProcessor.from_pretrained(tmp_path)
    qwen = "qwen" in family
    if qwen:
        processor.image_processor.size = {"longest_edge": 576 * 32 * 32, "shortest_edge": 256 * 32 * 32}
    for sample in SAMPLES:
        feature, counts = official(tmp_path, processor, sample, qwen)
        found = extractor.compute([prepare(sample, pictures(sample))])["attended"]
        names = ("visual_tokens", "instruction_tokens", "kept_tokens")
        assert tuple(int(found[name][0]) for name in names) == counts
        assert np.linalg.norm(found["feature"][0] - feature) <= 1e-5 * np.linalg.norm(feature)
