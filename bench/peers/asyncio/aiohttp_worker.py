"""aiohttp + uvloop + aiokafka."""

import ssl

import aiohttp

import consume


async def main():
    tls = ssl.create_default_context(cafile=consume.CA)
    connector = aiohttp.TCPConnector(limit=consume.INFLIGHT, ssl=tls)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=10)) as session:
        async def fetch(url):
            async with session.get(url) as response:
                return await response.read()

        await consume.work(fetch)


consume.run(main)
