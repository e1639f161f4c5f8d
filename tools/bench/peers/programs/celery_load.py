"""Celery under load: python celery_load.py URL JOBS SAMPLES; the last line of its output is JSON."""

import importlib.metadata
import json
import os
import subprocess
import sys
import time

import redis
from celery import Celery

PROCESSES = 2
URL = os.environ.get("BENCH_REDIS") or sys.argv[1]

app = Celery("celery_load", broker=URL)
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=64,
    worker_send_task_events=False,
    broker_connection_retry_on_startup=True,
)


@app.task
def nothing(payload: str) -> None:
    pass


@app.task
def start(began_at: float) -> None:
    redis.Redis.from_url(URL).rpush("took", (time.time() - began_at) * 1000)


def main(jobs: int, samples: int) -> None:
    server = redis.Redis.from_url(URL)
    began = time.perf_counter()
    # There is no call for many; one connection is kept.
    with app.producer_pool.acquire(block=True) as producer:
        for _ in range(jobs):
            nothing.apply_async(("x" * 256,), producer=producer)
    enqueued_s = time.perf_counter() - began

    command = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        "celery_load",
        "worker",
        "-c",
        str(PROCESSES),
        "-l",
        "ERROR",
    ]
    here = os.path.dirname(os.path.abspath(__file__))
    environment = {**os.environ, "BENCH_REDIS": URL, "C_FORCE_ROOT": "1"}
    worker = subprocess.Popen(
        [*command, "--without-gossip", "--without-mingle"],
        cwd=here,
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    try:
        waiting = jobs
        while waiting == jobs:
            waiting = server.llen("celery") + server.hlen("unacked")
            time.sleep(0.01)
        began = time.perf_counter()
        first = waiting
        while waiting:
            waiting = server.llen("celery") + server.hlen("unacked")
            time.sleep(0.05)
        drained_s = time.perf_counter() - began

        took_ms: list[float] = []
        for _ in range(samples):
            start.apply_async((time.time(),))
            _, took = server.blpop("took", timeout=60)
            took_ms.append(float(took))
            time.sleep(0.01)
    finally:
        worker.terminate()
        worker.wait(30)
    found = {
        "version": importlib.metadata.version("celery"),
        "enqueue": jobs / enqueued_s,
        "drain": first / drained_s,
        "ms": took_ms[samples // 20 :],
        "how": f"one call a job, one producer; {PROCESSES} worker processes",
    }
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[2]), int(sys.argv[3]))
