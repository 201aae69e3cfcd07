"""Ask a model the held-out questions: greedy answers, and the likelihood of the right ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForImageTextToText

from tasks.evaluation.material import IGNORED, Material, Memory, labels, split_last_answer
from tasks.params import ExtractSettings, ModelSettings
from tasks.sample import Sample
from tasks.vlm.batch import Prepared, collate
from tasks.vlm.preparation import Preparer


@dataclass(frozen=True)
class Answers:
    """Per question, in the order asked: the text given, and the right answer's mean NLL in nats a token."""

    given: list[str]
    nll: NDArray[np.float64]


def answer(
    settings: ModelSettings,
    folder: Path,
    samples: Sequence[Sample],
    batch_size: int,
    new_tokens: int,
    memory: Memory | None = None,
) -> Answers:
    """Answer the last question of each sample with the model in `folder`; `settings` say how samples are read."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    preparer = Preparer(folder, settings, ExtractSettings(), ())
    loaded: Any = AutoModelForImageTextToText.from_pretrained(
        folder, dtype=settings.dtype, trust_remote_code=settings.trust_remote_code
    )
    model = loaded.eval().to(device)
    material = Material(samples, preparer, memory)
    given: list[str] = []
    losses: list[NDArray[np.float64]] = []
    for start in range(0, len(samples), batch_size):
        whole = [material[place] for place in range(start, min(start + batch_size, len(samples)))]
        given += _generate(model, preparer, whole, new_tokens, device)
        losses.append(_nll(model, preparer, whole, device))
    return Answers(given, np.concatenate(losses))


@torch.inference_mode()
def _generate(model: Any, preparer: Preparer, whole: Sequence[Prepared], new_tokens: int, device: str) -> list[str]:
    tokenizer, pad_id = preparer.processor.tokenizer, preparer.processor.pad_id
    asked = collate([split_last_answer(one)[0] for one in whole], pad_id, side="left")
    asked = asked.to(torch.device(device), next(model.parameters()).dtype)
    made = model.generate(
        **asked.inputs,
        max_new_tokens=new_tokens,
        do_sample=False,
        pad_token_id=pad_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    fresh = made[:, asked.inputs["input_ids"].shape[1] :]
    return [text.strip() for text in tokenizer.batch_decode(fresh, skip_special_tokens=True)]


@torch.inference_mode()
def _nll(model: Any, preparer: Preparer, whole: Sequence[Prepared], device: str) -> NDArray[np.float64]:
    stacked = collate(whole, preparer.processor.pad_id).to(torch.device(device), next(model.parameters()).dtype)
    logits = model(**stacked.inputs).logits[:, :-1].float()
    mask = stacked.inputs["attention_mask"].cpu()
    targets = labels(stacked.answer, stacked.inputs["input_ids"].cpu(), mask)[:, 1:]
    each = torch.nn.functional.cross_entropy(
        logits.cpu().transpose(1, 2), targets, ignore_index=IGNORED, reduction="none"
    )
    counted = targets != IGNORED
    mean: NDArray[np.float64] = (each.sum(1) / counted.sum(1)).double().numpy()
    return mean
