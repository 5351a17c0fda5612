"""Delivers one letter with smtplib: deliver.py HOST PORT CA MODE FROM TO FILE; MODE is plain, starttls, 8bit or utf8."""
import smtplib
import ssl
import sys

host, port, ca, mode, sender, recipient, path = sys.argv[1:8]
with open(path, "rb") as f:
    letter = f.read()
client = smtplib.SMTP(host, int(port), timeout=30)
client.ehlo("client.example")
if mode != "plain":
    client.starttls(context=ssl.create_default_context(cafile=ca))
    client.ehlo("client.example")
options = {"plain": [], "starttls": [], "8bit": ["BODY=8BITMIME"], "utf8": ["SMTPUTF8", "BODY=8BITMIME"]}[mode]
refused = client.sendmail(sender, [recipient], letter, mail_options=options)
assert refused == {}, refused
print(client.quit())
