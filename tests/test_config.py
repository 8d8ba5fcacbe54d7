"""Claims about the configurations: densities in words, strict JSON in and out."""

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepfovea.config import PUBLISHED_DENSITY, Density, InputError, TrainConfig, from_json, to_json
from deepfovea.generators import PRESETS
from deepfovea.generators.stream.net import StreamConfig
from deepfovea.generators.unet.net import UNetConfig


def refused(call, *args):
    """The message of the InputError, which is one short line."""
    with pytest.raises(InputError) as error:
        call(*args)
    message = str(error.value)
    assert len(message.splitlines()) == 1
    assert len(message) < 400
    return message


# --- densities --------------------------------------------------------------------------------


def test_the_default_density_is_the_published_one():
    assert dataclasses.astuple(PUBLISHED_DENSITY) == (0.98, 0.15, 20.0, 40.0, "px", None)


@pytest.mark.parametrize(
    ("text", "density"),
    [
        ("published", PUBLISHED_DENSITY),
        ("budget:10", Density(budget=0.1)),
        ("budget:0.5", Density(budget=0.005)),
        ("budget:100", Density(budget=1.0)),
        ("uniform:20", Density(center=0.2, periphery=0.2)),
        ("uniform:0", Density(center=0.0, periphery=0.0)),
        ("uniform:100", Density(center=1.0, periphery=1.0)),
        ("0.98,0.15,20,40", PUBLISHED_DENSITY),
        ("0.9,0.1,5,10deg", Density(0.9, 0.1, 5.0, 10.0, "deg")),
        (" 1, 0, 0, 1e3 ", Density(1.0, 0.0, 0.0, 1000.0)),
    ],
)
def test_densities_in_words(text, density):
    assert Density.parse(text) == density


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Published",
        "published:3",
        "budget",
        "budget:",
        "budget:ten",
        "budget:10%",
        "uniform",
        "uniform:20deg",
        "20",
        "0.98,0.15,20",
        "0.98,0.15,20,40,60",
        "0.98,0.15,20,40rad",
        "deg",
        "a\nb",
        "x" * 10_000,
    ],
)
def test_other_words_are_refused_with_the_forms_that_exist(text):
    message = refused(Density.parse, text)
    assert repr(text)[:100] in message
    for form in ("published", "budget:PERCENT", "uniform:PERCENT", "CENTRE,PERIPHERY,INNER,OUTER"):
        assert form in message


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("budget:0", "0 %"),
        ("budget:-3", "-3 %"),
        ("budget:101", "101 %"),
        ("budget:nan", "nan %"),
        ("uniform:120", "1.2"),
        ("uniform:-1", "-0.01"),
        ("uniform:nan", "nan"),
        ("0.1,0.2,20,40", "0.1"),
        ("1.1,0.2,20,40", "1.1"),
        ("0.9,-0.2,20,40", "-0.2"),
        ("0.9,0.2,40,20", "40.0 and 20.0"),
        ("0.9,0.2,20,20", "20.0 and 20.0"),
        ("0.9,0.2,-1,20", "-1.0"),
        ("0.9,0.2,nan,20", "nan"),
        ("0.9,0.2,20,nan", "nan"),
    ],
)
def test_impossible_densities_are_refused(text, named):
    message = refused(Density.parse, text)
    assert named in message
    assert "expected" in message


def test_an_infinite_radius_is_refused():
    refused(Density.parse, "0.9,0.2,20,inf")


def test_an_unknown_unit_is_refused():
    assert "furlong" in refused(from_json, Density, {"unit": "furlong"})


# --- JSON -------------------------------------------------------------------------------------


@st.composite
def densities(draw):
    share = st.floats(0, 1)
    periphery, center = sorted((draw(share), draw(share)))
    inner = draw(st.floats(0, 1e6))
    outer = draw(st.floats(math.nextafter(inner, math.inf), 1e9))
    budget = draw(st.none() | st.floats(1e-9, 1))
    return Density(center, periphery, inner, outer, draw(st.sampled_from(["px", "deg"])), budget)


@given(densities())
def test_densities_survive_json(density):
    assert from_json(Density, json.loads(to_json(density))) == density


@pytest.mark.parametrize(
    "config", [*(preset.config for preset in PRESETS.values()), TrainConfig(), TrainConfig(steps=7)]
)
def test_configs_survive_json(config):
    again = from_json(type(config), json.loads(to_json(config)))
    assert again == config
    assert hash(again) == hash(config)  # no list is left inside


