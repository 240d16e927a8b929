"""Lays the Python package of Milvus out as its own image is: `unpack.py DATA_FOLDER_OF_THE_PACKAGE TARGET`."""

import lzma
import re
import shutil
import sys
from pathlib import Path

FOLDERS = {
    "etcd_data_dir": "/var/lib/milvus/etcd",
    "local_storage_dir": "/var/lib/milvus/data",
    "rocksmq_data_dir": "/var/lib/milvus/rocksmq",
    "system_log_path": "",
}
"""Values the template has no default for; logs go to standard output."""
PLACE = re.compile(r"\{\{ *(?P<name>\w+)(?:\(\w+\))?(?: *: *(?P<default>[^}]*?))? *\}\}")


def value_of(place: re.Match[str]) -> str:
    """What stands in the configuration in the place of `{{ name(type): default }}`."""
    default = place["default"]
    return FOLDERS[place["name"]] if default is None else default


def main() -> None:
    """Unpack."""
    source, target = map(Path, sys.argv[1:])
    for folder in ("bin", "lib", "configs"):
        (target / folder).mkdir(parents=True)
    for packed in (source / "bin").glob("*.lzma"):
        path = target / ("bin" if packed.stem == "milvus" else "lib") / packed.stem
        with lzma.open(packed) as reading, path.open("wb") as writing:
            shutil.copyfileobj(reading, writing)
        path.chmod(0o755)
    shutil.copyfile(source / "glog.conf", target / "configs" / "glog.conf")
    template = (source / "config.yaml.template").read_text()
    (target / "configs" / "milvus.yaml").write_text(PLACE.sub(value_of, template))


if __name__ == "__main__":
    main()
