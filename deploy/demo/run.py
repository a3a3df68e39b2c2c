"""`make demo`: the main job on this machine, from the camera's files at SLAC to `butler.get` at IN2P3.

Everything that is shown is asked of the running system; the demo ends with a code other than 0 when any of it is not
so. It needs no root and no service, and keeps everything below one directory.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from demo.exposures import write_night
from demo.machine import Machine
from demo.story import DemoFailedError, Story
from servicelib.server import WebDavServer

DAY_OBS = 20241108
DATASET = f"raw:Dataset/LSSTComCam/raw/{DAY_OBS}"
SOURCE, DESTINATION = "SLAC_RAW_DISK", "IN2P3_RAW_DISK"
EXPOSURES = range(266, 270)
DETECTORS = 9
MARKER = ".arriero-demo"


def main() -> int:
    parser = argparse.ArgumentParser(description="The whole way of a file, on this machine.")
    parser.add_argument(
        "--dir", type=Path, default=Path("demo"), help="where everything is kept (default: ./demo)"
    )
    parser.add_argument("--keep", action="store_true", help="leave it running until Ctrl-C")
    parser.add_argument(
        "--storage",
        choices=["auto", "xrootd", "wsgidav"],
        default="auto",
        help="which WebDAV server to start",
    )
    options = parser.parse_args()
    directory = _fresh(options.dir.absolute())
    story = Story()
    machine = Machine(directory, story)
    try:
        tell(story, machine, options.storage)
        if options.keep:
            story.say("It is left running; Ctrl-C ends it.")
            machine.wait()
    except DemoFailedError as error:
        story.failed(str(error), machine.logs)
        return 1
    except KeyboardInterrupt:
        story.say("Interrupted.")
        return 130
    finally:
        machine.stop()
    return 0


def tell(story: Story, machine: Machine, storage: str) -> None:
    """Run the job, step by step."""
    begun = time.monotonic()
    total = len(EXPOSURES) * DETECTORS

    story.step("Two sites, each with a WebDAV server; the registry, its worker and its sweeps")
    slac, in2p3 = machine.start_storage(storage)
    story.say(f"{SOURCE} is {slac.kind} at {slac.url}, {DESTINATION} is {in2p3.kind} at {in2p3.url}")
    machine.start_arriero()

    story.step(f"The camera leaves {len(EXPOSURES)} exposures of {DETECTORS} detectors at SLAC")
    camera = machine.directory / "camera"
    raws = write_night(camera, DAY_OBS, seq_nums=EXPOSURES)
    for path in sorted(camera.rglob("*.*")):
        slac.write_file(f"raw/{path.relative_to(camera)}", path.read_bytes())
    story.say(f"{len(raws)} FITS files and {len(EXPOSURES)} `_index.json` below {slac.data_dir / 'raw'}")

    story.step("The registry learns of the sites and of the files")
    _register(machine, {SOURCE: slac, DESTINATION: in2p3})

    story.step("IN2P3 has a Butler repository, and an agent that holds a URL and a token and nothing else")
    repository = machine.directory / "in2p3" / "repo"
    machine.arriero("butler", "create", str(repository), "--instrument", "lsstcomcam")
    machine.arriero(
        *("butler", "add", "in2p3", "--uri", str(repository), "--rse", DESTINATION),
        *("--instrument", "lsstcomcam", "--select", "raw:LSSTComCam/*.fits"),
    )
    machine.start_agent("in2p3")

    story.step("A data manager adds one rule")
    asked = time.monotonic()
    rule = machine.arriero("rule", "add", DATASET, "--rses", DESTINATION, "--copies", "1").strip()
    followed = machine.follow(rule, "in2p3", total, timeout_s=120)
    story.say(f"{followed} after {time.monotonic() - asked:.1f} s")

    original = raws[-1]
    name = f"raw/{original.relative_to(camera)}"
    _prove(story, machine, repository, total)
    story.step("One image read back with butler.get, and compared with what the camera wrote")
    machine.compare_with_butler(repository, original, name, in2p3)

    story.step("The way of that file")
    story.show(machine.arriero("-o", "table", "trace", name.replace("/", ":", 1), quiet=True))

    story.say(f"The whole job took {time.monotonic() - begun:.0f} s.")
    machine.say_where(repository, DATASET)


def _register(machine: Machine, sites: Mapping[str, WebDavServer]) -> None:
    """Tell the registry of the RSEs, and of the files at the source."""
    for rse, server in sites.items():
        machine.arriero("rse", "add", rse)
        machine.arriero("rse", "attribute", "set", rse, "--key", "lfn2pfn_algorithm", "--value", "identity")
        machine.arriero(
            *("rse", "protocol", "add", rse, "--scheme", "http", "--hostname", "127.0.0.1"),
            *("--port", str(server.port), "--prefix", server.prefix),
        )
    machine.arriero("rse", "distance", "set", SOURCE, DESTINATION, "--distance", "1")
    machine.arriero("scope", "add", "raw", "--account", "root")
    machine.arriero(
        *("replica", "add", "--rse", SOURCE, "--scope", "raw", "--dataset", DATASET),
        f"LSSTComCam/{DAY_OBS}",
    )
    machine.arriero("did", "update", "--close", DATASET)


def _prove(story: Story, machine: Machine, repository: Path, total: int) -> None:
    """Ask the stock command what the Butler has."""
    story.step("What the Butler at IN2P3 says, asked with the stock command")
    table = machine.stock_butler(
        "query-datasets", str(repository), "raw", "--collections", "LSSTComCam/raw/all"
    )
    story.show(table.strip("\n"), most=11)
    shown = sum(line.split()[:1] == ["raw"] for line in table.splitlines())
    story.check(shown == total, f"`butler query-datasets` shows {total} raws", f"it shows {shown}")


def _fresh(directory: Path) -> Path:
    """Give an empty directory: a demo's own is emptied, anybody else's is refused."""
    if directory.exists() and any(directory.iterdir()):
        if not (directory / MARKER).exists():
            raise SystemExit(f"{directory} is not empty and no demo made it: choose another with --dir")
        Machine.end_leftovers(directory)
        shutil.rmtree(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / MARKER).touch()
    return directory


if __name__ == "__main__":
    sys.exit(main())
