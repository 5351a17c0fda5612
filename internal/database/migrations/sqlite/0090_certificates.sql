-- Certificates from an authority; package tlsconf says how they are used.

-- +goose Up
-- A name that no server asks for any more keeps its key, in case one does again.
CREATE TABLE tls_certificates (
    name      TEXT   NOT NULL PRIMARY KEY, -- A-labels
    key       BLOB   NOT NULL, -- PKCS #8, sealed; it stays the same when the certificate is renewed
    chain     TEXT   NOT NULL, -- PEM, the server's own first; empty: there is none yet
    state     TEXT   NOT NULL, -- waiting, good, failed or skipped
    reason    TEXT   NOT NULL, -- why it failed or was skipped
    failures  BIGINT NOT NULL, -- in a row
    failed    BIGINT NOT NULL, -- when it failed last; UTC milliseconds, like all times; 0: never
    next      BIGINT NOT NULL, -- when to try or to renew
    renew     BIGINT NOT NULL, -- 1: now, an operator said
    next_key  BLOB,            -- the key to come, sealed
    next_made BIGINT NOT NULL,
    next_seen BIGINT NOT NULL, -- since when all name servers show its TLSA record; 0: not yet
    next_ttl  BIGINT NOT NULL, -- the longest that TLSA records were to be kept, in milliseconds, since next_made
    next_use  BIGINT NOT NULL, -- 1: the next certificate is for this key
    next_note TEXT   NOT NULL  -- what it waits for
) WITHOUT ROWID;

-- Which server, by its host name, asks for which names; an empty host: an operator does, for all of them.
CREATE TABLE tls_names (
    name TEXT NOT NULL,
    host TEXT NOT NULL,
    PRIMARY KEY (name, host)
) WITHOUT ROWID;

-- What the ACME library keeps: accounts, and challenges that any node may have to answer.
CREATE TABLE tls_assets (
    name     TEXT   NOT NULL PRIMARY KEY,
    value    BLOB   NOT NULL, -- sealed
    size     BIGINT NOT NULL,
    modified BIGINT NOT NULL
) WITHOUT ROWID;

-- Who is doing what; others may take over when the time is up.
CREATE TABLE tls_locks (
    name    TEXT   NOT NULL PRIMARY KEY,
    holder  TEXT   NOT NULL,
    expires BIGINT NOT NULL
) WITHOUT ROWID;
