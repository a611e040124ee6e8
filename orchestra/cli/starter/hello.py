"""Runs the workflow `hello` from Python: `python hello.py`."""

import asyncio
from pathlib import Path

from orchestra import Orchestra


async def main() -> None:
    """Asks one question and prints what came back."""
    text = (Path(__file__).parent / "documents" / "ada.txt").read_text(encoding="utf-8")
    async with Orchestra.open() as orchestra:
        hello = orchestra.find("hello")
        result = await orchestra.run(hello, question="What does note G describe?", text=text)
    print(result.output)
    print(f"{result.usage.output_tokens} tokens written; more: orchestra runs show {result.run}")


if __name__ == "__main__":
    asyncio.run(main())
