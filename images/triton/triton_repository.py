#!/usr/bin/env -S python3 -IB
"""Writes the image's model repository to a folder with other parameters.

`triton-repository FOLDER [MODEL [NAME=VALUE...]]...`: the parameters are those of docs/triton.md.
"""

import re
import shutil
import sys
from pathlib import Path

SOURCE = Path("/opt/dragon/triton_models")
PLAIN = re.compile(r"[^\"\\\n]*")


def write(folder: Path, parameters: dict[str, dict[str, str]]) -> None:
    """Copy all models into `folder` and set parameters of those that are named.

    Raises:
        ValueError: a model or a parameter is unknown, or a value cannot be written.
    """
    for model in sorted(path.name for path in SOURCE.iterdir() if (path / "config.pbtxt").is_file()):
        # File by file: the folder may be a volume whose own mode is not ours to set.
        shutil.copytree(SOURCE / model, folder / model, dirs_exist_ok=True, copy_function=shutil.copyfile)
        config = folder / model / "config.pbtxt"
        text = config.read_text()
        for name, value in parameters.pop(model, {}).items():
            text = with_parameter(text, model, name, value)
        config.write_text(text)
    if parameters:
        raise ValueError(f"there is no model {', '.join(parameters)}")


def with_parameter(text: str, model: str, name: str, value: str) -> str:
    """The text of a config.pbtxt with another value of a parameter.

    Raises:
        ValueError: it has no such parameter, or the value cannot be written.
    """
    if not PLAIN.fullmatch(value):
        raise ValueError(f"{model} {name}: a value has no quotes, backslashes or line breaks")
    pattern = rf'(parameters {{ key: "{re.escape(name)}" value {{ string_value: ")[^"]*(" }} }})'
    changed, count = re.subn(pattern, lambda found: f"{found[1]}{value}{found[2]}", text)
    if count != 1:
        raise ValueError(f"{model} has no parameter {name}")
    return changed


def main() -> None:
    """Read the arguments."""
    if len(sys.argv) < 2:
        sys.exit("usage: triton-repository FOLDER [MODEL [NAME=VALUE...]]...")
    parameters: dict[str, dict[str, str]] = {}
    model = ""
    for argument in sys.argv[2:]:
        name, is_parameter, value = argument.partition("=")
        if not is_parameter:
            model = argument
            parameters[model] = {}
        elif not model:
            sys.exit(f"triton-repository: {argument} comes before the name of a model")
        else:
            parameters[model][name] = value
    try:
        write(Path(sys.argv[1]), parameters)
    except (OSError, ValueError) as error:
        sys.exit(f"triton-repository: {error}")


if __name__ == "__main__":
    main()
