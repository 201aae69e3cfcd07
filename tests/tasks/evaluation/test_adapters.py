"""Adapters go to the decoder of any family, and nowhere else."""

import re

import pytest
from peft import LoraConfig, get_peft_model

from tasks.evaluation.training import adapted
from tasks.vlm.pruning import decoder
from tests.tasks.vlm import twin, zoo


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "qwen3_vl", "idefics3"])
def test_adapters_stand_beside_the_decoders_linear_layers_only(tmp_path, family):
    zoo.FAMILIES[family](tmp_path)
    model = twin.full_model(tmp_path)
    names = adapted(model)
    assert len(names) == 7 * len(decoder(model).layers)
    assert not any(re.search("vision|visual", name) for name in names)
    lora = get_peft_model(model, LoraConfig(r=2, target_modules=names))
    trained = [name for name, weight in lora.named_parameters() if weight.requires_grad]
    assert len(trained) == 2 * len(names)
