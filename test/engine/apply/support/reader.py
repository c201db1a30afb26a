# As reader.mjs, with the SQLite of Python: another version, and memory-mapped reading.
import json, select, sqlite3, sys

path = sys.argv[1]
result = {"reads": 0, "versionMax": 0, "busy": 0, "errors": []}
database = sqlite3.connect(path, timeout=10, isolation_level=None)
database.execute("PRAGMA mmap_size=268435456")
print("ready", flush=True)
while len(result["errors"]) <= 5:
    if select.select([sys.stdin], [], [], 0)[0]:
        break
    try:
        row = database.execute(
            "SELECT (SELECT sum(balance) FROM account), (SELECT min(v) FROM stamp),"
            " (SELECT max(v) FROM stamp), (SELECT v FROM version)"
        ).fetchone()
        if row[0] != 0 or row[1] != row[3] or row[2] != row[3]:
            result["errors"].append(f"mixed state {row}")
        if row[3] < result["versionMax"]:
            result["errors"].append(f"went back from {result['versionMax']} to {row[3]}")
        result["versionMax"] = max(result["versionMax"], row[3])
        result["reads"] += 1
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            result["busy"] += 1
        else:
            result["errors"].append(str(error))
print(json.dumps(result), flush=True)
