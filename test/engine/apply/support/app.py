# An app with one connection: runs the SQL in each line of JSON it gets, and answers with rows or the error's name.
import json, sqlite3, sys

database = sqlite3.connect(sys.argv[1], timeout=float(sys.argv[2]), isolation_level=None)
for line in sys.stdin:
    try:
        print(json.dumps(database.execute(json.loads(line)).fetchall()), flush=True)
    except sqlite3.Error as error:
        print(json.dumps(str(error)), flush=True)
