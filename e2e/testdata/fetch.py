"""Fetches every letter with poplib and writes it to OUT/N: fetch.py HOST PORT CA MODE LOGIN OUT; MODE is tls or stls.
The password is read from standard input."""
import os
import poplib
import ssl
import sys

host, port, ca, mode, login, out = sys.argv[1:7]
password = sys.stdin.readline().rstrip("\n")
poplib._MAXLINE = 1 << 17  # poplib refuses lines that the server may hold
context = ssl.create_default_context(cafile=ca)
if mode == "tls":
    box = poplib.POP3_SSL(host, int(port), context=context, timeout=30)
else:
    box = poplib.POP3(host, int(port), timeout=30)
    box.stls(context=context)
box.user(login)
box.pass_(password)
count, size = box.stat()
total = 0
for n in range(1, count + 1):
    _, lines, _ = box.retr(n)
    letter = b"".join(line + b"\r\n" for line in lines)
    listed = int(box.list(n).split()[2])
    assert len(letter) == listed, (n, len(letter), listed)
    total += len(letter)
    with open(os.path.join(out, str(n)), "wb") as f:
        f.write(letter)
assert total == size, (total, size)
print(count)
box.quit()
