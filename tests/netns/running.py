"""A probe's program, run as the observer runs it."""

import json
import subprocess
import sys
import threading

from chaos.netns import inside


class Running:
    """One program: `records` grow as it prints; `wait_for` an event; `stop` and get them all."""

    def __init__(self, program, namespaces, logs):
        path = namespaces.get(program.node, "/proc/self/ns/net")
        self.records = []
        self.came = threading.Condition()
        self.process = inside(path, lambda: self._start(program.module))
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        setup = {"config": dict(program.config), "namespaces": namespaces, "logs": logs}
        self._say(setup)

    @staticmethod
    def _start(module):
        return subprocess.Popen(
            [sys.executable, "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def _say(self, value):
        self.process.stdin.write(json.dumps(value).encode() + b"\n")
        self.process.stdin.flush()

    def _read(self):
        for line in self.process.stdout:
            with self.came:
                self.records.append(json.loads(line))
                self.came.notify_all()
        with self.came:
            self.records.append(None)
            self.came.notify_all()

    def wait_for(self, test, deadline_s=20.0):
        """The first record that passes `test` (a function, or the name of an event)."""
        wanted = test if callable(test) else lambda record: record["ev"] == test

        def found():
            return next((r for r in self.records if r is not None and wanted(r)), None)

        with self.came:
            came = self.came.wait_for(lambda: found() or None in self.records, deadline_s)
            assert came, f"no such record; had {self.records[-3:]}"
            record = found()
        assert record is not None, f"the program ended with {self.process.wait()}"
        return record

    def wait_count(self, event, count, deadline_s=20.0):
        """Until it has told `count` more records of that event."""

        def told():
            return sum(r is not None and r["ev"] == event for r in self.records)

        with self.came:
            wanted = told() + count
            came = self.came.wait_for(lambda: told() >= wanted or None in self.records, deadline_s)
            assert came, f"{told()} records {event}, waited for {wanted}"
            assert told() >= wanted, f"the program ended with {self.process.wait()}"

    def stop(self):
        """Ask it to stop; its records."""
        if self.process.poll() is None:
            self._say({"cmd": "stop"})
        return self.end()

    def end(self):
        self.process.stdin.close()
        self.reader.join(20)
        assert self.process.wait(20) is not None
        self.process.stdout.close()
        return [record for record in self.records if record is not None]
