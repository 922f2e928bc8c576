"""`python -m bench.callbacks [--quick]`: 100 single callbacks a second, then batches of 1,000 updates; percentiles and cost."""

import argparse
import asyncio
import hashlib
import hmac
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

import aiohttp
import msgspec
from rich.console import Console
from rich.table import Table

from tests.chaos.town import Town
from tests.make import CLOUD_SECRETS

_A_SECOND = 100
_BATCH = 1_000
_TICKS = 100.0  # of /proc, a second (sysconf SC_CLK_TCK is 100 on every Linux there is)


@dataclass(frozen=True)
class Measured:
    """One way of calling: seconds to each answer, how many updates they brought, and the door's CPU seconds."""

    name: str
    answers_s: Sequence[float]
    updates: int
    cpu_s: float


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few seconds of it")
    _print(asyncio.run(_run(quick=parser.parse_args().quick)))


async def _run(*, quick: bool) -> list[Measured]:
    seconds, batches = (3, 3) if quick else (20, 20)
    async with Town() as town:
        await _singles(town, 2, offset=10_000_000)  # warms up
        return [
            await _measure_singles(town, seconds),
            await _measure_batches(town, "batches of 1,000 messages", batches, statuses=False),
            await _measure_batches(town, "batches of 1,000, half of them statuses", batches, statuses=True),
        ]


async def _measure_singles(town: Town, seconds: int) -> Measured:
    took, cpu_s = await _singles(town, seconds, offset=0)
    return Measured("100 messages a second", took, len(took), cpu_s)


async def _singles(town: Town, seconds: int, *, offset: int) -> tuple[list[float], float]:
    """One callback each hundredth of a second, whether the one before is answered or not, as Meta does."""
    took: list[float] = []
    before = _cpu_s(town)
    started = time.perf_counter()

    async def one(number: int) -> None:
        await asyncio.sleep(max(0.0, started + number / _A_SECOND - time.perf_counter()))
        took.append(await _post(town, [_message(offset + number)]))

    await asyncio.gather(*(one(number) for number in range(seconds * _A_SECOND)))
    return took, _cpu_s(town) - before


async def _measure_batches(town: Town, name: str, batches: int, *, statuses: bool) -> Measured:
    took: list[float] = []
    before = _cpu_s(town)
    for batch in range(batches):
        first = 20_000_000 + (50_000_000 if statuses else 0) + batch * _BATCH
        updates = [_message(first + number) for number in range(_BATCH // 2 if statuses else _BATCH)]
        reports = [_status(first + number) for number in range(_BATCH // 2)] if statuses else []
        took.append(await _post(town, updates, reports))
    return Measured(name, took, batches * _BATCH, _cpu_s(town) - before)


async def _post(town: Town, messages: Sequence[object], statuses: Sequence[object] = ()) -> float:
    metadata = {"display_phone_number": "15550783881", "phone_number_id": town.cloud.external_id}
    value = {"messaging_product": "whatsapp", "metadata": metadata, "messages": messages, "statuses": statuses}
    change = {"field": "messages", "value": value}
    body = msgspec.json.encode({"object": "whatsapp_business_account", "entry": [{"id": "1", "changes": [change]}]})
    signature = hmac.new(CLOUD_SECRETS["app_secret"].encode(), body, hashlib.sha256).hexdigest()
    url = f"{town.api}/callbacks/whatsapp-cloud/{town.cloud.channel_key}"
    headers = {"X-Hub-Signature-256": f"sha256={signature}", "Content-Type": "application/json"}
    started = time.perf_counter()
    timeout = aiohttp.ClientTimeout(total=60)
    async with town.http.post(url, data=body, headers=headers, timeout=timeout) as response:
        await response.read()
        if response.status != 200:
            raise RuntimeError(f"the door answered {response.status}")
    return time.perf_counter() - started


def _message(number: int) -> dict[str, object]:
    return {
        "from": f"49{number % 5000:010}",
        "id": f"wamid.{number}",
        "timestamp": str(int(time.time())),
        "type": "text",
        "text": {"body": f"message {number}"},
    }


def _status(number: int) -> dict[str, object]:
    return {"id": f"wamid.ours.{number}", "status": "delivered", "timestamp": str(int(time.time()))}


def _cpu_s(town: Town) -> float:
    """CPU seconds of the door's processes so far."""
    return sum(_process_cpu_s(pid) for pid in _family(town.pid("api")))


def _process_cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return [pid, *(int(child) for child in children)]


def _print(results: Sequence[Measured]) -> None:
    table = Table("callbacks", "answers", "p50", "p99", "over 250 ms", "door's CPU an update")
    for one in results:
        cuts = quantiles(one.answers_s, n=100)
        late = sum(took > 0.25 for took in one.answers_s) / len(one.answers_s)
        table.add_row(
            one.name,
            str(len(one.answers_s)),
            f"{cuts[49] * 1000:.1f} ms",
            f"{cuts[98] * 1000:.1f} ms",
            f"{late:.1%}",
            f"{one.cpu_s / one.updates * 1_000_000:.0f} µs",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
