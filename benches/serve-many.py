"""Writes the images of `benches/serve many`: DIR/tags has 10,000 tags of 1,000 images, as links to
specs of about 64 KB each, and DIR/paths an image of 100,000 store paths.

    benches/serve-many.py DIR
"""

import hashlib
import json
import os
import sys

DIGITS = "0123456789abcdfghijklmnpqrsvwxyz"


def path(number: int) -> str:
    digest = hashlib.sha256(b"%d" % number).digest()
    name = "".join(DIGITS[byte % 32] for byte in digest)
    return f"/nix/store/{name}-some-package-{number}-1.2.3"


def spec(seed: int, count: int, layers: int) -> dict:
    """Returns an image spec of `count` store paths, which other seeds share in part."""
    paths = sorted(path(seed * count // 10 + number) for number in range(count))
    digest = lambda *of: "sha256:" + hashlib.sha256(repr(of).encode()).hexdigest()
    size = -(-count // layers)
    parts = [paths[begin : begin + size] for begin in range(0, count, size)]
    return {
        "version": 1,
        "platform": {"architecture": "amd64", "os": "linux"},
        "created": "1970-01-01T00:00:01Z",
        "config": {"Cmd": [f"{paths[0]}/bin/app"]},
        "history": [
            {"created": "1970-01-01T00:00:01Z", "created_by": "stowage", "comment": ", ".join(part[:3])}
            for part in parts
        ],
        "layers": [
            {
                "diffId": digest(part),
                "size": 1 << 20,
                "checksum": "xxh128:" + "0" * 32,
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "contents": {"storePaths": part},
            }
            for part in parts
        ],
        "storePaths": [
            {
                "path": it,
                "narHash": "sha256:" + "0" * 52,
                "narSize": 100000,
                "references": paths[max(0, number - 5) : number],
            }
            for number, it in enumerate(paths)
        ],
    }


def write(file: str, value: dict) -> None:
    with open(file, "w", encoding="utf-8") as out:
        json.dump(value, out, indent=2)
        out.write("\n")


def main(directory: str) -> None:
    for name in ["specs", "tags", "paths/large"]:
        os.makedirs(f"{directory}/{name}")
    for number in range(1000):
        write(f"{directory}/specs/{number}.json", spec(number, 90, 30))
    for number in range(10000):
        repository = f"{directory}/tags/app{number % 100}"
        os.makedirs(repository, exist_ok=True)
        os.symlink(f"{directory}/specs/{number // 10}.json", f"{repository}/v{number}")
    write(f"{directory}/paths/large/v1", spec(0, 100000, 100))


if __name__ == "__main__":
    main(sys.argv[1])
