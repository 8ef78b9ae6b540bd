"""Damaged and forged bundles by the hundred thousand: none crashes, hangs, or is taken for what it is not.

    python bench/mutations.py [--count 100000] [--seed 1] [--json]

A real bundle with an isolation forest, a random forest, an LSTM step and an autoregression
(tests/small_bundle.py) is changed in one to three places and read as an agent reads it. One in two is only
damaged, so its digests tell. One in four is forged: the digests are made to fit, as somebody without a key
could, and every parser sees the bytes. The last quarter is an archive on its way. What is accepted has its
digests computed again, here, by other code. Workers are processes: one that dies of a signal or takes more
than a minute for one bundle is reported with the seed that killed it. Directories are in memory (/dev/shm)
where there is such a thing.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import io
import json
import multiprocessing
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import small_bundle  # noqa: E402 -- the bundle of the tests
from node_anomaly_core.archive import unpack_archive, write_archive  # noqa: E402
from node_anomaly_core.bundle import DIGEST, MANIFEST, SIGNATURE, verify_bundle, write_bundle  # noqa: E402
from node_anomaly_core.errors import BundleError  # noqa: E402
from node_anomaly_core.signing import PrivateKey, sign  # noqa: E402

BATCH = 500
BATCH_LIMIT_S = 600.0
HANG_S = 60.0
KEY = PrivateKey(b"bench" + bytes(27))
Files = dict[str, bytes]


def damaged(content: bytes, rng: random.Random) -> bytes:
    """One to three changes of the kinds that discs, networks and people make."""
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(content) + 1)
        kind = rng.randrange(7)
        if kind == 0 and content:
            at = min(at, len(content) - 1)
            content = content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]
        elif kind == 1:
            content = content[:at]
        elif kind == 2:
            content = content[:at] + rng.randbytes(rng.randint(1, 64)) + content[at:]
        elif kind == 3:
            content = content[:at] + content[at + rng.randint(1, 64) :]
        elif kind == 4:
            content = content[:at] + rng.randbytes(8) + content[at + 8 :]
        elif kind == 5:
            other = rng.randrange(len(content) + 1)
            content = content[:at] + content[other : other + 64] + content[at + 64 :]
        else:
            number = rng.choice(
                (b"-1", b"0", b"1e308", b"NaN", b"null", b"[]", b"99999999999999999999", b'""')
            )
            content = content[:at] + number + content[at + len(number) :]
    return content


def mutate(original: Files, rng: random.Random) -> tuple[str, Files]:
    """A kind and the files of one mutated bundle."""
    files = dict(original)
    name = rng.choice(sorted(files))
    kind = rng.choice(("damaged", "damaged", "forged"))
    if kind == "damaged":
        if rng.random() < 0.05:
            del files[name]
        elif rng.random() < 0.05:
            other = rng.choice(sorted(files))
            files[name], files[other] = files[other], files[name]
        else:
            files[name] = damaged(files[name], rng)
        return kind, files
    name = rng.choice([one for one in sorted(files) if one not in (DIGEST, SIGNATURE)])
    files[name] = damaged(files[name], rng)
    if name != MANIFEST:
        manifest = json.loads(files[MANIFEST])
        manifest["files"][name] = {
            "size": len(files[name]),
            "sha256": hashlib.sha256(files[name]).hexdigest(),
        }
        files[MANIFEST] = json.dumps(manifest).encode()
    files[DIGEST] = hashlib.sha256(files[MANIFEST]).hexdigest().encode() + b"  manifest.json\n"
    return kind, files


def attempt(number: int, original: Files, archive: bytes, home: Path) -> tuple[str, str]:
    """Kind and outcome of one mutation: a reason, `accepted`, or what must not be."""
    rng = random.Random(number)  # noqa: S311 -- every run is the same
    path = home / "bundle"
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    started = time.monotonic()
    try:
        if rng.random() < 0.25:
            kind = "archive"
            unpack_archive(io.BytesIO(damaged(archive, rng)), path)
        else:
            kind, files = mutate(original, rng)
            for name, content in files.items():
                (path / name).write_bytes(content)
        keys = [KEY.public] if rng.random() < 0.5 else []
        bundle = verify_bundle(path, keys)
    except BundleError as error:
        outcome = error.reason
    except Exception as error:  # noqa: BLE001 -- what this program is here to find
        return kind, f"NOT A REFUSAL: {error!r} ({number})"
    else:
        outcome = wrong(path, original, kind, signed=bool(keys)) or "accepted"
        if bundle.version != hashlib.sha256((path / MANIFEST).read_bytes()).hexdigest()[:16]:
            outcome = "WRONG VERSION"
    if time.monotonic() - started > HANG_S:
        outcome = "HUNG"
    return kind, outcome if outcome.islower() else f"{outcome} ({number})"


def wrong(path: Path, original: Files, kind: str, *, signed: bool) -> str:
    """What is wrong with an accepted bundle, judged without the code that accepted it."""
    content = (path / MANIFEST).read_bytes()
    if (path / DIGEST).read_bytes().split()[0].decode() != hashlib.sha256(content).hexdigest():
        return "WRONG DIGEST OF THE MANIFEST"
    for name, entry in json.loads(content)["files"].items():
        if hashlib.sha256((path / name).read_bytes()).hexdigest() != entry["sha256"]:
            return f"WRONG DIGEST OF {name}"
    if (signed or kind != "forged") and content != original[MANIFEST]:
        return "ANOTHER BUNDLE"
    return ""


def batch(first: int, count: int, original: Files) -> dict[tuple[str, str], int]:
    """Outcomes of a row of mutations."""
    shm = Path("/dev/shm")  # noqa: S108 -- a directory of its own is made in it
    with tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None) as home:
        archive = write_archive(original)
        found: collections.Counter[tuple[str, str]] = collections.Counter()
        for number in range(first, first + count):
            found[attempt(number, original, archive, Path(home))] += 1
        return dict(found)


def original_files() -> Files:
    """Every file of the bundle that is mutated, signed."""
    made = small_bundle.build()
    with tempfile.TemporaryDirectory() as home:
        path = write_bundle(Path(home), made.manifest, made.files, lambda content: sign(content, [KEY]))
        verify_bundle(path, [KEY.public])
        return {entry.name: entry.read_bytes() for entry in path.iterdir()}


def run(count: int, seed: int, workers: int) -> dict[tuple[str, str], int]:
    """All outcomes. A worker that dies or hangs is one of them."""
    original = original_files()
    total: collections.Counter[tuple[str, str]] = collections.Counter()
    starts = range(seed * 10_000_000, seed * 10_000_000 + count, BATCH)
    context = multiprocessing.get_context("fork")
    with context.Pool(workers, maxtasksperchild=20) as pool:
        jobs = [
            (start, pool.apply_async(batch, (start, min(BATCH, starts.stop - start), original)))
            for start in starts
        ]
        for done, (start, job) in enumerate(jobs):
            try:
                total.update(job.get(BATCH_LIMIT_S))
            except multiprocessing.TimeoutError:  # a worker that died leaves its job unanswered
                total["worker", f"DIED OR HUNG (after {start})"] += 1
            if sys.stderr.isatty():
                sys.stderr.write(f"\r{(done + 1) * BATCH} of {count}")
    return dict(total)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    started = time.monotonic()
    found = run(options.count, options.seed, options.workers)
    bad = {f"{kind}: {what}": count for (kind, what), count in found.items() if not what.islower()}
    if options.json:
        print(
            json.dumps({f"{kind}: {what}": count for (kind, what), count in sorted(found.items())}, indent=1)
        )
    else:
        reasons = sorted({what for _, what in found})
        kinds = sorted({kind for kind, _ in found})
        print(f"| outcome | {' | '.join(kinds)} |\n|---|{'---:|' * len(kinds)}")
        for what in reasons:
            print(f"| {what} | {' | '.join(str(found.get((kind, what), 0)) for kind in kinds)} |")
        print(
            f"\n{sum(found.values())} bundles in {time.monotonic() - started:.0f} s; "
            f"{len(bad)} kinds of trouble"
        )
    if bad:
        sys.exit(json.dumps(bad, indent=1))


if __name__ == "__main__":
    main()
