"""Chromium over its debugging protocol: open a page, run script in it, hear what it complains of and asks for."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
    "--autoplay-policy=no-user-gesture-required", "--remote-debugging-port=0",
)  # fmt: skip
_QUIET = {"data", "blob"}


@dataclass
class Visit:
    """What a page did while a script ran in it."""

    value: Any = None
    complaints: list[str] = field(default_factory=list)
    """Console errors and warnings, uncaught exceptions, blocked requests."""
    requests: list[str] = field(default_factory=list)
    """Everything asked for, besides the page itself and data inside it."""
    load_seconds: float = 0.0
    """From navigation to the load event."""


def visit(page: Path, script: str, profile: Path, seconds: float = 150) -> Visit:
    """Open a local page and evaluate `script`, the body of an async function that returns JSON values."""
    with subprocess.Popen(
        [str(CHROMIUM), *_FLAGS, f"--user-data-dir={profile}", "about:blank"], stderr=subprocess.DEVNULL
    ) as process:
        try:
            return asyncio.run(asyncio.wait_for(_visit(page.as_uri(), script, profile), seconds))
        finally:
            process.terminate()


async def _visit(address: str, script: str, profile: Path) -> Visit:
    port_file = profile / "DevToolsActivePort"
    while not port_file.exists() or not port_file.read_text():
        await asyncio.sleep(0.1)
    port = port_file.read_text().split()[0]
    async with aiohttp.ClientSession() as session:
        while not (targets := await _pages(session, port)):
            await asyncio.sleep(0.1)
        async with session.ws_connect(targets[0]["webSocketDebuggerUrl"], max_msg_size=0) as socket:
            return await _Talk(socket, address).go(script)


async def _pages(session: aiohttp.ClientSession, port: str) -> list[dict[str, Any]]:
    async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
        return [target for target in await answer.json() if target["type"] == "page"]


class _Talk:
    def __init__(self, socket: aiohttp.ClientWebSocketResponse, address: str):
        self.socket, self.address, self.number, self.seen = socket, address, 0, Visit()
        self.loaded = False

    async def go(self, script: str) -> Visit:
        for domain in ("Page", "Network", "Runtime", "Log"):
            await self.call(f"{domain}.enable")
        started = time.monotonic()
        await self.call("Page.navigate", url=self.address)
        while not self.loaded:
            self.hear((await self.socket.receive()).json())
        self.seen.load_seconds = time.monotonic() - started
        answer = await self.call(
            "Runtime.evaluate", expression=f"(async () => {{ {script} }})()", awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in answer:
            self.seen.complaints.append(str(answer["exceptionDetails"]))
        self.seen.value = answer["result"].get("value")
        return self.seen

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self.number += 1
        await self.socket.send_json({"id": self.number, "method": method, "params": parameters})
        while True:
            message = (await self.socket.receive()).json()
            if message.get("id") == self.number:
                return message.get("result", {})
            self.hear(message)

    def hear(self, message: dict[str, Any]) -> None:
        method, facts = message.get("method"), message.get("params", {})
        if method == "Page.loadEventFired":
            self.loaded = True
        elif method == "Network.requestWillBeSent":
            url = facts["request"]["url"]
            if url.split(":", 1)[0] not in _QUIET and url != self.address:
                self.seen.requests.append(url)
        elif method == "Runtime.exceptionThrown" or (
            method == "Runtime.consoleAPICalled" and facts["type"] in ("error", "warning", "assert")
        ):
            self.seen.complaints.append(str(facts))
        elif method == "Log.entryAdded" and facts["entry"]["level"] in ("error", "warning"):
            self.seen.complaints.append(facts["entry"]["text"])
