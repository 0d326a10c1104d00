"""The JSON Schema of a recipe, for editors and for checks without dataselect."""

from __future__ import annotations

from typing import Any

from dataselect import stages as stage_registry
from dataselect.planning.recipe import Document


def recipe_schema() -> dict[str, Any]:
    """JSON Schema of a recipe, with the parameters of every stage."""
    schema = Document.model_json_schema()
    definitions = schema.setdefault("$defs", {})
    options = []
    for use, cls in stage_registry.registry().items():
        stage = cls.model_json_schema()
        definitions |= stage.pop("$defs", {})
        stage["properties"] = {"use": {"const": use}, **stage["properties"]}
        stage["required"] = ["use", *stage.get("required", [])]
        definitions[cls.__name__] = stage
        options.append({"$ref": f"#/$defs/{cls.__name__}"})
    own = {
        "type": "object",
        "properties": {"use": {"type": "string", "pattern": r"\.py:"}},
        "required": ["use"],
    }
    schema["properties"]["stages"]["items"] = {"anyOf": [*options, own]}
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "dataselect recipe"
    return dict(_standard(schema))


_KEYWORDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}


def _standard(schema: Any) -> Any:
    """Pydantic's own words for the limits of a field whose schema we give, in those of JSON Schema."""
    if isinstance(schema, list):
        return [_standard(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        _KEYWORDS.get(k, k) if isinstance(v, (int, float)) else k: _standard(v) for k, v in schema.items()
    }
