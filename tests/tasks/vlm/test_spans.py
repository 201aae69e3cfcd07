"""Where turns come to stand: proven by the template, never searched for."""

import json

import PIL.Image
import pytest

from tasks.errors import ModelError
from tasks.params import ExtractSettings, ModelSettings
from tasks.problem import Problem
from tasks.sample import Sample, Turn
from tasks.vlm.preparation import Preparer
from tasks.vlm.template import pieces
from tests.tasks.vlm import templates, zoo

IMAGE = PIL.Image.new("RGB", (56, 56), "red")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llava")
    zoo.llava(folder)
    return folder


def preparer(folder, template=None, extract=None, signals=("attended",), **model):
    if template:
        (folder / "chat_template.jinja").write_text(template)
    settings = ModelSettings(path=str(folder), **model)
    return Preparer(folder, settings, ExtractSettings(**(extract or {})).resolved(), signals)


def sample(*turns):
    return Sample(0, None, "", tuple(Turn(role, content) for role, content in turns), (), "")


def words(prepare, one, mask):
    return prepare.processor.tokenizer.decode(one.inputs["input_ids"][0][mask])


def read(prepare, *turns, images=1):
    one = prepare(sample(*turns), [IMAGE] * images)
    assert not isinstance(one, Problem), one
    return one, words(prepare, one, one.instruction), words(prepare, one, one.answer)


@pytest.fixture(params=["LLAVA", "STRINGS"])
def prepare(request, checkpoint):
    return preparer(checkpoint, getattr(templates, request.param))


def test_an_answer_that_stands_in_the_question_is_its_own(prepare):
    turns = [("user", "<image>\nYes or No? Yes No"), ("assistant", "Yes"), ("user", "Yes"), ("assistant", "No")]
    one, asked, answered = read(prepare, *turns)
    assert (asked, answered) == ("Yes or No? Yes NoYes", "YesNo")
    first_answer = one.answer.nonzero()[0]
    assert (one.instruction.nonzero() < first_answer).sum() == len("Yes or No? Yes No")


def test_an_empty_answer_has_no_tokens(prepare):
    one, asked, answered = read(prepare, ("user", "<image>\nwhy?"), ("assistant", ""))
    assert (asked, answered) == ("why?", "")
    assert not one.answer.any()


def test_a_system_turn_is_neither_instruction_nor_answer(prepare):
    turns = [("system", "be kind"), ("user", "<image>\nbe kind"), ("assistant", "be kind")]
    one, asked, answered = read(prepare, *turns)
    assert (asked, answered) == ("be kind", "be kind")
    assert one.instruction.nonzero()[0] > one.visual.nonzero()[-1]


def test_white_space_inside_a_turn_belongs_to_it(prepare):
    _, asked, answered = read(prepare, ("user", "<image>\n  a  b\n\nc  "), ("assistant", " d   e "))
    assert (asked, answered) == ("a  b\n\nc", "d   e")


def test_images_keep_their_place(checkpoint):
    in_place = templates.QWEN.replace("<|vision_start|><|image_pad|><|vision_end|>", "<image>")
    prepare = preparer(checkpoint, in_place)
    one, asked, _ = read(prepare, ("user", "first <image> then <image>\nlast"), ("assistant", "ok"), images=2)
    assert asked == "firstthenlast"
    runs = one.visual.long().diff().clamp(min=0).sum()
    assert runs == 2
    between = one.instruction[one.visual.nonzero()[15] : one.visual.nonzero()[16]]
    assert between.sum() == len("then")


def test_non_answer_counts_everything_else(checkpoint):
    prepare = preparer(checkpoint, templates.LLAVA, {"instruction_tokens": "non_answer"})
    one, *_ = read(prepare, ("user", "<image>\nwhy"), ("assistant", "so"))
    assert (one.visual | one.instruction | one.answer).all()
    assert one.answer.sum() == 2


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ m['content'] | upper }}{% endfor %}",
        "<image>{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] }}{% endif %}{% endfor %}",
    ],
)
def test_templates_that_change_or_drop_turns_are_refused(checkpoint, template):
    with pytest.raises(ModelError, match="chat template"):
        read(preparer(checkpoint, template), ("user", "<image>\na"), ("assistant", "b"))


def test_text_that_the_template_cuts_rejects_the_row(checkpoint):
    thinking = templates.STRINGS.replace("m['content'] | trim", "m['content'].split('</think>')[-1] | trim")
    prepare = preparer(checkpoint, thinking)
    found = prepare(sample(("user", "<image>\nwhy"), ("assistant", "hm</think>so")), [IMAGE])
    assert found.reason == "span_unplaced"


