"""httpx + uvloop + aiokafka: how gatherd's story began."""

import ssl

import httpx

import consume


async def main():
    limits = httpx.Limits(max_connections=consume.INFLIGHT, max_keepalive_connections=consume.INFLIGHT)
    tls = ssl.create_default_context(cafile=consume.CA)
    async with httpx.AsyncClient(limits=limits, timeout=10, verify=tls) as client:
        async def fetch(url):
            return (await client.get(url)).content

        await consume.work(fetch)


consume.run(main)