def test_lists_become_tuples_and_whole_numbers_floats():
    config = from_json(StreamConfig, {"motion_channels": [3, 2, 1]})
    assert config.motion_channels == (3, 2, 1)
    rate = from_json(TrainConfig, {"learning_rate": 1}).learning_rate
    assert (rate, type(rate)) == (1.0, float)


@pytest.mark.parametrize("key", ["learning_rate", "discriminator_learning_rate"])
def test_a_rate_beyond_float32_is_refused(key):
    """A checkpoint or file may contain 1e308, with which Adam would fail inside a step."""
    message = refused(from_json, TrainConfig, {key: 1e308})
    assert f"--{key.replace('_', '-')}: received 1e+308, expected at most 1" in message


def test_an_empty_object_is_the_defaults():
    assert from_json(TrainConfig, {}) == TrainConfig()


@pytest.mark.parametrize(
    ("key", "near"),
    [("chanels", "channels"), ("Channels", "channels"), ("motion_channel", "motion_channels")],
)
def test_an_unknown_key_is_refused_with_the_nearest_known(key, near):
    message = refused(from_json, StreamConfig, {key: 1}, "model.safetensors")
    assert message.startswith("model.safetensors: ")
    assert repr(key) in message
    assert f"did you mean '{near}'" in message


def test_a_key_near_none_is_refused_with_all_known():
    message = refused(from_json, StreamConfig, {"zzz": 1})
    assert all(field.name in message for field in dataclasses.fields(StreamConfig))


@pytest.mark.parametrize(
    ("kind", "key", "value", "expected"),
    [
        (TrainConfig, "steps", 1.0, "int"),
        (TrainConfig, "steps", "1", "int"),
        (TrainConfig, "steps", None, "int"),
        (TrainConfig, "steps", True, "int"),
        (TrainConfig, "steps", [1], "int"),
        (TrainConfig, "ema", True, "float"),
        (TrainConfig, "ema", "0.9", "float"),
        (TrainConfig, "model", 3, "str"),
        (UNetConfig, "residual", 1, "bool"),
    ],
)
def test_a_value_of_another_type_is_refused(kind, key, value, expected):
    assert expected in refused(from_json, kind, {key: value})


@pytest.mark.parametrize("value", [None, [], [["steps", 1]], "steps", 3, True])
def test_only_an_object_is_a_config(value):
    assert "expected a JSON object" in refused(from_json, TrainConfig, value)


def test_a_missing_value_without_default_is_named():
    assert "decoder" in refused(from_json, UNetConfig, {"encoder": [1, 2, 3, 4, 5]})


def test_a_config_that_contradicts_itself_is_refused():
    refused(from_json, Density, {"center": 0.1, "periphery": 0.9})
    paper = json.loads(to_json(PRESETS["paper"].config))
    assert "3 decoder levels" in refused(from_json, UNetConfig, {**paper, "decoder": [128, 64, 16]})


@pytest.mark.parametrize("value", ["abc", None, 4, [1, 2], [1, "a", 3], [1, 2.5, 3], [[1], 2, 3]])
def test_other_than_three_whole_numbers_are_refused(value):
    refused(from_json, StreamConfig, {"motion_channels": value})


@pytest.mark.parametrize("value", [True, "half", [0.5]])
def test_a_budget_is_a_number(value):
    assert "Density.budget received" in refused(from_json, Density, {"budget": value})


def test_a_number_too_large_for_a_float_is_refused():
    refused(from_json, TrainConfig, {"ema": 10**400})


def test_channels_that_are_no_list_are_refused():
    paper = json.loads(to_json(PRESETS["paper"].config))
    refused(from_json, UNetConfig, {**paper, "decoder": "abcd"})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"shift": -1}, "--shift: received -1 pixels of --crop 256, expected 0 to 224"),
        ({"shift": 225}, "--shift: received 225 pixels"),
        ({"perceptual_resolution": 0.0}, "--perceptual-resolution: received 0.0"),
        ({"perceptual_resolution": 1.5}, "expected above 0, at most 1"),
        ({"perceptual_resolution": float("nan")}, "received nan"),
    ],
)
def test_what_the_judging_networks_see_has_bounds(values, said):
    with pytest.raises(InputError) as error:
        TrainConfig(**values)
    assert said in str(error.value)
