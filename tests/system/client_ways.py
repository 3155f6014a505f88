"""A worker that predicts in every way that there is; each prediction is called by its way."""

import asyncio
import json
import multiprocessing
import os
import subprocess
import sys
import threading

from taximeter import client

TRACE = f"00-{'a' * 32}-{'b' * 16}-01"


def work():
    return sum(range(200_000))


@client.prediction("decorated", model="acme/sum")
def decorated():
    return work()


@client.prediction("generated")
def generated():
    yield work()
    yield work()


async def task(name):
    async with client.prediction(name):
        for _ in range(5):
            work()
            await asyncio.sleep(0)


async def tasks():
    await asyncio.gather(*(task(f"task-{n}") for n in range(3)))
    late = asyncio.create_task(task_without_end())
    await asyncio.sleep(0.01)
    late.cancel()
    await asyncio.gather(late, return_exceptions=True)


async def task_without_end():
    async with client.prediction("task-canceled"):
        await asyncio.sleep(60)


def threaded(n):
    with client.prediction(f"thread-{n}", account=f"cus_{n}"):
        work()


def child():
    with client.prediction("forked"):
        work()


def spawned():
    with client.prediction("spawned"):
        work()


def echo(mark):
    """As a shell does."""
    script = """echo "$1" 1<>"$TAXIMETER_MARKS" """
    subprocess.run(["sh", "-c", script, "sh", json.dumps(mark)], check=True)


def main():
    client.ready()
    said = {"version": "3f2a", "account": "cus_7", "attributes": {"resolution": "1080p"}, "traceparent": TRACE}
    with client.prediction("plain", model="acme/sum", **said) as plain:
        work()
        plain.add(token_input=3)
        plain.add(token_output=1, image=0.5)
        plain.add(token_output=2)
        with client.prediction("nested"):
            work()
        code = "from taximeter import client\nwith client.prediction('downstream'): sum(range(200_000))"
        subprocess.run([sys.executable, "-c", code], env=os.environ | plain.environment(), check=True)
    with client.prediction("loading", service_class="fast_boot", account="cus_8") as loading:
        work()
        loading.active()
        work()
    decorated()
    list(generated())
    asyncio.run(tasks())
    threads = [threading.Thread(target=threaded, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for way, target in (("fork", child), ("spawn", spawned)):
        process = multiprocessing.get_context(way).Process(target=target)
        process.start()
        process.join()
    handed = client.prediction("handed-over", detached=True).start()
    if (pid := os.fork()) == 0:
        work()
        handed.finish()
        os._exit(0)
    os.waitpid(pid, 0)
    try:
        with client.prediction("raised"):
            raise ValueError
    except ValueError:
        pass
    echo({"mark": "start", "prediction": "echoed"})
    echo({"mark": "finish", "prediction": "echoed", "status": "succeeded"})
    client.stopping()
    print(client.dropped())


if __name__ == "__main__":
    main()
