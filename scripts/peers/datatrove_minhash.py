"""datatrove: MinHash dedup in its four stages with the defaults (word 5-grams, 14 x 8, English tokenizer)."""

from __future__ import annotations

import sys

from datatrove.pipeline.dedup import MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets
from datatrove_steps import counting, reader, report, run, writer


def main(folder: str, out: str) -> None:
    config = MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8)
    signatures, buckets, removed = (f"{out}/{name}" for name in ("signatures", "buckets", "removed"))
    logs = [f"{out}/logs-{stage}" for stage in range(1, 5)]
    run([reader(folder), MinhashDedupSignature(signatures, config=config)], logs[0])
    run([MinhashDedupBuckets(signatures, buckets, config=config)], logs[1], tasks=config.num_buckets)
    run([MinhashDedupCluster(buckets, removed, config=config)], logs[2])
    kept = [MinhashDedupFilter(removed), counting("kept"), writer(f"{out}/kept")]
    run([reader(folder), counting("rows"), *kept], logs[3])
    report()


if __name__ == "__main__":
    main(*sys.argv[1:])
