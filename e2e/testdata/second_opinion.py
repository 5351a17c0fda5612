"""Signs and verifies letters with dkimpy, one JSON request a line, one JSON answer a line."""
import base64
import json
import sys

import dkim


def sign(r):
    header, body = r["canonical"].split("/")
    letter = base64.b64decode(r["letter"])
    signature = dkim.sign(
        letter, r["selector"].encode(), r["domain"].encode(), r["key"].encode(),
        canonicalize=(header.encode(), body.encode()), signature_algorithm=r["algorithm"].encode())
    return {"letter": base64.b64encode(signature + letter).decode()}


def verify(r):
    keys = {name.rstrip("."): record.encode() for name, record in r["keys"].items()}

    def lookup(name, timeout=5):
        return keys.get(name.decode("ascii", "replace").rstrip(".").lower())

    try:
        letter = dkim.DKIM(base64.b64decode(r["letter"]))
    except (dkim.MessageFormatError, IndexError) as problem:
        return {"passes": False, "unreadable": True, "problem": repr(problem)}
    problems = []
    for i in range(sum(name.lower() == b"dkim-signature" for name, _ in letter.headers)):
        try:
            if letter.verify(idx=i, dnsfunc=lookup):
                return {"passes": True}
        except Exception as problem:  # dkimpy raises what it cannot parse, in many ways
            problems.append(repr(problem))
    return {"passes": False, "problem": ", ".join(problems)}


for line in sys.stdin:
    request = json.loads(line)
    print(json.dumps({"sign": sign, "verify": verify}[request["do"]](request)), flush=True)
