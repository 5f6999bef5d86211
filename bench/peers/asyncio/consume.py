"""What both asyncio workers share: aiokafka in and out, and commits of what is complete from the bottom up."""

import asyncio
import os
import signal

import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

INFLIGHT = int(os.environ["INFLIGHT"])
CA = os.environ.get("CA")
COMMIT_S = 0.1


class Progress:
    """Of each partition, the offset below which all jobs are complete."""

    def __init__(self):
        self.next = {}
        self.above = {}

    def begin(self, tp, offset):
        if tp not in self.next:
            self.next[tp] = offset
            self.above[tp] = set()

    def complete(self, tp, offset):
        above = self.above[tp]
        above.add(offset)
        while self.next[tp] in above:
            above.discard(self.next[tp])
            self.next[tp] += 1


async def commit_loop(consumer, progress):
    committed = {}
    while True:
        await asyncio.sleep(COMMIT_S)
        due = {tp: n for tp, n in progress.next.items() if committed.get(tp) != n}
        if due:
            await consumer.commit(due)
            committed |= due


async def work(fetch):
    """fetch(url) -> body, for ever."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)
    consumer = AIOKafkaConsumer(os.environ["JOBS"], bootstrap_servers=os.environ["BOOTSTRAP"], group_id=os.environ["GROUP"],
                                auto_offset_reset="earliest", enable_auto_commit=False)
    producer = AIOKafkaProducer(bootstrap_servers=os.environ["BOOTSTRAP"], enable_idempotence=True, compression_type="lz4")
    progress, slots, tasks = Progress(), asyncio.Semaphore(INFLIGHT), set()

    async def one(message, tp):
        try:
            body = await fetch(message.value.decode())
            await (await producer.send(os.environ["RESULTS"], body, key=message.key))
            progress.complete(tp, message.offset)
        finally:
            slots.release()

    await consumer.start()
    await producer.start()
    commits = asyncio.create_task(commit_loop(consumer, progress))
    try:
        async for message in consumer:
            tp = TopicPartition(message.topic, message.partition)
            progress.begin(tp, message.offset)
            await slots.acquire()
            task = asyncio.create_task(one(message, tp))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
    except asyncio.CancelledError:
        pass
    finally:
        commits.cancel()
        await producer.stop()
        await consumer.stop()


def run(main):
    uvloop.install()
    asyncio.run(main())
