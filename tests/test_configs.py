"""Every recipe in configs/ is right: it loads, fits the JSON schema, and is explained."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml

from dataselect.core.errors import RecipeError
from dataselect.planning.recipe import load_recipe
from dataselect.planning.schema import recipe_schema

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))


def test_there_are_configs():
    assert CONFIGS


def load_with_stubs(path):
    """Load a recipe, making an empty file for each that it names and that is not there."""
    while True:
        try:
            return load_recipe(path)
        except RecipeError as error:
            missing = re.findall(r"file not found: (.*)", str(error))
            if not missing:
                raise
            for name in missing:
                Path(name).parent.mkdir(parents=True, exist_ok=True)
                Path(name).touch()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_it_loads(path, tmp_path, monkeypatch):
    for name in set(re.findall(r"\$\{?([A-Z_]+)", path.read_text("utf-8"))):
        monkeypatch.setenv(name, "/somewhere")
    copy = tmp_path / "configs" / path.name
    shutil.copytree(path.parent, copy.parent)
    recipe = load_with_stubs(copy)
    assert recipe.stages
    assert Path(recipe.output.folder).is_absolute()
    assert not recipe.output.folder.startswith(str(copy.parent)), "writes beside the configs"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_it_fits_the_json_schema(path):
    schema = recipe_schema()
    validate(yaml.safe_load(path.read_text("utf-8")), schema, schema)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_it_begins_with_a_comment_that_says_what_it_is_for(path):
    assert path.read_text("utf-8").startswith("#")


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r.pop("input"),
        lambda r: r.update(foo=1),
        lambda r: r["input"].update(txt="a"),
        lambda r: r["stages"].append({"use": "nothing"}),
        lambda r: r["stages"].append({"use": "minhash_dedup", "threshold": 8}),
        lambda r: r["stages"].append({"use": "select"}),
        lambda r: r["output"].update(format="csv"),
        lambda r: r["output"].update(columns={"a": "int"}),
        lambda r: r.update(stages=[]),
    ],
)
def test_the_json_schema_refuses_what_is_wrong(change):
    schema = recipe_schema()
    recipe = {"input": {"shards": ["a"]}, "stages": [{"use": "exact_dedup"}], "output": {"folder": "o"}}
    validate(recipe, schema, schema)
    change(recipe)
    with pytest.raises(Invalid):
        validate(recipe, schema, schema)


def test_the_json_schema_takes_short_forms_and_ones_own_stages():
    schema = recipe_schema()
    recipe = {
        "input": {"shards": "a/*.jsonl", "text": ["a", "b"], "max_bad_rows": "0.1%", "piece_bytes": "64MiB"},
        "stages": [
            {"use": "mine.py:Mine", "anything": 1},
            {"use": "minhash_dedup", "bands": [9, 13]},
            {"use": "select", "method": "uniform", "keep": {"bytes": "10GB"}},
        ],
        "output": {"folder": "o", "add": ["x"]},
        "expect": {"min_kept": "1%", "max_rows": 10},
    }
    validate(recipe, schema, schema)


# A small JSON Schema validator, so that the tests need no package for it --------------------------------

NOTES = {"title", "description", "default", "$defs", "$schema", "format"}
TYPES = {
    "object": dict, "array": (list, tuple), "string": str, "boolean": bool, "null": type(None),
    "integer": int, "number": (int, float),
}  # fmt: skip


class Invalid(Exception):
    """The value does not fit."""


def check(holds, value, schema):
    if not holds:
        raise Invalid(f"{value!r} does not fit {schema}")


def validate(value, schema, root):
    for keyword, limit in schema.items():
        if keyword not in NOTES:
            KEYWORDS[keyword](value, limit, schema, root)


def check_type(value, limit, schema, root):
    fits = isinstance(value, TYPES[limit]) and (limit == "boolean" or not isinstance(value, bool))
    check(fits, value, schema)


def check_any_of(value, options, schema, root):
    errors = []
    for option in options:
        try:
            return validate(value, option, root)
        except Invalid as error:
            errors.append(str(error))
    raise Invalid(f"{value!r} fits none: {errors}")


def check_properties(value, properties, schema, root):
    if isinstance(value, dict):
        for name in value.keys() & properties.keys():
            validate(value[name], properties[name], root)


def check_additional(value, limit, schema, root):
    if isinstance(value, dict):
        for name in value.keys() - schema.get("properties", {}).keys():
            check(limit is not False, value, f"no {name}")
            if isinstance(limit, dict):
                validate(value[name], limit, root)


def check_items(value, limit, schema, root):
    for item in value if isinstance(value, (list, tuple)) else ():
        validate(item, limit, root)


def check_prefix(value, limits, schema, root):
    if isinstance(value, (list, tuple)):
        for item, limit in zip(value, limits, strict=False):
            validate(item, limit, root)


def compares(holds, kind=(int, float)):
    return lambda value, limit, schema, root: check(
        not isinstance(value, kind) or holds(value, limit), value, schema
    )


KEYWORDS = {
    "$ref": lambda value, ref, schema, root: validate(value, root["$defs"][ref.rsplit("/", 1)[1]], root),
    "type": check_type,
    "anyOf": check_any_of,
    "properties": check_properties,
    "additionalProperties": check_additional,
    "required": compares(lambda value, names: set(names) <= set(value), dict),
    "items": check_items,
    "prefixItems": check_prefix,
    "enum": lambda value, options, schema, root: check(value in options, value, schema),
    "const": lambda value, constant, schema, root: check(value == constant, value, schema),
    "pattern": compares(lambda value, pattern: re.search(pattern, value), str),
    "minLength": compares(lambda value, limit: len(value) >= limit, str),
    "minItems": compares(lambda value, limit: len(value) >= limit, (list, tuple)),
    "maxItems": compares(lambda value, limit: len(value) <= limit, (list, tuple)),
    "minimum": compares(lambda value, limit: value >= limit),
    "maximum": compares(lambda value, limit: value <= limit),
    "exclusiveMinimum": compares(lambda value, limit: value > limit),
    "exclusiveMaximum": compares(lambda value, limit: value < limit),
}
