"""The style of the public API: documented, annotated, options by keyword, an example that runs."""

import doctest
import inspect
import types

import pytest

import jaxviz
from jaxviz import (
    attribution,
    datasets,
    fills,
    metrics,
    objectives,
    parametrize,
    plot,
    presets,
    regularize,
    transforms,
)
from jaxviz.maximization import objective

MODULES = [
    attribution,
    attribution.rules,
    objective,
    datasets,
    fills,
    metrics,
    objectives,
    parametrize,
    plot,
    presets,
    regularize,
    transforms,
]


def public(module):
    """Functions and classes of a module that are its own and not private."""
    for name in getattr(module, "__all__", None) or sorted(vars(module)):
        value = getattr(module, name)
        if name.startswith("_") or not (inspect.isfunction(value) or inspect.isclass(value)):
            continue
        if module is jaxviz:
            yield f"jaxviz.{name}", value
        elif value.__module__.startswith(module.__name__):
            yield f"jaxviz.{module.__name__.split('.')[-1]}.{name}", value


# Parts that other modules of the package call, and nobody else.
HELPERS = {
    "jaxviz.objective.check",
    "jaxviz.parametrize.frequencies",
}
EVERYTHING = dict(pair for module in [jaxviz, *MODULES] for pair in public(module))
FUNCTIONS = {n: f for n, f in EVERYTHING.items() if inspect.isfunction(f) and n not in HELPERS}


def test_all_names_exist_and_are_sorted():
    assert sorted(jaxviz.__all__) == jaxviz.__all__ == sorted(set(jaxviz.__all__))
    for name in jaxviz.__all__:
        value = getattr(jaxviz, name)
        assert callable(value) or isinstance(value, types.ModuleType)
    assert set(jaxviz.__all__) <= set(dir(jaxviz))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'jaxviz' has no attribute 'occlud'"):
        jaxviz.occlud  # noqa: B018


def test_the_walk_finds_the_api():
    assert {"jaxviz.occlude", "jaxviz.Occlusion", "jaxviz.fills.blur"} <= set(EVERYTHING)
    assert {"jaxviz.presets.captum", "jaxviz.presets.seed"} <= set(FUNCTIONS)


@pytest.mark.parametrize("name", EVERYTHING)
def test_it_is_documented_in_one_sentence_first(name):
    text = inspect.getdoc(EVERYTHING[name])
    assert text, name
    first = text.split("\n\n")[0]
    assert first.endswith((".", ":")) and len(first) < 250, first


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_argument_is_documented(name):
    parameters = inspect.signature(FUNCTIONS[name]).parameters
    text = inspect.getdoc(FUNCTIONS[name])
    if len(text.split("\n")) > 1:  # a line may say it all
        for argument in parameters:
            assert f"{argument}:" in text or f"`{argument}`" in text, f"{name}: {argument}"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_it_is_annotated(name):
    signature = inspect.signature(FUNCTIONS[name])
    bare = [p for p in signature.parameters.values() if p.annotation is inspect.Parameter.empty]
    assert not bare and signature.return_annotation is not inspect.Signature.empty, bare


# Data with a default, or one of the positional options that keras-vis and DESIGN name.
POSITIONAL = {
    "jaxviz.activations": ["layers"],
    "jaxviz.make_segments": ["groups"],
    "jaxviz.visualize_activation": ["layer", "filter_indices"],
    "jaxviz.visualize_cam": ["filter_indices"],
    "jaxviz.visualize_saliency": ["filter_indices"],
    "jaxviz.parametrize.maco": ["magnitude"],
    "jaxviz.plot.occlusion": ["class_maps"],
    "jaxviz.presets.captum": ["stride"],
    "jaxviz.presets.xplique": ["patch", "stride"],
    "jaxviz.presets.pair": ["size"],
    "jaxviz.presets.monai": ["window"],
    "jaxviz.rules.alpha_beta": ["alpha", "beta"],
    "jaxviz.rules.epsilon": ["size"],
    "jaxviz.rules.gamma": ["factor"],
    "jaxviz.datasets.load_digits": ["split"],
    "jaxviz.datasets.load_mnist": ["path", "split"],
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_options_are_keyword_only(name):
    parameters = inspect.signature(FUNCTIONS[name]).parameters.values()
    assert not any(p.kind is p.VAR_KEYWORD for p in parameters), "no **kwargs"
    loose = [
        p.name
        for p in parameters
        if p.kind is p.POSITIONAL_OR_KEYWORD and p.default is not inspect.Parameter.empty
    ]
    assert set(loose) <= set(POSITIONAL.get(name, [])), loose


@pytest.mark.parametrize("name", FUNCTIONS)
def test_it_has_an_example(name):
    text = inspect.getdoc(FUNCTIONS[name])
    examples = doctest.DocTestParser().get_examples(text)
    assert examples, f"{name} has no example"
    lines = [line for line in text.split("\n") if line.strip().startswith((">>>", "..."))]
    assert len(lines) <= 6, f"{name}: an example of {len(lines)} lines"
