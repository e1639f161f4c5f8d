"""Make `silo/pb/` from `proto/`: messages, their type stubs and the gRPC classes of every .proto file.

    python tools/gen_proto.py            write what is new, remove what no .proto stands for any more
    python tools/gen_proto.py --check    write nothing; exit 1 if what is committed is not what would be written

protoc sees `proto/` under the name `silo/pb`, so that generated modules import one another as `silo.pb`.  A .proto file
that needs another therefore says `import "silo/pb/silo.proto";`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
PB = ROOT / "silo" / "pb"


def main() -> int:
    parser = argparse.ArgumentParser(description="Make silo/pb/ from proto/.")
    parser.add_argument("--check", action="store_true", help="only say whether silo/pb/ is current")
    only_check = parser.parse_args().check

    wanted, present = generated(), committed()
    stale = sorted(name for name in wanted.keys() | present.keys() if wanted.get(name) != present.get(name))
    if only_check:
        return report(stale)
    for name in stale:
        replace(PB / name, wanted.get(name))
    return 0


def generated() -> dict[str, bytes]:
    """What protoc makes of all of `proto/`, by file name."""
    sources = sorted(f"silo/pb/{path.name}" for path in PROTO.glob("*.proto"))
    with tempfile.TemporaryDirectory() as out:
        outputs = (f"--{kind}_out={out}" for kind in ("python", "pyi", "grpc_python"))
        protoc = [sys.executable, "-m", "grpc_tools.protoc", "-Isilo/pb=proto", *outputs, *sources]
        if subprocess.run(protoc, cwd=ROOT, check=False).returncode:
            sys.exit("protoc refused; see above")
        return {path.name: path.read_bytes() for path in Path(out, "silo", "pb").iterdir()}


def committed() -> dict[str, bytes]:
    """What stands in `silo/pb/` now, by file name."""
    return {path.name: path.read_bytes() for path in PB.glob("*_pb2*.py*")}


def report(stale: list[str]) -> int:
    """Say which files are stale and what to do about it; the exit code."""
    if not stale:
        return 0
    print(f"silo/pb/ is not what proto/ says: {', '.join(stale)}", file=sys.stderr)
    print("run `make proto` and commit what it writes", file=sys.stderr)
    return 1


def replace(path: Path, content: bytes | None) -> None:
    """Give the file this content; with None, remove it."""
    if content is None:
        path.unlink()
        print(f"removed {path.relative_to(ROOT)}")
    else:
        path.write_bytes(content)
        print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    sys.exit(main())
