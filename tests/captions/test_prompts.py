from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from conceptcaps.captions.prompts import PromptTemplate, clean_reply, dialogue_ids, prompt_ids, refuse
from conceptcaps.errors import InputError

ROW = {
    "genre_aspects": ["rock"],
    "mood_aspects": ["happy", "bright"],
    "instrument_aspects": [],
    "tempo_aspects": None,
    "aspect_list": ["rock", "happy", "bright", "vinyl crackle"],
}
SYSTEMLESS = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "[{{ m['role'] }}]{{ m['content'] }}{% if m['role'] == 'assistant' %}{{ eos_token }}\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
CHATTY = SYSTEMLESS.replace("{% if m['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}", "")


def tokenizer_with(template: str) -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<s>", "</s>", *alphabet])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(["<s>", "</s>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = template
    return tokenizer


def test_the_user_message_names_categories_and_tags():
    system, user = PromptTemplate.load(None).messages(ROW)
    assert system["role"] == "system"
    assert user["content"].splitlines()[:3] == ["genre: rock", "mood: happy, bright", "other: vinyl crackle"]


def test_a_template_file_replaces_the_built_in_one(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("user: 'Describe: {{ tags | join(\"; \") }}'\n")
    assert PromptTemplate.load(str(path)).messages(ROW) == [
        {"role": "user", "content": "Describe: rock; happy; bright; vinyl crackle"}
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("user: '{{ genre }}'\n", "leaves some category"),
        ("user: '{{ nothing }}'\n", "no valid template"),
        ("user: '{% for %}'\n", "no valid template"),
        ("system: hello\n", "has not the keys"),
        ("user: '{{ tags }}'\nextra: 1\n", "has not the keys"),
        ("user: [", "is not YAML"),
    ],
)
def test_unusable_template_files_are_refused(tmp_path, text, problem):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=problem):
        PromptTemplate.load(str(path))


def test_a_missing_template_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        PromptTemplate.load(str(tmp_path / "none.yaml"))


def test_a_used_template_can_be_sent_to_a_worker():
    template = PromptTemplate.load(None)
    assert pickle.loads(pickle.dumps(template)).messages(ROW) == template.messages(ROW)


@pytest.mark.parametrize("chat", [SYSTEMLESS, CHATTY])
def test_training_and_inference_share_the_prompt_tokens(chat):
    tokenizer = tokenizer_with(chat)
    messages = PromptTemplate.load(None).messages(ROW)
    asked = prompt_ids(tokenizer, messages)
    whole, num_prompt = dialogue_ids(tokenizer, messages, "A bright and happy rock song.")
    assert whole[:num_prompt] == asked
    assert asked.count(tokenizer.bos_token_id) == 1
    assert tokenizer.decode(whole[num_prompt:]) == "A bright and happy rock song.</s>"
    assert "You are a music expert" in tokenizer.decode(asked)


def test_an_answer_that_the_chat_template_leaves_open_is_ended():
    tokenizer = tokenizer_with(CHATTY.replace("{{ eos_token }}\n", ""))
    whole, _ = dialogue_ids(tokenizer, PromptTemplate.load(None).messages(ROW), "A song.")
    assert whole[-1] == tokenizer.eos_token_id


@pytest.mark.parametrize(
    ("reply", "caption"),
    [
        ("  A happy song.\n", "A happy song."),
        ('"A happy song."', "A happy song."),
        ("Sure, here is a caption: A happy song.", "A happy song."),
        ("Here's a caption:\n\nA happy song.\nIt is fast.", "A happy song. It is fast."),
        ("Caption: A happy song.", "A happy song."),
        ('"One" and "two"', '"One" and "two"'),
        ("", ""),
    ],
)
def test_what_models_put_around_a_caption_is_taken_off(reply, caption):
    assert clean_reply(reply) == caption


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        ("A happy rock song with drums.", None),
        ("", "empty"),
        ("A song.", "too_short"),
        ("- rock\n- drums and bass\n- happy and loud", "markup"),
        ("1. A rock song with a very happy mood", "markup"),
        ("A **happy** rock song with drums.", "markup"),
        ("<b>A happy rock song with drums</b>", "markup"),
        ("A happy song [/INST] with some drums", "markup"),
        ("See https://example.org for a happy song", "markup"),
        ("A track with 1.5 times the usual tempo.", None),
    ],
)
def test_replies_that_are_no_captions_have_a_reason(reply, code):
    assert refuse(clean_reply(reply), reply) == code


@pytest.mark.parametrize("name", ["default", "zero-shot"])
def test_the_prompts_in_configs_can_be_used(name):
    path = Path(__file__).parents[2] / "configs" / "prompts" / f"{name}.yaml"
    assert "mood: happy, bright" in PromptTemplate.load(str(path)).messages(ROW)[-1]["content"]


@pytest.mark.parametrize("name", ["default", "zero-shot", "judge"])
def test_the_prompts_in_configs_are_the_packaged_ones(name):
    root = Path(__file__).resolve().parents[2]
    packaged = root / "conceptcaps" / "assets" / "prompts" / f"{name}.yaml"
    assert (root / "configs" / "prompts" / f"{name}.yaml").read_text() == packaged.read_text()