def test_a_template_that_raises_rejects_the_row(checkpoint):
    no_system = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + templates.LLAVA
    )
    prepare = preparer(checkpoint, no_system)
    found = prepare(sample(("system", "x"), ("user", "<image>\nwhy"), ("assistant", "so")), [IMAGE])
    assert (found.reason, "no system" in found.detail) == ("not_renderable", True)


def test_another_models_image_token_in_the_text_rejects_the_row(tmp_path):
    zoo.qwen2_vl(tmp_path)
    prepare = preparer(tmp_path)
    found = prepare(sample(("user", "<image>\nwhat is <|image_pad|>?"), ("assistant", "so")), [IMAGE])
    assert found.reason == "image_token_in_text"


def test_over_length_is_rejected_or_cut_from_the_text(checkpoint):
    turns = [("user", "<image>\nwhy"), ("assistant", "because of this")]
    whole, *_ = read(preparer(checkpoint, templates.LLAVA), *turns)
    limit = whole.n_tokens - 8
    found = preparer(checkpoint, max_length=limit)(sample(*turns), [IMAGE])
    assert found.reason == "over_max_length"
    cut = preparer(checkpoint, max_length=limit, over_length="truncate")(sample(*turns), [IMAGE])
    assert (cut.n_tokens, cut.n_visual) == (limit, whole.n_visual)
    assert int(cut.answer.sum()) == int(whole.answer.sum()) - 7
    assert cut.inputs["attention_mask"].shape == (1, limit)
    found = preparer(checkpoint, max_length=10, over_length="truncate")(sample(*turns), [IMAGE])
    assert found.reason == "image_truncated_away"


def test_rows_without_image_or_instruction_say_so(checkpoint):
    prepare = preparer(checkpoint, templates.LLAVA)
    assert prepare(sample(("user", "hello"), ("assistant", "hi")), []).reason == "no_image"
    assert prepare(sample(("user", "<image>"), ("assistant", "hi")), [IMAGE]).reason == "no_instruction"
    assert prepare(sample(("user", "<image> a"), ("assistant", "hi")), []).reason == "processor_refused"


def test_beginning_of_text_is_written_once(tmp_path):
    zoo.idefics3(tmp_path)
    tokenizer = json.loads((tmp_path / "tokenizer.json").read_text())
    tokenizer["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    turns = [("user", "<image>\nwhy"), ("assistant", "so")]
    once, *_ = read(preparer(tmp_path), *turns)
    assert (once.inputs["input_ids"] == 1).sum() == 1
    twice, asked, _ = read(preparer(tmp_path, extract={"preset": "official", "instruction_tokens": "user"}), *turns)
    assert (twice.inputs["input_ids"] == 1).sum() == 2
    assert asked.startswith("<s><s>User")


def test_the_official_preset_moves_images_to_the_first_user_turn(checkpoint):
    in_place = templates.QWEN.replace("<|vision_start|><|image_pad|><|vision_end|>", "<image>")
    prepare = preparer(checkpoint, in_place, {"preset": "official"})
    conversation = prepare.conversation(
        sample(("system", "s"), ("user", " a <image>\nb<img> "), ("assistant", ""), ("user", "c <image>"))
    )
    assert conversation == [("system", ["s"]), ("user", [None, None, "a \nb"]), ("user", ["c "])]


def test_the_official_preset_of_qwen_keeps_empty_turns_and_later_text(tmp_path):
    zoo.qwen2_vl(tmp_path)
    prepare = preparer(tmp_path, extract={"preset": "official"})
    turns = [("user", "<image> a"), ("assistant", ""), ("user", "what is <image>?"), ("assistant", "b")]
    conversation = prepare.conversation(sample(*turns))
    assert conversation[1:3] == [("assistant", []), ("user", ["what is <image>?"])]
    one, _, answered = read(prepare, *turns, images=2)
    assert answered == "b"
    ids = prepare.processor.tokenizer.convert_tokens_to_ids(["<|vision_start|>", "<|vision_end|>"])
    assert one.visual[[one.inputs["input_ids"][0].tolist().index(token) for token in ids]].all()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("<image>\nwhy", [None, "why"]),
        ("why\n<image>", ["why", None]),
        ("a <image> b", ["a ", None, " b"]),
        ("<image><image>\n", [None, None]),
        ("\na\n", ["\na\n"]),
        ("", []),
    ],
)
def test_pieces(content, expected):
    assert pieces(content) == expected
