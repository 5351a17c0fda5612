-- Hands one letter to opendkim over the milter protocol and prints the signature that it wants to add.
-- Given with -D: socket, letter (a file).
local file = assert(io.open(letter, "rb"))
local text = file:read("*a"):gsub("\r\n", "\n")
file:close()
local header, body = text:match("^(.-\n)\n(.*)$")

-- opendkim puts a blank behind the colon of each field.
local conn = mt.connect(socket, 50, 0.1)
if conn == nil then error("cannot connect to opendkim") end
mt.conninfo(conn, "localhost", "127.0.0.1")
mt.macro(conn, SMFIC_MAIL, "i", "letter")
mt.mailfrom(conn, "<ben@signer.example>")
mt.rcptto(conn, "<anna@example.org>")
header = header:gsub("\n([ \t])", "\1%1") -- keep folded fields together
for line in header:gmatch("([^\n]+)\n") do
	local name, value = line:match("^(.-):%s?(.*)$")
	mt.header(conn, name, (value:gsub("\1", "\n")))
end
mt.eoh(conn)
body = body:gsub("\n", "\r\n")
for at = 1, #body, 60000 do -- a milter packet holds 64 KiB
	mt.bodystring(conn, body:sub(at, at + 59999))
end
mt.eom(conn)
local signature = mt.getheader(conn, "DKIM-Signature", 0)
if signature == nil then error("opendkim did not sign") end
io.write(signature)
mt.disconnect(conn)
