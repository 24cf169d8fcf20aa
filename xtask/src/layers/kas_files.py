"""Holds kas files against kas's own schema: a line on stdout for each thing that it does not allow."""

import importlib.resources
import json
import sys

import jsonschema
import yaml

schema = importlib.resources.files("kas").joinpath("schema-kas.json").read_text()
validator = jsonschema.Draft7Validator(json.loads(schema))
for path in sys.argv[1:]:
    with open(path, encoding="utf-8") as file:
        for error in validator.iter_errors(yaml.safe_load(file)):
            print(f"{path}: {error.json_path}: {error.message}")
