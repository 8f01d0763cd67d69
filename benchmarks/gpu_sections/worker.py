"""The process of one job (`jobs.Worker`): gets ready, waits for the word on its standard input, and appends records."""

import json
import pickle
import sys
import traceback
from pathlib import Path

from gpu_sections.jobs import described, execute, resolve


def main() -> None:
    job, setting, records = pickle.loads(Path(sys.argv[1]).read_bytes())
    resolve(job)
    if not sys.stdin.readline():
        return  # whoever started this has ended, or has no time left for it
    with records.open("a") as file:
        for record in execute(job, setting):
            file.write(json.dumps(record) + "\n")
            file.flush()


if __name__ == "__main__":
    try:
        main()
    except Exception as error:
        traceback.print_exc()
        sys.exit(described(error))  # the last line
